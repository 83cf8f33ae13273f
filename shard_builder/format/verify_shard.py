"""One shard against its indexes: headers, places, checksums, and every member decoded."""

from __future__ import annotations

import json
import mmap
import tarfile
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shard_builder.errors import InputError, counted
from shard_builder.files import open_regular, read_regular
from shard_builder.format.decoding import decode_member
from shard_builder.format.index import INDEX_NAME
from shard_builder.format.manifest import Manifest
from shard_builder.format.shards import BLOCK_BYTES, INDEX_VERSION, member_header
from shard_builder.format.streams import member_extensions, num_members
from shard_builder.untrusted.text import clean

ROW_FIELDS = ("key", "label", "emotion", "subject", "session", "num_frames", "num_pairs")
LATEST_FIELDS = (*ROW_FIELDS, "fold", "apex")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A broken promise.

    Args:
        file: File of the dataset folder.
        what: What is wrong: found and expected.
        offset: Byte of the member's data in the tar, if it is about one.
        member: Member or key, if it is about one.
    """

    file: str
    what: str
    offset: int | None = None
    member: str | None = None

    def __str__(self) -> str:
        place = f" at byte {self.offset}" if self.offset is not None else ""
        member = f"{clean(self.member)}{place}: " if self.member else ""
        return f"{clean(self.file)}: {member}{clean(self.what, most=1000)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChecks:
    """What shards are compared with.

    Args:
        path: The dataset folder.
        manifest: Its manifest.
        rows: Rows of ``index.arrow`` by stream and shard number.
        decode: Whether members are decoded too.
        is_abandoned: Set when nobody waits for findings any more: a thread ends at its next member.
    """

    path: Path
    manifest: Manifest
    rows: Mapping[tuple[str, int], list[dict[str, Any]]]
    decode: bool
    is_abandoned: threading.Event


@dataclass(slots=True)
class ShardFindings:
    """The result of one shard."""

    faults: list[Fault] = field(default_factory=list)
    num_members: int = 0
    num_decoded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A member as its tar header describes it."""

    shard: str
    name: str
    offset: int
    data: memoryview

    @property
    def key(self) -> str:
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        return self.name.partition(".")[2]

    def fault(self, what: str) -> Fault:
        return Fault(file=self.shard, offset=self.offset, member=self.name, what=what)


def check_shard(checks: StreamChecks, stream: str, number: int) -> ShardFindings:
    """Check one tar, its ``.idx``, and the rows of ``index.arrow`` that point into it."""
    name = checks.manifest.streams[stream].shards[number].name
    findings = ShardFindings()
    samples: dict[str, list[_Entry]] = {}
    try:
        content = _map(checks.path / name)
    except (InputError, OSError, ValueError) as error:
        findings.faults.append(Fault(file=name, what=str(error).removeprefix(f"{checks.path}/")))
        return findings
    for entry in _iter_entries(name, content, findings.faults):
        if checks.is_abandoned.is_set():
            return findings
        samples.setdefault(entry.key, []).append(entry)
        findings.num_members += 1
    findings.faults += _check_idx(checks.path / name, samples)
    rows = checks.rows.get((stream, number), [])
    keys = [row["key"] for row in rows]
    if list(samples) != keys:
        odd = (key for key in [*samples, *keys] if key not in samples or key not in keys)
        what = (
            f"{counted(len(samples), 'sample')}, expected {len(keys)} as in {INDEX_NAME}; they"
            f" differ in {next(odd, 'their order')}"
        )
        findings.faults.append(Fault(file=name, what=what))
    for row in rows:
        if row["key"] in samples:
            _check_sample(checks, stream, name, row, samples[row["key"]], findings)
    return findings


def _map(path: Path) -> memoryview:
    with open_regular(path) as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _iter_entries(name: str, content: memoryview, faults: list[Fault]) -> Iterator[_Entry]:
    """Yield the members of a tar by its headers; a broken header or missing end is a last fault."""
    position = 0
    while position + BLOCK_BYTES <= len(content):
        block = bytes(content[position : position + BLOCK_BYTES])
        if not any(block):
            if what := _end_fault(content, position):
                faults.append(Fault(file=name, what=what))
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
            if header.size < 0:
                raise tarfile.HeaderError(f"size {header.size}")
        except (tarfile.HeaderError, ValueError) as error:
            what = f"header at byte {position} is broken ({error}); the rest is not read"
            faults.append(Fault(file=name, what=what))
            return
        start = position + BLOCK_BYTES
        data = content[start : start + header.size]
        entry = _Entry(shard=name, name=header.name, offset=start, data=data)
        if len(data) < header.size:
            what = f"is cut short: needs {header.size} bytes, {len(data)} are there"
            faults.append(entry.fault(what))
            return
        if not header.isreg():
            faults.append(entry.fault("is not a regular file"))
        elif block != member_header(header.name, header.size):
            faults.append(entry.fault("its header has another format, mode, owner or time"))
        yield entry
        position = start + -(-header.size // BLOCK_BYTES) * BLOCK_BYTES
        if any(content[start + header.size : position]):
            faults.append(entry.fault("is not padded with zeros"))
    faults.append(Fault(file=name, what="has no end mark: the tar is cut short"))


def _end_fault(content: memoryview, position: int) -> str:
    """Compare the end of a tar with two blocks of zeros, filled up to a record."""
    num_left = len(content) - position
    if num_left < 2 * BLOCK_BYTES or len(content) % tarfile.RECORDSIZE:
        return (
            f"ends with {num_left} bytes after its members, expected two blocks and a whole record"
        )
    if num_left >= tarfile.RECORDSIZE + 2 * BLOCK_BYTES or any(content[position:]):
        return f"data after the end mark at byte {position}"
    return ""


def _check_idx(tar: Path, samples: dict[str, list[_Entry]]) -> Iterator[Fault]:
    """Compare an ``.idx`` with the tar it belongs to, line by line."""
    path = tar.with_suffix(".idx")
    expected = [f"{INDEX_VERSION} {len(samples)}"]
    for entries in samples.values():
        groups = (f"{e.extension} {e.offset} {len(e.data)} {e.name}" for e in entries)
        expected.append(" ".join(groups))
    most_bytes = 2 * sum(map(len, expected)) + BLOCK_BYTES
    try:
        data = read_regular(path, most_bytes=most_bytes)
    except InputError as error:
        yield Fault(file=path.name, what=str(error).removeprefix(f"{path}: "))
        return
    lines = data.decode("ascii", errors="replace").splitlines()
    for number, (line, wanted) in enumerate(zip(lines, expected, strict=False), start=1):
        if line != wanted:
            what = f"line {number} is {line[:60]!r}, expected {wanted[:60]!r} as in {tar.name}"
            yield Fault(file=path.name, what=what)
    if len(lines) != len(expected):
        what = f"{counted(len(lines), 'line')}, expected {len(expected)} as {tar.name} has samples"
        yield Fault(file=path.name, what=what)


def _check_sample(
    checks: StreamChecks,
    stream: str,
    shard: str,
    row: dict[str, Any],
    entries: list[_Entry],
    findings: ShardFindings,
) -> None:
    """Check the members of one sample against its row."""
    key, faults = row["key"], findings.faults
    by_extension = {entry.extension: entry for entry in entries}
    if len(by_extension) != len(entries) or list(by_extension) != sorted(by_extension):
        what = "members are repeated or not sorted by extension"
        faults.append(Fault(file=shard, member=key, what=what))
    fields = ROW_FIELDS if checks.manifest.version == 1 else LATEST_FIELDS
    metadata = json.dumps({name: row[name] for name in fields}, sort_keys=True)
    for extension, wanted in (("cls", str(row["label"])), ("json", metadata)):
        entry = by_extension.pop(extension, None)
        if entry is None:
            faults.append(Fault(file=shard, member=f"{key}.{extension}", what="is missing"))
        elif (text := bytes(entry.data).decode(errors="replace")) != wanted:
            what = f"holds {clean(text)!r}, expected {clean(wanted)!r} as in {INDEX_NAME}"
            faults.append(entry.fault(what))
    record = checks.manifest.streams[stream]
    columns = [row[f"{stream}_{name}"] for name in ("offset", "size", "crc32")]
    form: dict[str, Any] = {"codec": record.codec, "frames": record.frames}
    length = {"num_frames": row["num_frames"], "apex": row["apex"]}
    if {len(column) for column in columns} != {num_members(stream, **form, **length)}:
        return  # a fault of the index, found there; a number of it may be anything
    names = member_extensions(stream, **form, **length)
    if set(by_extension) != set(names):
        odd = min(set(by_extension) ^ set(names))
        what = (
            f"{counted(len(by_extension), f'{stream} member')}, expected {len(names)}; they differ"
            f" in {odd}"
        )
        faults.append(Fault(file=shard, member=key, what=what))
        return
    for name, offset, size, crc32 in zip(names, *columns, strict=False):
        if checks.is_abandoned.is_set():
            return
        entry = by_extension[name]
        if what := _place_fault(entry, offset, size, crc32):
            faults.append(entry.fault(what))
        if checks.decode:
            findings.num_decoded += 1
            try:
                geometry = checks.manifest.geometry
                decode_member(entry.data, stream, record, geometry, **length)
            except ValueError as error:
                faults.append(entry.fault(str(error)))


def _place_fault(entry: _Entry, offset: int, size: int, crc32: int) -> str:
    """Compare a member with its place and checksum in the index; return what differs."""
    if (offset, size) != (entry.offset, len(entry.data)):
        return (
            f"lies at byte {entry.offset} with {len(entry.data)} bytes, {INDEX_NAME} says {offset}"
            f" and {size}"
        )
    if (actual := zlib.crc32(entry.data)) != crc32:
        return f"CRC-32 is {actual:08x}, expected {crc32:08x} as in {INDEX_NAME}"
    return ""
