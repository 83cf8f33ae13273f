"""``ckshard prepare``: a CK+ release as the original's two PNG trees, for code that reads files."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2

from shard_builder.building.flow import make_flow_estimator
from shard_builder.building.options import BuildOptions, FlowMethod
from shard_builder.errors import InputError
from shard_builder.faces.frames import iter_frames
from shard_builder.files import folder_inside, temporary_folder, write_atomically
from shard_builder.format.codecs import encode_image
from shard_builder.format.levels import quantize_flow
from shard_builder.images import to_gray
from shard_builder.lock import locked
from shard_builder.machine import num_workers, run_in_processes
from shard_builder.sources.sequence import FaceSequence, Source
from shard_builder.untrusted.records import read_record

SCRATCH = ".prepare"
RECORD_NAME = ".prepare.json"
"""What the folder's flow was made with, written first: what is kept must be of the same kind."""
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
    take_over: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
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
        take_over: See :func:`shard_builder.lock.locked`.
        on_progress: Called with (sequences done, sequences in all).

    Raises:
        InputError: If the source is no CK+ release, ``out`` holds other files, or another process
            writes it.
        SourceError: If an image cannot be read.
        BuildError: If a worker died.

    Source: prepare_ck.py and extract_flow.py of the original (names, layout, parameters).
    """
    workers = num_workers(workers)
    if source.kind != "ckplus":
        raise InputError(f"prepare writes trees of a CK+ release, but this is {source.kind}")
    with locked(out, take_over=take_over):
        _prepare_folder(out, {"flow_method": flow_method, "bound_px": float(bound_px)})
        check_same_release(out, source)
        left = [sequence for sequence in source.sequences if not is_prepared(out, sequence)]
        num_kept = len(source.sequences) - len(left)
        prepare = partial(prepare_sequence, out=out, flow_method=flow_method, bound_px=bound_px)
        kept = "Finished sequences are kept."
        results = []
        with closing(run_in_processes(prepare, left, workers=workers, kept=kept)) as finished:
            for result in finished:
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


def _prepare_folder(out: Path, settings: dict[str, object]) -> None:
    """Make the folders, or make sure that what is in them was made with the same settings."""
    entries = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in entries if name not in ("rgb", "flow", SCRATCH, RECORD_NAME)]
    if foreign or out.is_file():
        raise InputError(
            f"{out}: holds {foreign[0] if foreign else 'a file'}, expected a new folder or one of"
            " ckshard prepare"
        )
    if any(out.glob("flow/*/*")) and (other := other_setting(out, settings)):
        name, made = other
        raise InputError(
            f"{name}={settings[name]!r}, but {out} was prepared with {made!r}\n"
            "  Finished sequences would be kept: choose another folder."
        )
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    for stream in ("rgb", "flow"):
        for code in range(NUM_CODES):
            folder_inside(out, stream, str(code), make=True)
    folder_inside(out, SCRATCH, make=True)
    write_atomically(out / RECORD_NAME, (json.dumps(settings) + "\n").encode())


def other_setting(trees: Path, settings: Mapping[str, object]) -> tuple[str, object] | None:
    """Return the first setting that trees were made with otherwise: its name, and their value."""
    record = trees / RECORD_NAME
    made = read_record(record, dict[str, str | float]) if os.path.lexists(record) else {}
    for name, value in settings.items():
        if made.get(name) != value:
            return name, made.get(name, "unknown")
    return None


def check_prepared(trees: Path, options: BuildOptions) -> None:
    """Make sure that a build from prepared trees states the flow that they were made with.

    Trees of the original, which no record lies in, are taken as they are.

    Raises:
        InputError: If the options say otherwise: the dataset would claim a flow that it has not.
    """
    for name, usual in (("frame_step", 1), ("fps", None), ("flow_size", "")):
        if (value := getattr(options, name)) != usual:
            raise InputError(
                f"{name}={value!r}, but the flow of prepared trees is taken as it is\n"
                "  Build from the frames or videos that they were made of."
            )
    settings: dict[str, object] = {
        "flow_method": options.flow_method,
        "bound_px": float(options.bound_px),
    }
    if os.path.lexists(trees / RECORD_NAME) and (other := other_setting(trees, settings)):
        name, made = other
        raise InputError(
            f"{name}={settings[name]!r}, but {trees} was prepared with {made!r}\n"
            f"  Its flow is taken as it is: build with {name}={made!r}."
        )


def check_same_release(out: Path, source: Source) -> None:
    """Make sure that trees hold no sequence which this release does not give.

    Raises:
        InputError: If they do: a build would mix two releases.
    """
    given = {(str(sequence.code), sequence.key) for sequence in source.sequences}
    for stream in ("rgb", "flow"):
        for path in sorted(out.glob(f"{stream}/*/*")):
            if (path.parent.name, path.name) not in given:
                raise InputError(
                    f"{path}: this release has no such sequence of this class, expected a new"
                    " folder or one of the same release\n"
                    "  Choose another folder, or remove that sequence."
                )


def is_prepared(out: Path, sequence: FaceSequence) -> bool:
    """Return whether a sequence's two folders are there and hold what this release would give.

    They appear whole, flow last. The frames are copies: they have the release's names and bytes.
    """
    rgb, flow = (out / stream / str(sequence.code) / sequence.key for stream in ("rgb", "flow"))
    if not (rgb.is_dir() and flow.is_dir()):
        return False
    names = {path.name for path in rgb.iterdir()}
    return names == {path.name for path in sequence.frames} and all(
        filecmp.cmp(path, rgb / path.name, shallow=False) for path in sequence.frames
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
    estimate, number = make_flow_estimator(flow_method), 0
    with temporary_folder(out / SCRATCH, sequence.key) as scratch:
        for name in ("rgb", *(f"flow/{axis}" for axis in AXES)):
            (scratch / name).mkdir(parents=True)
        for path in sequence.frames:
            shutil.copyfile(path, scratch / "rgb" / path.name)
        grays = (to_gray(frame) for frame in iter_frames(sequence.frames))
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
            if final.is_symlink():
                final.unlink()
            shutil.rmtree(final, ignore_errors=True)
            (scratch / stream).rename(final)
    return PreparedSequence(num_pairs=number, worker_s=time.perf_counter() - begin, flow_s=flow_s)
