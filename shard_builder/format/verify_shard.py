"""One shard against its indexes: headers, places, checksums, and every member decoded."""

from __future__ import annotations

import json
import math
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shard_builder.format.codecs import parse_npy_header
from shard_builder.format.index import INDEX_NAME
from shard_builder.format.manifest import Manifest
from shard_builder.format.shards import BLOCK_BYTES, INDEX_VERSION
from shard_builder.format.streams import member_extensions, num_stored_frames
from shard_builder.images import decode_gray, decode_rgb

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
        return f"{self.file}: {self.member + place + ': ' if self.member else ''}{self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChecks:
    """What shards are compared with; ``rows`` of ``index.arrow`` by stream and shard number."""

    path: Path
    manifest: Manifest
    rows: Mapping[tuple[str, int], list[dict[str, Any]]]
    decode: bool


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
    content = memoryview((checks.path / name).read_bytes())
    for entry in _iter_entries(name, content, findings.faults):
        samples.setdefault(entry.key, []).append(entry)
        findings.num_members += 1
    findings.faults += _check_idx(checks.path / name, samples)
    rows = checks.rows.get((stream, number), [])
    keys = [row["key"] for row in rows]
    if list(samples) != keys:
        odd = (key for key in [*samples, *keys] if key not in samples or key not in keys)
        what = (
            f"{len(samples)} samples, expected {len(keys)} as in {INDEX_NAME}; they differ in"
            f" {next(odd, 'their order')}"
        )
        findings.faults.append(Fault(file=name, what=what))
    for row in rows:
        if row["key"] in samples:
            _check_sample(checks, stream, name, row, samples[row["key"]], findings)
    return findings


def _iter_entries(name: str, content: memoryview, faults: list[Fault]) -> Iterator[_Entry]:
    """Yield the members of a tar by its headers; a broken header or missing end is a last fault."""
    position = 0
    while position + BLOCK_BYTES <= len(content):
        block = bytes(content[position : position + BLOCK_BYTES])
        if not any(block):
            if any(content[position:]):
                faults.append(Fault(file=name, what=f"data after the end mark at byte {position}"))
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeError) as error:
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
        yield entry
        position = start + -(-header.size // BLOCK_BYTES) * BLOCK_BYTES
    faults.append(Fault(file=name, what="has no end mark: the tar is cut short"))


def _check_idx(tar: Path, samples: dict[str, list[_Entry]]) -> Iterator[Fault]:
    """Compare an ``.idx`` with the tar it belongs to, line by line."""
    path = tar.with_suffix(".idx")
    if not path.is_file():
        return
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    expected = [f"{INDEX_VERSION} {len(samples)}"]
    for entries in samples.values():
        groups = (f"{e.extension} {e.offset} {len(e.data)} {e.name}" for e in entries)
        expected.append(" ".join(groups))
    for number, (line, wanted) in enumerate(zip(lines, expected, strict=False), start=1):
        if line != wanted:
            what = f"line {number} is {line[:60]!r}, expected {wanted[:60]!r} as in {tar.name}"
            yield Fault(file=path.name, what=what)
    if len(lines) != len(expected):
        what = f"{len(lines)} lines, expected {len(expected)} as {tar.name} has samples"
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
            what = f"holds {text!r}, expected {wanted!r} as in {INDEX_NAME}"
            faults.append(entry.fault(what))
    record = checks.manifest.streams[stream]
    names = member_extensions(
        stream, codec=record.codec, num_frames=row["num_frames"], frames=record.frames
    )
    if set(by_extension) != set(names):
        odd = min(set(by_extension) ^ set(names))
        what = f"{len(by_extension)} {stream} members, expected {len(names)}; they differ in {odd}"
        faults.append(Fault(file=shard, member=key, what=what))
        return
    columns = [row[f"{stream}_{name}"] for name in ("offset", "size", "crc32")]
    if {len(column) for column in columns} != {len(names)}:
        what = f"lists {len(columns[0])} {stream} members, expected {len(names)}"
        faults.append(Fault(file=INDEX_NAME, member=key, what=what))
    for name, offset, size, crc32 in zip(names, *columns, strict=False):
        entry = by_extension[name]
        if what := _place_fault(entry, offset, size, crc32):
            faults.append(entry.fault(what))
        if checks.decode:
            findings.num_decoded += 1
            if what := _decoding_fault(checks.manifest, stream, row, entry.data):
                faults.append(entry.fault(what))


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


def _decoding_fault(manifest: Manifest, stream: str, row: dict[str, Any], data: memoryview) -> str:
    """Decode a member; return what is wrong with it, or nothing."""
    height, width = manifest.geometry.height, manifest.geometry.width
    entry = manifest.streams[stream]
    if entry.codec == "raw":
        expected: tuple[int, ...] = (2 * row["num_pairs"], height, width)
        if stream == "rgb":
            expected = (num_stored_frames(entry.frames, row["num_frames"]), height, width, 3)
        try:
            start, shape = parse_npy_header(data)
        except ValueError as error:
            return str(error)
        if shape != expected or len(data) - start != math.prod(shape):
            return (
                f"holds an array of shape {shape} in {len(data) - start} bytes, expected {expected}"
            )
        return ""
    image = decode_gray(data) if stream == "flow" else decode_rgb(data)
    if image is None:
        return "cannot be decoded"
    expected = (2 * height, width) if stream == "flow" else (height, width, 3)
    if image.shape != expected:
        return f"holds an image of shape {image.shape}, expected {expected}"
    return ""
