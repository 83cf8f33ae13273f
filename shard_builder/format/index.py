"""``index.arrow``: one row per sequence, with the places of its members as ready-to-use lists."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shard_builder.errors import DatasetError
from shard_builder.files import FileDigest, atomic_writer, digest_open, name_of_open, open_regular
from shard_builder.format.streams import STREAMS
from shard_builder.untrusted.text import clean

INDEX_NAME = "index.arrow"
LATEST_VERSION = 2
"""Version of the folder: in 2 the index names each sequence's apex and official part."""
LISTS = ("offset", "size", "crc32")
"""What the index lists of each member of a row: columns ``STREAM_offset`` and so on."""
MOST_FRAMES = 1 << 24
"""Of a sequence."""
MAGIC = b"ARROW1\0\0"


def index_schema(streams: Iterable[str], *, version: int = LATEST_VERSION) -> pa.Schema:
    """Return the schema of a version's index with the members of ``streams``."""
    columns = {"key": pa.string(), "label": pa.int32()}
    columns |= {name: pa.string() for name in ("emotion", "subject", "session", "source")}
    columns |= {"fold": pa.string()} if version > 1 else {}
    columns |= {"num_frames": pa.int32(), "num_pairs": pa.int32()}
    columns |= {"apex": pa.int32()} if version > 1 else {}
    wanted = set(streams)
    for stream in (name for name in STREAMS if name in wanted):
        columns[f"{stream}_shard"] = pa.int32()
        for name, kind in (("offset", pa.int64()), ("size", pa.int64()), ("crc32", pa.uint32())):
            columns[f"{stream}_{name}"] = pa.list_(pa.field("item", kind, nullable=False))
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def write_index(
    path: Path, rows: Iterable[Mapping[str, Any]], *, streams: Iterable[str], temporary_dir: Path
) -> FileDigest:
    """Write the rows as one uncompressed record batch, under a temporary name until whole."""
    batch = pa.RecordBatch.from_pylist([dict(row) for row in rows], schema=index_schema(streams))
    with atomic_writer(path, temporary_dir=temporary_dir) as file:
        with (
            pa.OSFile(name_of_open(file), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        file.seek(0)
        return digest_open(file)


def read_index(path: Path, *, streams: Iterable[str], version: int) -> pa.RecordBatch:
    """Map an index into memory; nothing but its few hundred bytes of metadata is read.

    What the columns hold is not checked yet: :func:`checked_column` does, of those that are used.

    Args:
        path: The file.
        streams: Streams of the dataset.
        version: Version of the dataset. Of version 1, the columns that it lacks are added: the apex
            is the last frame, and there are no official parts.

    Raises:
        DatasetError: If the file is missing, a link, not Arrow, compressed, claims more than it
            holds, or has other columns.
    """
    try:
        with (
            open_regular(path, error=DatasetError) as file,
            pa.memory_map(name_of_open(file)) as source,
        ):
            num_bytes = source.size()
            batch = _read_batch(path, source)
    except (pa.ArrowException, OSError, struct.error, StopIteration) as error:
        raise _fault(path, f"is not a readable Arrow file ({clean(error)})") from None
    expected = index_schema(streams, version=version)
    if not batch.schema.equals(expected):
        differing = set(map(str, batch.schema)) ^ set(map(str, expected))
        raise _fault(
            path,
            f"other columns than this version's: {clean(', '.join(sorted(differing)) or 'order')}",
        )
    try:
        batch.validate()
    except pa.ArrowException as error:
        what = f"claims {batch.num_rows} rows that its {num_bytes} bytes cannot hold"
        what += f" ({clean(error)})"
        raise _fault(path, what) from None
    return batch if version > 1 else _as_latest(batch, streams)


def _as_latest(batch: pa.RecordBatch, streams: Iterable[str]) -> pa.RecordBatch:
    """Add the columns that an index of version 1 lacks."""
    added = {
        "apex": pc.subtract(batch.column("num_frames"), pa.scalar(1, pa.int32())),
        "fold": pa.repeat(pa.scalar("", pa.string()), batch.num_rows),
    }
    schema = index_schema(streams)
    columns = [added[name] if name in added else batch.column(name) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _read_batch(path: Path, source: pa.MemoryMappedFile) -> pa.RecordBatch:
    """Return the only record batch, whose buffers lie in the map."""
    num_batches = pa.ipc.open_file(source).num_record_batches
    if num_batches != 1:
        raise _fault(path, f"{num_batches} record batches, expected 1")
    source.seek(0)
    # The messages are read without the footer: so it is seen that a batch is compressed before
    # anything is unpacked.
    stream = pa.ipc.MessageReader.open_stream(source.read_buffer()[len(MAGIC) :])
    schema, rows = stream.read_next_message(), stream.read_next_message()
    if is_compressed(rows.metadata):
        raise _fault(path, "is compressed, expected uncompressed buffers")
    return pa.ipc.read_record_batch(rows, pa.ipc.read_schema(schema))


def is_compressed(metadata: pa.Buffer) -> bool:
    """Tell whether the metadata of a record batch names a compression.

    Source: Arrow's Message.fbs: field 2 of a Message is its header, field 3 of a RecordBatch its
    compression; the layout of tables is that of FlatBuffers.
    """
    data = memoryview(metadata)

    def place_of(table: int, field: int) -> int:
        vtable = table - struct.unpack_from("<i", data, table)[0]
        if 4 + 2 * field >= struct.unpack_from("<H", data, vtable)[0]:
            return 0
        offset = struct.unpack_from("<H", data, vtable + 4 + 2 * field)[0]
        return table + offset if offset else 0

    (message,) = struct.unpack_from("<I", data, 0)
    header = place_of(message, 2)
    if not header:
        raise struct.error("a message without a header")
    batch = header + struct.unpack_from("<I", data, header)[0]
    return place_of(batch, 3) != 0


def checked_column(path: Path, batch: pa.RecordBatch, name: str) -> Any:
    """Return a column once all that it holds is checked: offsets, UTF-8, nulls.

    Args:
        path: Of the index.
        batch: From :func:`read_index`.
        name: Of the column.

    Raises:
        DatasetError: If its offsets leave the file, its text is no UTF-8, or a value is null.
    """
    column = batch.column(name)
    try:
        column.validate(full=True)
    except pa.ArrowException as error:
        raise _fault(path, f"column {name} is damaged ({clean(error)})") from None
    num_nulls = column.null_count
    if pa.types.is_list(column.type):
        num_nulls += column.values.null_count
    if num_nulls:
        raise _fault(path, f"column {name} holds {num_nulls} nulls, expected none")
    return column


def checked_key(path: Path, batch: pa.RecordBatch, row: int) -> str:
    """Return the key of a row; see :func:`checked_column`."""
    return str(checked_column(path, batch, "key")[row].as_py())


def checked_rows(path: Path, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return all rows as dictionaries, every column checked.

    Raises:
        DatasetError: See :func:`checked_column`.
    """
    for name in batch.schema.names:
        checked_column(path, batch, name)
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows


def _fault(path: Path, what: str) -> DatasetError:
    return DatasetError(
        f"{path}: {what}\n  Run: ckshard verify {path.parent}, then build the dataset again."
    )
