"""``ckshard prepare``: a CK+ release as the original's two PNG trees, for code that reads files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2

from shard_builder.building.flow import make_flow_estimator
from shard_builder.building.options import FlowMethod
from shard_builder.errors import InputError
from shard_builder.faces.frames import iter_frames
from shard_builder.format.codecs import encode_image
from shard_builder.format.levels import quantize_flow
from shard_builder.images import to_gray
from shard_builder.machine import num_workers, run_in_processes
from shard_builder.sources.sequence import FaceSequence, Source

SCRATCH = ".prepare"
AXES = ("x_flow", "y_flow")
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
    flow_method: FlowMethod = "farneback",
    bound_px: float = 10.0,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PrepareReport:
    """Write the original's two trees.

    ``rgb/<code>/<key>/`` holds the release's own files, ``flow/<code>/<key>/{x_flow,y_flow}/`` one
    ``<key>_%08d.png`` a pair. A sequence appears under its final name when it is whole; started
    again, finished sequences are kept.

    Args:
        source: A scanned CK+ release.
        out: Folder to write into; a folder that holds other things is refused.
        flow_method: ``farneback`` or ``dis``.
        bound_px: Displacement at which flow saturates.
        workers: Processes; 0 takes all cores.
        on_progress: Called with (sequences done, sequences in all).

    Raises:
        InputError: If the source is no CK+ release, or ``out`` holds other files.
        SourceError: If an image cannot be read.
        BuildError: If a worker died.

    Source: prepare_ck.py and extract_flow.py of the original (names, layout, parameters).
    """
    workers = num_workers(workers)
    if source.kind != "ckplus":
        raise InputError(f"prepare writes trees of a CK+ release, but this is {source.kind}")
    entries = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in entries if name not in ("rgb", "flow", SCRATCH)]
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
    num_kept = len(source.sequences) - len(left)
    prepare = partial(prepare_sequence, out=out, flow_method=flow_method, bound_px=bound_px)
    kept = "Finished sequences are kept."
    results = []
    for result in run_in_processes(prepare, left, workers=workers, kept=kept):
        results.append(result)
        on_progress(num_kept + len(results), len(source.sequences))
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    return PrepareReport(
        num_written=len(left),
        num_kept=num_kept,
        num_pairs=sum(result.num_pairs for result in results),
        worker_s=sum(result.worker_s for result in results),
        flow_s=sum(result.flow_s for result in results),
    )


def is_prepared(out: Path, sequence: FaceSequence) -> bool:
    """Return whether both folders of a sequence are there; they appear whole, flow last."""
    return all(
        (out / stream / str(sequence.code) / sequence.key).is_dir() for stream in ("rgb", "flow")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSequence:
    """One written sequence: its flow pairs, the seconds it took, and those inside the estimator."""

    num_pairs: int
    worker_s: float
    flow_s: float


def prepare_sequence(
    sequence: FaceSequence, out: Path, flow_method: FlowMethod, bound_px: float
) -> PreparedSequence:
    """Write one sequence."""
    begin, flow_s = time.perf_counter(), 0.0
    cv2.setNumThreads(1)  # as many workers as cores; more threads would only wait for each other
    scratch = out / SCRATCH / sequence.key
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "rgb").mkdir(parents=True)
    for axis in AXES:
        (scratch / "flow" / axis).mkdir(parents=True)
    for path in sequence.frames:
        shutil.copyfile(path, scratch / "rgb" / path.name)
    estimate = make_flow_estimator(flow_method)
    grays = (to_gray(frame) for frame in iter_frames(sequence.frames))
    number = 0
    for number, (previous, following) in enumerate(pairwise(grays), start=1):
        flow_begin = time.perf_counter()
        flow = estimate(previous, following)
        flow_s += time.perf_counter() - flow_begin
        levels = quantize_flow(flow, bound_px=bound_px)
        for channel, axis in enumerate(AXES):
            data = encode_image(levels[..., channel].copy(), codec="png", quality=None)
            (scratch / "flow" / axis / f"{sequence.key}_{number:08d}.png").write_bytes(data)
    for stream in ("rgb", "flow"):
        final = out / stream / str(sequence.code) / sequence.key
        shutil.rmtree(final, ignore_errors=True)
        (scratch / stream).rename(final)
    return PreparedSequence(num_pairs=number, worker_s=time.perf_counter() - begin, flow_s=flow_s)
