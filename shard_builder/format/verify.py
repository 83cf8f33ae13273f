"""``ckshard verify``: every promise of a dataset folder, all that are broken, each with its
place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shard_builder.errors import DatasetError
from shard_builder.files import digest_file
from shard_builder.format.index import INDEX_NAME, read_index
from shard_builder.format.manifest import MANIFEST_NAME, Manifest, read_manifest
from shard_builder.format.verify_shard import Fault, StreamChecks, check_shard
from shard_builder.keys import KEY_PATTERN
from shard_builder.machine import num_workers

SCRATCH = {MANIFEST_NAME, ".build"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found.

    Args:
        faults: Everything that is broken, by file and place.
        num_files: Files compared with the manifest.
        num_members: Members looked at.
        num_decoded: Members decoded; 0 with ``quick``.
    """

    faults: tuple[Fault, ...]
    num_files: int
    num_members: int
    num_decoded: int


def verify_dataset(
    path: Path | str,
    *,
    quick: bool = False,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> VerifyReport:
    """Check manifest, sizes and checksums, tar headers, ``.idx`` and ``index.arrow`` against each
    other, and decode every member.

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
    faults = list(check_files(path, manifest, quick=quick))
    try:
        batch = read_index(path / INDEX_NAME, streams=manifest.streams)
    except DatasetError as error:
        faults.append(Fault(file=INDEX_NAME, what=str(error).splitlines()[0]))
        return VerifyReport(
            faults=tuple(faults), num_files=len(manifest.files), num_members=0, num_decoded=0
        )
    rows: list[dict[str, Any]] = batch.to_pylist()
    faults += check_rows(rows, manifest)
    tasks = [
        (stream, number)
        for stream in manifest.streams
        for number in range(len(manifest.streams[stream].shards))
        if (path / manifest.streams[stream].shards[number].name).is_file()
    ]
    rows_by_shard: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for stream in manifest.streams:
        for row in rows:
            rows_by_shard.setdefault((stream, row[f"{stream}_shard"]), []).append(row)
    num_members = num_decoded = 0
    with ThreadPoolExecutor(workers) as pool:
        checks = StreamChecks(path=path, manifest=manifest, rows=rows_by_shard, decode=not quick)
        futures = [pool.submit(check_shard, checks, stream, number) for stream, number in tasks]
        for done, future in enumerate(as_completed(futures), start=1):
            found = future.result()
            faults += found.faults
            num_members += found.num_members
            num_decoded += found.num_decoded
            on_progress(done, len(tasks))
    ordered = sorted(
        set(faults),
        key=lambda fault: (fault.file, fault.offset or 0, fault.member or "", fault.what),
    )
    return VerifyReport(
        faults=tuple(ordered),
        num_files=len(manifest.files),
        num_members=num_members,
        num_decoded=num_decoded,
    )


def check_files(path: Path, manifest: Manifest, *, quick: bool) -> Iterable[Fault]:
    """Compare the folder's files with the manifest: missing, additional, of another size or
    checksum.
    """
    for name, expected in sorted(manifest.files.items()):
        file = path / name
        if not file.is_file():
            yield Fault(file=name, what="is missing")
            continue
        size = file.stat().st_size
        if size != expected.num_bytes:
            yield Fault(
                file=name,
                what=f"has {size} bytes, expected {expected.num_bytes} as in the manifest",
            )
        elif not quick and digest_file(file).sha256 != expected.sha256:
            yield Fault(file=name, what="its SHA-256 differs from the manifest's")
    for entry in sorted(file.name for file in path.iterdir()):
        if entry not in manifest.files and entry not in SCRATCH:
            yield Fault(file=entry, what="is not in the manifest")
    for stream in manifest.streams.values():
        for shard in stream.shards:
            for name in (shard.name, shard.name.removesuffix(".tar") + ".idx"):
                if name not in manifest.files:
                    yield Fault(file=MANIFEST_NAME, what=f"lists no checksum of {name}")


def check_rows(rows: list[dict[str, Any]], manifest: Manifest) -> Iterable[Fault]:
    """Check the rows of the index on their own and against the manifest's counts."""
    counts = [("num_sequences", len(rows), manifest.num_sequences)]
    counts.append(("num_subjects", len({row["subject"] for row in rows}), manifest.num_subjects))
    for stream, entry in manifest.streams.items():
        members = sum(len(row[f"{stream}_offset"]) for row in rows)
        counts.append((f"{stream} num_members", members, entry.num_members))
        samples = Counter(row[f"{stream}_shard"] for row in rows)
        counts += [
            (f"samples of {shard.name}", samples[n], shard.num_samples)
            for n, shard in enumerate(entry.shards)
        ]
    labels = Counter(row["label"] for row in rows)
    counts += [
        (f"sequences of {c.name}", labels[c.label], c.num_sequences) for c in manifest.classes
    ]
    for what, found, expected in counts:
        if found != expected:
            yield Fault(
                file=INDEX_NAME, what=f"{what}: {found}, expected {expected} as in the manifest"
            )
    names = dict(enumerate(manifest.class_names))
    for key, count in Counter(row["key"] for row in rows).items():
        if count > 1:
            yield Fault(file=INDEX_NAME, member=key, what=f"key appears {count} times")
        if not KEY_PATTERN.fullmatch(key):
            yield Fault(
                file=INDEX_NAME, member=key, what="key is not 1 to 80 characters of A-Z a-z 0-9 _ -"
            )
    for row in rows:
        if names.get(row["label"]) != row["emotion"]:
            wanted = names.get(row["label"], f"no class: there are {len(names)}")
            yield Fault(
                file=INDEX_NAME,
                member=row["key"],
                what=f"emotion {row['emotion']!r}, but label {row['label']} is {wanted}",
            )
        if row["num_pairs"] != row["num_frames"] - 1:
            yield Fault(
                file=INDEX_NAME,
                member=row["key"],
                what=f"{row['num_pairs']} pairs of {row['num_frames']} frames, expected one fewer",
            )
