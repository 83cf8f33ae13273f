"""Every promise of a dataset folder, and all that are broken, each with its place."""

from __future__ import annotations

import stat
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shard_builder.errors import DatasetError, InputError, counted
from shard_builder.files import FileDigest, digest_file, is_regular
from shard_builder.format.index import INDEX_NAME, LISTS, MOST_FRAMES, checked_rows, read_index
from shard_builder.format.manifest import (
    BUILD_FOLDER,
    MANIFEST_NAME,
    Manifest,
    Stream,
    read_manifest,
)
from shard_builder.format.streams import num_members
from shard_builder.format.verify_shard import Fault, ShardFindings, StreamChecks, check_shard
from shard_builder.keys import KEY_PATTERN
from shard_builder.machine import num_workers, run_on
from shard_builder.untrusted.text import clean

NOT_LISTED = {MANIFEST_NAME, BUILD_FOLDER}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found.

    Args:
        faults: Everything that is broken, by file and place.
        num_files: Files compared with the manifest.
        num_members: Members looked at.
        num_decoded: Members decoded; 0 with ``quick``.
        crop: How the manifest says that frames were cut to the face; ``none`` if they were not.
    """

    faults: tuple[Fault, ...]
    num_files: int
    num_members: int
    num_decoded: int
    crop: str


def verify_dataset(
    path: Path | str,
    *,
    quick: bool = False,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> VerifyReport:
    """Check manifest, files, tars and indexes against each other, and decode every member.

    Args:
        path: The dataset folder.
        quick: Leave out checksums and decoding: sizes, headers and indexes only.
        workers: Threads; 0 takes all cores.
        on_progress: Called with (shards done, shards in all).

    Raises:
        DatasetError: If there is no manifest of this version to compare the folder with.
        InputError: If the number of workers is negative.
    """
    workers, path = num_workers(workers), Path(path)
    manifest = read_manifest(path)
    faults = set(check_files(path, manifest, quick=quick))
    num_members = num_decoded = 0
    if any(fault.file == INDEX_NAME for fault in faults):
        # What is not what was built says nothing about the shards.
        return _report(faults, manifest, num_members=0, num_decoded=0)
    try:
        batch = read_index(path / INDEX_NAME, streams=manifest.streams, version=manifest.version)
        rows = checked_rows(path / INDEX_NAME, batch)
    except DatasetError as error:
        faults.add(Fault(file=INDEX_NAME, what=str(error).splitlines()[0]))
    else:
        faults.update(check_rows(rows, manifest))
        shards = _check_shards(path, manifest, rows, quick, workers, on_progress)
        with closing(shards):
            for shard in shards:
                faults.update(shard.faults)
                num_members += shard.num_members
                num_decoded += shard.num_decoded
    return _report(faults, manifest, num_members=num_members, num_decoded=num_decoded)


def _report(
    faults: set[Fault], manifest: Manifest, *, num_members: int, num_decoded: int
) -> VerifyReport:
    return VerifyReport(
        faults=tuple(sorted(faults, key=lambda f: (f.file, f.offset or 0, f.member or "", f.what))),
        num_files=len(manifest.files),
        num_members=num_members,
        num_decoded=num_decoded,
        crop=manifest.crop,
    )


def _check_shards(
    path: Path,
    manifest: Manifest,
    rows: list[dict[str, Any]],
    quick: bool,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> Generator[ShardFindings, None, None]:
    """Check every shard that is there, in threads; yield the results as they come."""
    rows_by_shard: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for stream in manifest.streams:
        for row in rows:
            rows_by_shard.setdefault((stream, row[f"{stream}_shard"]), []).append(row)
    shards = [
        (stream, number)
        for stream, entry in manifest.streams.items()
        for number, shard in enumerate(entry.shards)
        if is_regular(path / shard.name)
    ]
    is_abandoned = threading.Event()
    checks = StreamChecks(
        path=path,
        manifest=manifest,
        rows=rows_by_shard,
        decode=not quick,
        is_abandoned=is_abandoned,
    )
    with ThreadPoolExecutor(workers, thread_name_prefix="ckshard-verify") as pool:
        try:
            findings = run_on(pool, lambda shard: check_shard(checks, *shard), shards)
            for num_done, found in enumerate(findings, start=1):
                yield found
                on_progress(num_done, len(shards))
        finally:
            is_abandoned.set()  # or the end of the pool would wait for whole shards


def check_files(path: Path, manifest: Manifest, *, quick: bool) -> Iterator[Fault]:
    """Compare the folder with the manifest: files missing, additional, of other size or content."""
    for name, expected in manifest.files.items():
        if what := _file_fault(path / name, expected, quick=quick):
            yield Fault(file=name, what=what)
    for file in path.iterdir():
        if file.name not in manifest.files and file.name not in NOT_LISTED:
            yield Fault(file=file.name, what="is not in the manifest")
    for stream in manifest.streams.values():
        for shard in stream.shards:
            for name in (shard.name, shard.name.removesuffix(".tar") + ".idx"):
                if name not in manifest.files:
                    yield Fault(file=MANIFEST_NAME, what=f"lists no checksum of {name}")


def _file_fault(file: Path, expected: FileDigest, *, quick: bool) -> str:
    """Compare a file with its digest; return what differs. Its size is compared first."""
    try:
        status = file.lstat()
    except OSError:
        return "is missing"
    if stat.S_ISLNK(status.st_mode):
        return f"is a link to {clean(file.readlink())}, expected a regular file"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_size != expected.num_bytes:
        return f"has {status.st_size} bytes, expected {expected.num_bytes} as in the manifest"
    try:
        if not quick and digest_file(file).sha256 != expected.sha256:
            return "its SHA-256 differs from the manifest's"
    except InputError as error:
        return str(error).removeprefix(f"{file}: ")
    return ""


def check_rows(rows: list[dict[str, Any]], manifest: Manifest) -> Iterator[Fault]:
    """Check the rows of the index on their own and against the manifest's counts."""
    for what, actual, expected in _counts(rows, manifest):
        if actual != expected:
            what = f"{what}: {actual}, expected {expected} as in the manifest"
            yield Fault(file=INDEX_NAME, what=what)
    names = dict(enumerate(manifest.class_names))
    for key, count in Counter(row["key"] for row in rows).items():
        fault = partial(Fault, file=INDEX_NAME, member=key)
        if count > 1:
            yield fault(what=f"key appears {count} times")
        if not KEY_PATTERN.fullmatch(key):
            yield fault(what="key is not 1 to 80 characters of A-Z a-z 0-9 _ -")
    for row in rows:
        fault = partial(Fault, file=INDEX_NAME, member=row["key"])
        label, num_pairs, num_frames = row["label"], row["num_pairs"], row["num_frames"]
        if names.get(label) != row["emotion"]:
            wanted = names.get(label, f"no class: there are {len(names)}")
            yield fault(what=f"emotion {row['emotion']!r}, but label {label} is {wanted}")
        if not 1 <= num_frames <= MOST_FRAMES:
            yield fault(what=f"{num_frames} frames, expected 1 to {MOST_FRAMES}")
        if num_pairs != num_frames - 1:
            pairs = counted(num_pairs, "pair")
            yield fault(what=f"{pairs} of {counted(num_frames, 'frame')}, expected one fewer")
        if not 0 <= row["apex"] < num_frames:
            yield fault(what=f"apex {row['apex']}, expected 0 to {num_frames - 1}")
        for stream, entry in manifest.streams.items():
            if what := _lists_fault(stream, entry, row):
                yield fault(what=what)


def _lists_fault(stream: str, entry: Stream, row: dict[str, Any]) -> str:
    """Compare the shard of a row and the lengths of its lists with what they can be."""
    shard, num_shards = row[f"{stream}_shard"], len(entry.shards)
    if not 0 <= shard < num_shards:
        return f"{stream} shard {shard}, expected 0 to {num_shards - 1}"
    wanted = num_members(
        stream,
        codec=entry.codec,
        num_frames=row["num_frames"],
        apex=row["apex"],
        frames=entry.frames,
    )
    counts = [len(row[f"{stream}_{name}"]) for name in LISTS]
    if set(counts) != {wanted}:
        return f"lists {counted(counts[0], f'{stream} member')}, expected {wanted}"
    return ""


def _counts(rows: list[dict[str, Any]], manifest: Manifest) -> Iterator[tuple[str, int, int]]:
    """Yield what is counted, its number in the index, and its number in the manifest."""
    yield "num_sequences", len(rows), manifest.num_sequences
    yield "num_subjects", len({row["subject"] for row in rows}), manifest.num_subjects
    for stream, entry in manifest.streams.items():
        num_members = sum(len(row[f"{stream}_offset"]) for row in rows)
        yield f"{stream} num_members", num_members, entry.num_members
        samples = Counter(row[f"{stream}_shard"] for row in rows)
        for number, shard in enumerate(entry.shards):
            yield f"samples of {shard.name}", samples[number], shard.num_samples
    labels = Counter(row["label"] for row in rows)
    for emotion in manifest.classes:
        yield f"sequences of {emotion.name}", labels[emotion.label], emotion.num_sequences
