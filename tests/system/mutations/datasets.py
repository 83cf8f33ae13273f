"""Mutations of a dataset folder, half of them with checksums that fit: what the hashes hide."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from shard_builder.format.index import INDEX_NAME
from shard_builder.format.manifest import MANIFEST_NAME
from tests.system.mutations.box import Victims
from tests.system.mutations.files import EXTREMES, HOSTILE_TEXT, mutate_file
from tests.system.mutations.members import hostile_arrays, hostile_images

BLOCK = 512
Members = list[tuple[str, bytes]]


def mutate_dataset(draw: random.Random, dataset: Path, victims: Victims) -> str:
    """Mutate one thing of a dataset; returns the class of the mutation."""
    kind = draw.choice(["file"] * 4 + list(KINDS))
    if kind == "file":
        names = sorted(path.name for path in dataset.iterdir() if path.is_file())
        weights = [6 if name in (MANIFEST_NAME, INDEX_NAME) else 1 for name in names]
        (name,) = draw.choices(names, weights)
        kind = mutate_file(draw, dataset / name, victims)
        if name != MANIFEST_NAME and draw.random() < 0.5:
            rehash(dataset)
            kind += "+hash"
        return f"{kind} {name.partition('-')[0].partition('.')[0]}{Path(name).suffix}"
    KINDS[kind](draw, dataset)
    if draw.random() < 0.75:
        rehash(dataset)
        kind += "+hash"
    return kind


def rehash(dataset: Path) -> None:
    """Let the manifest say what the files are now."""
    path = dataset / MANIFEST_NAME
    record = json.loads(path.read_text())
    for name, entry in record["files"].items():
        file = dataset / name
        if file.is_file() and file.stat().st_size < 1 << 28:
            data = file.read_bytes()
            entry |= {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        elif file.is_file():
            entry["num_bytes"] = file.stat().st_size
    path.write_text(json.dumps(record))


def read_table(dataset: Path) -> pa.Table:
    with pa.OSFile(str(dataset / INDEX_NAME)) as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


def write_table(dataset: Path, table: pa.Table, **options: Any) -> None:
    choice = pa.ipc.IpcWriteOptions(**options)
    batches = table.combine_chunks().to_batches()
    batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    with (
        pa.OSFile(str(dataset / INDEX_NAME), "wb") as file,
        pa.ipc.new_file(file, batch.schema, options=choice) as writer,
    ):
        writer.write_batch(batch)


def _set_cell(draw: random.Random, dataset: Path, value_of: Callable[[pa.DataType], Any]) -> None:
    table = read_table(dataset)
    name = draw.choice(table.column_names)
    field = table.schema.field(name)
    values = table.column(name).to_pylist()
    value = value_of(field.type)
    row = draw.randrange(len(values))
    if pa.types.is_list(field.type) and not isinstance(value, list) and value is not None:
        if values[row]:
            values[row] = [*values[row][:-1], value]
    else:
        values[row] = value
    nullable = pa.field(name, field.type, nullable=True)
    try:
        array = pa.array(values, field.type)
    except (pa.ArrowException, OverflowError, TypeError):
        array = pa.array([str(item) for item in values])
        nullable = pa.field(name, array.type)
    schema = nullable if value is None else nullable.with_nullable(array.type != field.type)
    write_table(dataset, table.set_column(table.column_names.index(name), schema, array))


def _cell_number(draw: random.Random, dataset: Path) -> None:
    def value(kind: pa.DataType) -> Any:
        return draw.choice(HOSTILE_TEXT[1:]) if pa.types.is_string(kind) else draw.choice(EXTREMES)

    _set_cell(draw, dataset, value)


def _cell_null(draw: random.Random, dataset: Path) -> None:
    _set_cell(draw, dataset, lambda kind: None)


def _cell_list(draw: random.Random, dataset: Path) -> None:
    def value(kind: pa.DataType) -> Any:
        return draw.choice(([], [1] * 1000)) if pa.types.is_list(kind) else 7

    _set_cell(draw, dataset, value)


def _fewer_rows(draw: random.Random, dataset: Path) -> None:
    table = read_table(dataset)
    write_table(dataset, table.slice(0, draw.choice((0, 1, table.num_rows - 1))))


def _more_rows(draw: random.Random, dataset: Path) -> None:
    table = read_table(dataset)
    write_table(dataset, pa.concat_tables([table, table.slice(0, 1)]))


def _column_gone(draw: random.Random, dataset: Path) -> None:
    table = read_table(dataset)
    write_table(dataset, table.drop_columns([draw.choice(table.column_names)]))


def _compressed(draw: random.Random, dataset: Path) -> None:
    write_table(dataset, read_table(dataset), compression=draw.choice(("lz4", "zstd")))


def _header(draw: random.Random, dataset: Path) -> None:
    """Change a field of a tar header, its checksum fitting."""
    path = draw.choice(sorted(dataset.glob("*.tar")))
    data = bytearray(path.read_bytes())
    headers, position = [], 0
    while any(data[position : position + BLOCK]):
        headers.append(position)
        size = int(data[position + 124 : position + 135], 8)
        position += BLOCK + -(-size // BLOCK) * BLOCK
    at = draw.choice(headers)
    begin, length, values = draw.choice(
        (
            (0, 100, (b"\x1b[2J", b"../../evil", b"/etc/passwd", b"a\nb.cls", b"\xff" * 100)),
            (100, 8, (b"7777777\0", b"\xff" * 8)),
            (
                124,
                12,
                (
                    b"\xff" * 10 + b"\xfe\x00",  # -512
                    b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7,
                    b"77777777777\0",
                    b"00000000000\0",
                    b"-0000001000\0",
                    b"garbage....\0",
                ),
            ),
            (136, 12, (b"77777777777\0", b"\xff" * 12)),
            (156, 1, tuple(b"12345678gxLKSDV\0")),
            (157, 100, (b"/etc/passwd",)),
            (257, 8, (b"ustar  \0", b"\0" * 8)),
        )
    )
    value = draw.choice(values)
    value = bytes([value]) if isinstance(value, int) else value
    data[at + begin : at + begin + length] = value[:length].ljust(length, b"\0")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    path.write_bytes(data)


def _idx_line(draw: random.Random, dataset: Path) -> None:
    path = draw.choice(sorted(dataset.glob("*.idx")))
    words = path.read_text().split(" ")
    words[draw.randrange(len(words))] = draw.choice(("-1", "9" * 30, "", "\x1b[1m", "x" * 10_000))
    path.write_text(" ".join(words))


def _member(draw: random.Random, dataset: Path) -> None:
    """Change one member; tar, index, idx and CRC fit what is there now."""
    path = draw.choice(sorted(dataset.glob("*.tar")))
    with tarfile.open(path) as tar:
        members = [(entry.name, tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]
    number = draw.randrange(len(members))
    name, data = members[number]
    if name.endswith(".npy"):
        data = hostile_arrays(draw, data)
    elif name.endswith(".lz4"):
        bomb = b"\x1f\0\1\0" + b"\xff" * 4096  # a literal that repeats a million times
        data = draw.choice((b"", draw.randbytes(len(data)), data[:-1], bomb))
    elif name.endswith((".jpg", ".png")):
        data = hostile_images(draw, data)
    else:
        data = draw.choice((b"", b"99", b"-1", b"\x1b[2J", b"x" * 100_000, b"{" * 50_000))
    members[number] = name, data
    rewrite_shard(dataset, path, members)


def rewrite_shard(dataset: Path, path: Path, members: Members) -> None:
    """Write a tar with these members, its idx, and their places into the index."""
    buffer = io.BytesIO()
    places: dict[str, tuple[int, int, int]] = {}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uname, entry.gname = (
                len(data),
                0o444,
                "bigdata",
                "bigdata",
            )
            places[name] = (tar.offset + BLOCK, len(data), zlib.crc32(data))
            tar.addfile(entry, io.BytesIO(data))
    path.write_bytes(buffer.getvalue())
    keys = list(dict.fromkeys(name.partition(".")[0] for name, _ in members))
    lines = [f"v1.2 {len(keys)}"]
    for key in keys:
        groups = (
            f"{name.partition('.')[2]} {places[name][0]} {places[name][1]} {name}"
            for name, _ in members
            if name.startswith(f"{key}.")
        )
        lines.append(" ".join(groups))
    path.with_suffix(".idx").write_text("\n".join(lines) + "\n")
    stream = path.name.partition("-")[0]
    table = read_table(dataset)
    rows = table.to_pylist()
    for row in rows:
        own = [n for n, _ in members if n.startswith(f"{row['key']}.{stream}")]
        for column, index in (("offset", 0), ("size", 1), ("crc32", 2)):
            if own:
                row[f"{stream}_{column}"] = [places[name][index] for name in own]
    write_table(dataset, pa.Table.from_pylist(rows, schema=table.schema))


KINDS: dict[str, Callable[[random.Random, Path], None]] = {
    "cell-number": _cell_number,
    "cell-null": _cell_null,
    "cell-list": _cell_list,
    "fewer-rows": _fewer_rows,
    "more-rows": _more_rows,
    "column-gone": _column_gone,
    "compressed": _compressed,
    "tar-header": _header,
    "idx-line": _idx_line,
    "member": _member,
}
