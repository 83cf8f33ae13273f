"""A source to a dataset folder: cut into tasks, run them anywhere, write the manifest last."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shard_builder.building.finish import INPUTS, combined_sha256, finish_dataset
from shard_builder.building.flow_levels import merge_statistics
from shard_builder.building.options import BuildOptions
from shard_builder.building.prepare import check_prepared
from shard_builder.building.shard_task import ShardResult, ShardTask, run_shard_task
from shard_builder.errors import BuildError, InputError
from shard_builder.faces.model import FaceModel, load_face_model
from shard_builder.faces.trial import try_face_model
from shard_builder.files import FULL, disk_fault, folder_inside, remove_temporaries
from shard_builder.format.manifest import BUILD_FOLDER, MANIFEST_NAME, Manifest, read_manifest
from shard_builder.format.streams import stored_frames
from shard_builder.lock import locked
from shard_builder.machine import num_workers, run_in_processes, run_on
from shard_builder.sources.sequence import FaceSequence, Source

NUM_SHARDS, SHARD_BYTES = 256, (8 << 20, 1 << 30)
"""Shards of a stream where ``shard_bytes`` is 0, and the sizes that bound them."""
EXPECTED_COMPRESSION = {"raw": 1.0, "png": 0.6, "lz4": 0.4, "jpg": 0.15}
"""Encoded against raw bytes, measured on faces; it decides only where shards are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """A finished build.

    Args:
        manifest: Its manifest.
        num_shards: Shards of each stream.
        num_reused_shards: Of these, how many were finished before this run.
        num_pairs: Flow pairs of all sequences.
        num_rgb_frames: Frames that the rgb stream keeps, if there is one.
        returning: Keys of sequences whose motion returns to its beginning although their last frame
            is taken for the apex, sorted.
        rest_cure: How many times as long a step and which bound would help where nearly all flow is
            at rest; None where neither would.
        seconds: Seconds of each step, summed over workers.
    """

    manifest: Manifest
    num_shards: int
    num_reused_shards: int
    num_pairs: int
    num_rgb_frames: int
    returning: tuple[str, ...]
    rest_cure: tuple[int, float] | None
    seconds: dict[str, float]


def build_dataset(
    source: Source,
    source_root: Path | str,
    dataset_dir: Path | str,
    options: BuildOptions,
    *,
    workers: int = 1,
    overwrite: bool = False,
    take_over: bool = False,
    executor: Executor | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> BuildReport:
    """Build a dataset folder; the same source and options give the same bytes, whatever runs them.

    A build that was stopped is resumed: shards whose checksums hold are kept. ``manifest.json`` is
    written last.

    Args:
        source: What a scan found.
        source_root: The folder it was found in.
        dataset_dir: Where to build.
        options: What decides the bytes.
        workers: Local processes, if no executor is given; 0 takes all cores.
        overwrite: Whether a finished dataset in ``dataset_dir`` may be replaced.
        take_over: See :func:`shard_builder.lock.locked`.
        executor: Any executor whose workers see both folders; a Dask cluster's, for instance.
        on_progress: Called with (sequences done, sequences in all) after each shard.

    Raises:
        InputError: If ``dataset_dir`` is not empty and neither an unfinished build nor to be
            overwritten, if another process writes it, if there is no face model, or if prepared
            trees hold another flow than the options say.
        SourceError: If an image cannot be read.
        BuildError: If the disk is full or a worker died; finished shards are kept for the next run.
    """
    workers = num_workers(workers)
    source_root, dataset_dir = Path(source_root), Path(dataset_dir)
    model = load_face_model(options.face_model) if options.crop == "faces" else None
    if model is not None:
        try_face_model(model)  # one that is none is told before anything is written
    if source.kind == "tree" and "flow" in options.streams:
        check_prepared(source_root, options)
    with locked(dataset_dir, take_over=take_over):
        _prepare_folder(dataset_dir, overwrite=overwrite)
        tasks = cut_tasks(source, source_root, dataset_dir, options, model)
        num_done = 0
        results = []
        with closing(_run(tasks, workers, executor)) as finished:
            for result in finished:
                results.append(result)
                num_done += len(tasks[result.number].sequences)
                on_progress(num_done, len(source.sequences))
        results.sort(key=lambda result: result.number)
        try:
            manifest = finish_dataset(source, dataset_dir, options, results, model)
        except OSError as error:
            raise _disk_error(error, dataset_dir) from error
    rows = [row for result in results for row in result.rows]
    levels = merge_statistics(result.levels for result in results)
    return BuildReport(
        manifest=manifest,
        num_shards=len(results),
        num_reused_shards=sum(result.reused for result in results),
        num_pairs=sum(row["num_pairs"] for row in rows),
        num_rgb_frames=sum(
            len(stored_frames(options.frames, num_frames=row["num_frames"], apex=row["apex"]))
            for row in rows
        ),
        rest_cure=levels.cure(num_frames=float(np.median([row["num_frames"] for row in rows]))),
        returning=tuple(sorted(key for result in results for key in result.returning)),
        seconds={
            name: sum(result.seconds[name] for result in results) for name in results[0].seconds
        },
    )


def finished_dataset(
    source: Source, source_root: Path, dataset_dir: Path, options: BuildOptions
) -> Manifest | None:
    """Return the manifest of a finished dataset that this very build has made, None if there is
    none: another source or options, or a file of the source is younger than the dataset.
    """
    path = dataset_dir / MANIFEST_NAME
    if not path.is_file() or (dataset_dir / BUILD_FOLDER).exists():
        return None
    manifest = read_manifest(dataset_dir)
    model = load_face_model(options.face_model) if options.crop == "faces" else None
    tasks = cut_tasks(source, source_root, dataset_dir, options, model)
    inputs = combined_sha256(task.hashes()[0] for task in tasks)
    finished_ns = path.stat().st_mtime_ns
    is_same = manifest.source.get(INPUTS) == inputs and all(
        max(status.st_mtime_ns, status.st_ctime_ns) <= finished_ns
        for task in tasks
        for status in task.status().values()
    )
    return manifest if is_same else None


def cut_tasks(
    source: Source,
    source_root: Path,
    dataset_dir: Path,
    options: BuildOptions,
    face_model: FaceModel | None = None,
) -> list[ShardTask]:
    """Put the sequences into a seeded global order; cut it where a shard is expected to be full."""
    order = np.random.Generator(np.random.Philox(options.seed)).permutation(len(source.sequences))
    label_of = {code: label for label, (code, _) in enumerate(source.classes)}
    sizes = [_expected_bytes(sequence, options) for sequence in source.sequences]
    least, most = SHARD_BYTES
    shard_bytes = options.shard_bytes or min(max(sum(sizes) // NUM_SHARDS, least), most)
    groups: list[list[FaceSequence]] = [[]]
    filled = 0
    for position in order:
        if groups[-1] and filled + sizes[position] > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(source.sequences[position])
        filled += sizes[position]
    return [
        ShardTask(
            number=number,
            sequences=tuple(group),
            labels=tuple(label_of[sequence.code] for sequence in group),
            options=options,
            dataset_dir=dataset_dir,
            source_root=source_root,
            face_model=face_model,
        )
        for number, group in enumerate(groups)
    ]


def _expected_bytes(sequence: FaceSequence, options: BuildOptions) -> int:
    """Return the bytes a sequence is expected to take in the larger stream's shard."""
    plane = options.width * options.height
    num_frames = sequence.expected_num_frames
    kept = stored_frames(options.frames, num_frames=num_frames, apex=num_frames - 1)
    raw = {"rgb": 3 * plane * len(kept), "flow": 2 * plane * (num_frames - 1)}
    return int(
        max(
            raw[stream] * EXPECTED_COMPRESSION[options.codec_of(stream)]
            for stream in options.streams
        )
    )


def _prepare_folder(dataset_dir: Path, *, overwrite: bool) -> None:
    """Make the folder, or clear what an earlier build left in it."""
    manifest, scratch = dataset_dir / MANIFEST_NAME, dataset_dir / BUILD_FOLDER
    if dataset_dir.exists() and not dataset_dir.is_dir():
        raise InputError(
            f"{dataset_dir}: is a file, expected a folder to build in\n  Choose another folder."
        )
    if dataset_dir.is_dir() and any(dataset_dir.iterdir()) and not scratch.is_dir():
        if not overwrite:
            what = "not empty, expected a new folder\n  Choose another folder"
            if manifest.is_file():
                what = (
                    "not empty: holds a dataset, expected a new folder\n"
                    "  Another source, changed files or other options need another folder"
                )
            raise InputError(f"{dataset_dir}: {what}, or replace it with overwrite=True.")
        if not manifest.is_file():
            raise InputError(
                f"{dataset_dir}: not a dataset (no manifest.json), so overwrite=True will not touch"
                " it\n  Choose another folder."
            )
        manifest.unlink()
    dataset_dir.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder_inside(dataset_dir, BUILD_FOLDER, make=True))


def _run(
    tasks: list[ShardTask], workers: int, executor: Executor | None
) -> Generator[ShardResult, None, None]:
    """Run the tasks here, in local processes or on the executor; yield results as they come."""
    try:
        if executor is not None:
            yield from run_on(executor, run_shard_task, tasks)
        else:
            kept = "Finished shards are kept."
            yield from run_in_processes(run_shard_task, tasks, workers=workers, kept=kept)
    except OSError as error:
        raise _disk_error(error, tasks[0].dataset_dir) from error


def _disk_error(error: OSError, dataset_dir: Path) -> BuildError:
    what = disk_fault(error)
    if error.errno not in FULL:
        what += f" ({error.filename or 'no file name'})"
    return BuildError(
        f"{dataset_dir}: {what}\n"
        "  Finished shards are kept. Free some space or fix the disk, and run the same again."
    )
