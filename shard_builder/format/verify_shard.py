"""One shard against its indexes: headers, places, checksums, and every member decoded."""

from __future__ import annotations

import json
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
from shard_builder.format.streams import NUM_LAST_FRAMES
from shard_builder.images import decode_gray, decode_rgb

ROW_FIELDS = ("key", "label", "emotion", "subject", "session", "num_frames", "num_pairs")


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
    """What the shards are held against; ``rows`` of ``index.arrow`` by stream and shard number."""

    path: Path
    manifest: Manifest
    rows: Mapping[tuple[str, int], list[dict[str, Any]]]
    decode: bool


@dataclass(slots=True)
class ShardFindings:
    """What came of one shard."""

    faults: list[Fault] = field(default_factory=list)
    num_members: int = 0
    num_decoded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: str
    offset: int
    data: memoryview

    @property
    def key(self) -> str:
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        return self.name.partition(".")[2]


def check_shard(checks: StreamChecks, stream: str, number: int) -> ShardFindings:
    """Check one tar, its ``.idx``, and the rows of ``index.arrow`` that point into it."""
    name = checks.manifest.streams[stream].shards[number].name
    found = ShardFindings()
    content = memoryview((checks.path / name).read_bytes())
    entries = list(_iter_entries(name, content, found.faults))
    found.num_members = len(entries)
    samples: dict[str, list[_Entry]] = {}
    for entry in entries:
        samples.setdefault(entry.key, []).append(entry)
    found.faults += _check_idx(checks.path / name, samples)
    rows = checks.rows.get((stream, number), [])
    expected = [row["key"] for row in rows]
    if list(samples) != expected:
        odd = next(
            (key for key in [*samples, *expected] if key not in samples or key not in expected),
            "their order",
        )
        what = (
            f"{len(samples)} samples, expected {len(expected)} as in {INDEX_NAME}; they differ in"
            f" {odd}"
        )
        found.faults.append(Fault(file=name, what=what))
    for row in rows:
        if row["key"] in samples:
            _check_sample(checks, stream, name, row, samples[row["key"]], found)
    return found


def _iter_entries(name: str, content: memoryview, faults: list[Fault]) -> Iterator[_Entry]:
    """Yield the members of a tar by its headers; a broken header or a missing end is a fault and
    ends it.
    """
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
            faults.append(
                Fault(
                    file=name,
                    what=f"header at byte {position} is broken ({error}); the rest is not read",
                )
            )
            return
        start = position + BLOCK_BYTES
        if start + header.size > len(content):
            what = (
                f"is cut short: needs {header.size} bytes, {max(0, len(content) - start)} are there"
            )
            faults.append(Fault(file=name, offset=start, member=header.name, what=what))
            return
        if not header.isreg():
            faults.append(
                Fault(file=name, offset=start, member=header.name, what="is not a regular file")
            )
        yield _Entry(name=header.name, offset=start, data=content[start : start + header.size])
        position = start + -(-header.size // BLOCK_BYTES) * BLOCK_BYTES
    faults.append(Fault(file=name, what="has no end mark: the tar is cut short"))


def _check_idx(tar: Path, samples: dict[str, list[_Entry]]) -> Iterator[Fault]:
    """Compare an ``.idx`` with the tar it belongs to, line by line."""
    path = tar.with_suffix(".idx")
    if not path.is_file():
        return
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    groups = (
        (f"{e.extension} {e.offset} {len(e.data)} {e.name}" for e in entries)
        for entries in samples.values()
    )
    expected = [f"{INDEX_VERSION} {len(samples)}", *map(" ".join, groups)]
    for number, (line, wanted) in enumerate(zip(lines, expected, strict=False), start=1):
        if line != wanted:
            what = f"line {number} is {line[:60]!r}, expected {wanted[:60]!r} as in {tar.name}"
            yield Fault(file=path.name, what=what)
    if len(lines) != len(expected):
        yield Fault(
            file=path.name,
            what=f"{len(lines)} lines, expected {len(expected)} as {tar.name} has samples",
        )


def _check_sample(
    checks: StreamChecks,
    stream: str,
    shard: str,
    row: dict[str, Any],
    entries: list[_Entry],
    found: ShardFindings,
) -> None:
    key = row["key"]
    by_extension = {entry.extension: entry for entry in entries}
    if len(by_extension) != len(entries) or list(by_extension) != sorted(by_extension):
        found.faults.append(
            Fault(file=shard, member=key, what="members are repeated or not sorted by extension")
        )
    metadata = {name: row[name] for name in ROW_FIELDS}
    for extension, wanted in (
        ("cls", str(row["label"])),
        ("json", json.dumps(metadata, sort_keys=True)),
    ):
        entry = by_extension.pop(extension, None)
        text = None if entry is None else bytes(entry.data).decode(errors="replace")
        if text != wanted:
            offset = None if entry is None else entry.offset
            what = (
                f"holds {text!r}, expected {wanted!r} as in {INDEX_NAME}" if entry else "is missing"
            )
            found.faults.append(
                Fault(file=shard, offset=offset, member=f"{key}.{extension}", what=what)
            )
    names = member_extensions(checks.manifest, stream, row)
    if set(by_extension) != set(names):
        odd = sorted(set(by_extension) ^ set(names))[0]
        what = f"{len(by_extension)} {stream} members, expected {len(names)}; they differ in {odd}"
        found.faults.append(Fault(file=shard, member=key, what=what))
        return
    places = zip(
        row[f"{stream}_offset"], row[f"{stream}_size"], row[f"{stream}_crc32"], strict=False
    )
    if (
        not len(row[f"{stream}_offset"])
        == len(row[f"{stream}_size"])
        == len(row[f"{stream}_crc32"])
        == len(names)
    ):
        what = f"lists {len(row[f'{stream}_offset'])} {stream} members, expected {len(names)}"
        found.faults.append(Fault(file=INDEX_NAME, member=key, what=what))
    for name, (offset, size, crc32) in zip(names, places, strict=False):
        entry = by_extension[name]
        if (offset, size) != (entry.offset, len(entry.data)):
            what = (
                f"lies at byte {entry.offset} with {len(entry.data)} bytes, {INDEX_NAME} says"
                f" {offset} and {size}"
            )
            found.faults.append(
                Fault(file=shard, offset=entry.offset, member=entry.name, what=what)
            )
        elif zlib.crc32(entry.data) != crc32:
            what = (
                f"CRC-32 is {zlib.crc32(entry.data):08x}, expected {crc32:08x} as in {INDEX_NAME}"
            )
            found.faults.append(
                Fault(file=shard, offset=entry.offset, member=entry.name, what=what)
            )
        if checks.decode:
            found.num_decoded += 1
            what = _decoding_fault(checks.manifest, stream, row, entry.data)
            if what:
                found.faults.append(
                    Fault(file=shard, offset=entry.offset, member=entry.name, what=what)
                )


def member_extensions(manifest: Manifest, stream: str, row: dict[str, Any]) -> list[str]:
    """Return the extensions of a row's image or npy members, in order."""
    entry = manifest.streams[stream]
    if entry.codec == "raw":
        return [f"{stream}.npy"]
    if stream == "flow":
        return [f"flow-{number:03d}.{entry.codec}" for number in range(row["num_pairs"])]
    first = row["num_frames"] - _num_stored(manifest, row)
    return [f"rgb-{number:03d}.{entry.codec}" for number in range(first, row["num_frames"])]


def _num_stored(manifest: Manifest, row: dict[str, Any]) -> int:
    keep = NUM_LAST_FRAMES.get(manifest.streams["rgb"].frames or "all")
    return int(row["num_frames"] if keep is None else min(row["num_frames"], keep))


def _decoding_fault(manifest: Manifest, stream: str, row: dict[str, Any], data: memoryview) -> str:
    """Decode a member; return what is wrong with it, or nothing."""
    height, width = manifest.geometry.height, manifest.geometry.width
    if manifest.streams[stream].codec == "raw":
        shape: tuple[int, ...] = (2 * row["num_pairs"], height, width)
        if stream == "rgb":
            shape = (_num_stored(manifest, row), height, width, 3)
        try:
            start, found = parse_npy_header(data)
        except ValueError as error:
            return str(error)
        num_bytes = 1
        for side in found:
            num_bytes *= side
        if found != shape or len(data) - start != num_bytes:
            return f"holds an array of shape {found} in {len(data) - start} bytes, expected {shape}"
        return ""
    image = decode_gray(data) if stream == "flow" else decode_rgb(data)
    if image is None:
        return "cannot be decoded"
    wanted = (2 * height, width) if stream == "flow" else (height, width, 3)
    return (
        "" if image.shape == wanted else f"holds an image of shape {image.shape}, expected {wanted}"
    )
