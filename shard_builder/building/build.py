"""A source to a dataset folder: cut into shard tasks, run them anywhere, collect the index, write
the manifest last.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from shard_builder.building.options import BuildOptions
from shard_builder.building.shard_task import BUILD_FOLDER, ShardResult, ShardTask, run_shard_task
from shard_builder.errors import BuildError, InputError, SourceError
from shard_builder.files import FileDigest, sync_folder, write_atomically
from shard_builder.format.index import INDEX_NAME, write_index
from shard_builder.format.manifest import (
    MANIFEST_NAME,
    EmotionClass,
    FlowSettings,
    Geometry,
    Manifest,
    Shard,
    Stream,
    write_manifest,
)
from shard_builder.format.streams import NUM_LAST_FRAMES
from shard_builder.sources.sequence import FaceSequence, Source

# Size of an encoded plane or frame against its raw bytes, measured on faces; decides only where
# shards are cut.
NUM_SHARDS, SHARD_BYTES = 256, (8 << 20, 1 << 30)
"""Shards of a stream where --shard-bytes does not say otherwise, and the sizes that bound them."""
EXPECTED_COMPRESSION = {"raw": 1.0, "png": 0.6, "jpg": 0.15}
SKIPPED_NAME = "skipped.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """A finished build: its manifest, how many shards were reused, and the seconds each step took,
    summed over workers.
    """

    manifest: Manifest
    num_shards: int
    num_reused_shards: int
    num_pairs: int
    seconds: dict[str, float]


def build_dataset(
    source: Source,
    source_root: Path,
    dataset_dir: Path,
    options: BuildOptions,
    *,
    workers: int = 1,
    overwrite: bool = False,
    executor: Executor | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Build a dataset folder; the same source and options give the same bytes, whatever runs the
    tasks.

    A build that was stopped goes on where it was: shards whose checksums hold are kept.
    ``manifest.json`` is written last.

    Args:
        source: What a scan found.
        source_root: The folder it was found in.
        dataset_dir: Where to build.
        options: What decides the bytes.
        workers: Local processes, if no executor is given.
        overwrite: Whether a finished dataset in ``dataset_dir`` may be replaced.
        executor: Any executor whose workers see both folders; a Dask cluster's, for instance.
        on_progress: Called with (sequences done, sequences in all) after each shard.

    Raises:
        InputError: If ``dataset_dir`` is not empty and neither an unfinished build nor to be
            overwritten.
        SourceError: If an image cannot be read.
        BuildError: If the disk is full or a worker died; finished shards are kept for the next run.
    """
    _prepare_folder(dataset_dir, overwrite=overwrite)
    classes = source.class_table()
    tasks = cut_tasks(source, source_root, dataset_dir, options, classes)
    num_sequences = len(source.sequences)
    done = 0
    results = []
    for result in _run(tasks, workers, executor):
        results.append(result)
        done += len(tasks[result.number].sequences)
        if on_progress:
            on_progress(done, num_sequences)
    results.sort(key=lambda result: result.number)
    try:
        manifest = _finish(source, classes, dataset_dir, options, results)
    except OSError as error:
        raise _disk_error(error, dataset_dir) from error
    seconds: dict[str, float] = {}
    for result in results:
        for name, value in result.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
    return BuildReport(
        manifest=manifest,
        num_shards=len(results),
        num_reused_shards=sum(result.reused for result in results),
        num_pairs=sum(row["num_pairs"] for result in results for row in result.rows),
        seconds=seconds,
    )


def cut_tasks(
    source: Source,
    source_root: Path,
    dataset_dir: Path,
    options: BuildOptions,
    classes: list[tuple[int, str]],
) -> list[ShardTask]:
    """Put the sequences into a seeded global order and cut it where the larger stream's shard is
    expected to be full.
    """
    order = np.random.Generator(np.random.Philox(options.seed)).permutation(len(source.sequences))
    label_of = {code: label for label, (code, _) in enumerate(classes)}
    sizes = [_expected_bytes(sequence, options) for sequence in source.sequences]
    shard_bytes = options.shard_bytes or min(
        max(sum(sizes) // NUM_SHARDS, SHARD_BYTES[0]), SHARD_BYTES[1]
    )
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
        )
        for number, group in enumerate(groups)
    ]


def _expected_bytes(sequence: FaceSequence, options: BuildOptions) -> int:
    plane = options.width * options.height
    num_frames = sequence.expected_num_frames
    kept = min(NUM_LAST_FRAMES.get(options.frames, num_frames), num_frames)
    raw = max(
        3 * plane * kept * ("rgb" in options.streams),
        2 * plane * (num_frames - 1) * ("flow" in options.streams),
    )
    return int(raw * EXPECTED_COMPRESSION[options.codec])


def _prepare_folder(dataset_dir: Path, *, overwrite: bool) -> None:
    unfinished = (dataset_dir / BUILD_FOLDER).is_dir()
    if dataset_dir.exists() and not dataset_dir.is_dir():
        raise InputError(
            f"{dataset_dir}: is a file, expected a folder to build in\n  Choose another DATASET."
        )
    if dataset_dir.is_dir() and any(dataset_dir.iterdir()) and not unfinished:
        if not overwrite:
            raise InputError(
                f"{dataset_dir}: not empty, expected a new folder\n  Choose another DATASET, or"
                " replace it with --overwrite."
            )
        if not (dataset_dir / MANIFEST_NAME).is_file():
            raise InputError(
                f"{dataset_dir}: not a dataset (no manifest.json), so --overwrite will not touch"
                " it\n  Choose another DATASET."
            )
        (dataset_dir / MANIFEST_NAME).unlink()
    (dataset_dir / BUILD_FOLDER).mkdir(parents=True, exist_ok=True)
    for leftover in (dataset_dir / BUILD_FOLDER).glob("*.tmp"):
        leftover.unlink()


def _run(tasks: list[ShardTask], workers: int, executor: Executor | None) -> Iterator[ShardResult]:
    """Run the tasks in this process, in local processes or on the executor; yield results as they
    come.
    """
    try:
        if executor is None and min(workers, len(tasks)) <= 1:
            yield from map(run_shard_task, tasks)
        elif executor is None:
            pool = ProcessPoolExecutor(
                min(workers, len(tasks)), mp_context=multiprocessing.get_context("spawn")
            )
            try:
                yield from _collect(pool, tasks)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        else:
            yield from _collect(executor, tasks)
    except BrokenExecutor:
        raise BuildError(
            "a build worker died (out of memory, or killed)\n  Finished shards are kept. Run the"
            " same command again, with fewer --workers if memory was short."
        ) from None
    except OSError as error:
        raise _disk_error(error, tasks[0].dataset_dir) from error


def _collect(executor: Executor, tasks: Iterable[ShardTask]) -> Iterator[ShardResult]:
    futures: list[Future[ShardResult]] = [executor.submit(run_shard_task, task) for task in tasks]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def _disk_error(error: OSError, dataset_dir: Path) -> BuildError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = (
        "the disk is full"
        if full
        else f"{error.strerror or error} ({error.filename or 'no file name'})"
    )
    return BuildError(
        f"{dataset_dir}: {what}\n  Finished shards are kept. Mend it (free space) and run the same"
        " command again."
    )


def _finish(
    source: Source,
    classes: list[tuple[int, str]],
    dataset_dir: Path,
    options: BuildOptions,
    results: list[ShardResult],
) -> Manifest:
    temporary_dir = dataset_dir / BUILD_FOLDER
    rows = [row for result in results for row in result.rows]
    skipped = [asdict(skip) for skip in source.skipped] + [
        skip for result in results for skip in result.skipped
    ]
    if not rows:
        shutil.rmtree(temporary_dir)
        raise SourceError(
            f"no sequence could be built; all {len(skipped)} were skipped, the first because:"
            f" {skipped[0]['reason']}"
        )
    files = {name: digest for result in results for name, digest in result.files.items()}
    files[INDEX_NAME] = write_index(
        dataset_dir / INDEX_NAME, rows, streams=options.streams, temporary_dir=temporary_dir
    )
    if skipped:
        lines = "".join(
            json.dumps(skip, sort_keys=True) + "\n"
            for skip in sorted(skipped, key=lambda skip: skip["key"])
        )
        files[SKIPPED_NAME] = write_atomically(
            dataset_dir / SKIPPED_NAME, lines.encode(), temporary_dir=temporary_dir
        )
    _remove_others(dataset_dir, keep=set(files))
    sync_folder(dataset_dir)
    manifest = _manifest(source, classes, options, results, files, num_skipped=len(skipped))
    write_manifest(dataset_dir, manifest, temporary_dir=temporary_dir)
    shutil.rmtree(temporary_dir)
    sync_folder(dataset_dir)
    return manifest


def _remove_others(dataset_dir: Path, *, keep: set[str]) -> None:
    """Remove the shards of an earlier, longer build that this one replaces."""
    for path in dataset_dir.iterdir():
        if path.name not in keep and path.suffix in (".tar", ".idx", ".arrow", ".jsonl"):
            path.unlink()


def _manifest(
    source: Source,
    classes: list[tuple[int, str]],
    options: BuildOptions,
    results: list[ShardResult],
    files: dict[str, FileDigest],
    *,
    num_skipped: int,
) -> Manifest:
    rows = [row for result in results for row in result.rows]
    labels = [row["label"] for row in rows]
    num_levels = sum(result.levels["num"] for result in results)
    flow = FlowSettings(
        method=options.flow_method,
        bound_px=options.bound_px,
        saturated_fraction=round(
            sum(r.levels["saturated"] for r in results) / max(1, num_levels), 6
        ),
        mean_level=round(sum(r.levels["sum"] for r in results) / max(1, num_levels), 3),
    )
    streams = {
        stream: Stream(
            codec=options.codec,
            quality=options.quality if options.codec == "jpg" else None,
            frames=options.frames if stream == "rgb" else None,
            num_members=sum(len(row[f"{stream}_offset"]) for row in rows),
            num_bytes=sum(result.num_bytes[stream] for result in results),
            shards=tuple(
                Shard(name=f"{stream}-{result.number:06d}.tar", num_samples=len(result.rows))
                for result in results
            ),
        )
        for stream in options.streams
    }
    return Manifest(
        seed=options.seed,
        num_sequences=len(rows),
        num_subjects=len({row["subject"] for row in rows}),
        classes=tuple(
            EmotionClass(label=label, name=name, code=code, num_sequences=labels.count(label))
            for label, (code, name) in enumerate(classes)
        ),
        geometry=Geometry(height=options.height, width=options.width),
        crop=options.crop if options.crop == "none" else f"landmarks, margin {options.crop_margin}",
        flow=flow if "flow" in options.streams else None,
        streams=streams,
        source={
            "kind": source.kind,
            "num_unlabelled": source.num_unlabelled,
            "num_skipped": num_skipped,
        },
        tools={
            "ckshard": importlib.metadata.version("ckshard"),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
        files=files,
    )
