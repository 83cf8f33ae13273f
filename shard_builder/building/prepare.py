"""``ckshard prepare``: a CK+ release as the original's two PNG trees, for code that reads files."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2

from shard_builder.building.flow import make_flow_estimator
from shard_builder.errors import BuildError, InputError
from shard_builder.format.codecs import encode_image
from shard_builder.format.levels import quantize_flow
from shard_builder.images import Image, to_gray
from shard_builder.sources.frames import iter_frames
from shard_builder.sources.sequence import FaceSequence, Source

SCRATCH = ".prepare"
NUM_CODES = 8
"""The original makes the folders 0 to 7; no sequence of CK+ has code 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareReport:
    """What was written, and where the workers' time went.

    Args:
        num_written: Sequences written now.
        num_kept: Sequences that were there already.
        num_pairs: Flow pairs written now.
        worker_s: Seconds of all workers together.
        flow_s: Of these, inside the flow estimator.
    """

    num_written: int
    num_kept: int
    num_pairs: int
    worker_s: float
    flow_s: float


def prepare_trees(
    source: Source,
    out: Path,
    *,
    flow_method: str = "farneback",
    bound_px: float = 10.0,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PrepareReport:
    """Write ``rgb/<code>/<key>/`` (the release's own files) and
    ``flow/<code>/<key>/{x_flow,y_flow}/<key>_%08d.png``.

    A sequence appears under its final name when it is whole; started again, finished sequences are
    kept.

    Args:
        source: A scanned CK+ release.
        out: Folder to write into; a folder that holds other things is refused.
        flow_method: ``farneback`` or ``dis``.
        bound_px: Displacement at which flow saturates.
        workers: Processes.
        on_progress: Called with (sequences done, sequences in all).

    Raises:
        InputError: If the source is no CK+ release, or ``out`` holds other files.
        SourceError: If an image cannot be read.
        BuildError: If a worker died.

    Source: prepare_ck.py and extract_flow.py of the original (names, layout, parameters).
    """
    if source.kind != "ckplus":
        raise InputError(
            "ckshard prepare writes trees of a CK+ release, but the source is read as"
            f" {source.kind}"
        )
    foreign = (
        [p.name for p in out.iterdir() if p.name not in ("rgb", "flow", SCRATCH)]
        if out.is_dir()
        else []
    )
    if foreign or out.is_file():
        raise InputError(
            f"{out}: holds {foreign[0] if foreign else 'a file'}, expected a new folder or one of"
            " ckshard prepare"
        )
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    for stream in ("rgb", "flow"):
        for code in range(NUM_CODES):
            (out / stream / str(code)).mkdir(parents=True, exist_ok=True)
    left = [sequence for sequence in source.sequences if not is_prepared(out, sequence)]
    num_kept = done = len(source.sequences) - len(left)
    totals = [0.0, 0.0, 0.0]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(workers, len(left))), mp_context=context) as pool:
        futures = [
            pool.submit(prepare_sequence, sequence, out, flow_method, bound_px) for sequence in left
        ]
        try:
            for future in as_completed(futures):
                totals = [before + new for before, new in zip(totals, future.result(), strict=True)]
                done += 1
                on_progress(done, len(source.sequences))
        except BrokenExecutor:
            raise BuildError(
                "a worker died (out of memory, or killed)\n  Run the same command again: it"
                " goes on."
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    num_pairs, worker_s, flow_s = totals
    return PrepareReport(
        num_written=len(left),
        num_kept=num_kept,
        num_pairs=int(num_pairs),
        worker_s=worker_s,
        flow_s=flow_s,
    )


def is_prepared(out: Path, sequence: FaceSequence) -> bool:
    """Return whether both folders of a sequence are there; they appear whole, flow last."""
    return all(
        (out / stream / str(sequence.code) / sequence.key).is_dir() for stream in ("rgb", "flow")
    )


def prepare_sequence(
    sequence: FaceSequence, out: Path, flow_method: str, bound_px: float
) -> tuple[float, float, float]:
    """Write one sequence; return its number of flow pairs, the seconds it took, and those inside
    the flow estimator.
    """
    begin, flow_s = time.perf_counter(), 0.0
    cv2.setNumThreads(1)
    scratch = out / SCRATCH / sequence.key
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "rgb").mkdir(parents=True)
    for axis in ("x_flow", "y_flow"):
        (scratch / "flow" / axis).mkdir(parents=True)
    for path in sequence.frames:
        shutil.copyfile(path, scratch / "rgb" / path.name)
    estimate = make_flow_estimator(flow_method)  # type: ignore[arg-type]
    previous: Image | None = None
    number = 0
    for frame in iter_frames(sequence.frames):
        gray = to_gray(frame)
        if previous is not None:
            number += 1
            flow_begin = time.perf_counter()
            flow = estimate(previous, gray)
            flow_s += time.perf_counter() - flow_begin
            levels = quantize_flow(flow, bound_px=bound_px)
            for number_of_axis, axis in enumerate(("x_flow", "y_flow")):
                data = encode_image(levels[..., number_of_axis].copy(), codec="png", quality=None)
                (scratch / "flow" / axis / f"{sequence.key}_{number:08d}.png").write_bytes(data)
        previous = gray
    for stream in ("rgb", "flow"):
        final = out / stream / str(sequence.code) / sequence.key
        shutil.rmtree(final, ignore_errors=True)
        (scratch / stream).rename(final)
    return number, time.perf_counter() - begin, flow_s
