"""``index.arrow``: one row per sequence, with the places of its members as ready-to-use lists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shard_builder.errors import DatasetError
from shard_builder.files import FileDigest, digest_file
from shard_builder.format.streams import STREAMS

INDEX_NAME = "index.arrow"
LATEST_VERSION = 2
"""Version of the folder: in 2 the index names each sequence's apex and official part."""


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
    temporary = temporary_dir / (path.name + ".tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    digest = digest_file(temporary)
    temporary.replace(path)
    return digest


def read_index(path: Path, *, streams: Iterable[str], version: int) -> pa.RecordBatch:
    """Map an index into memory; nothing but its few hundred bytes of schema is read.

    Args:
        path: The file.
        streams: Streams of the dataset.
        version: Version of the dataset. Of version 1, the columns that it lacks are added: the apex
            is the last frame, and there are no official parts.

    Raises:
        DatasetError: If it is missing, is not Arrow, claims more than it holds, or has other
            columns.
    """
    try:
        with pa.memory_map(str(path)) as source:
            num_bytes = source.size()
            reader = pa.ipc.open_file(source)
            if reader.num_record_batches != 1:
                raise _fault(path, f"{reader.num_record_batches} record batches, expected 1")
            batch = reader.get_batch(0)
    except FileNotFoundError:
        raise _fault(path, "is missing, expected beside manifest.json") from None
    except (pa.ArrowException, OSError) as error:
        raise _fault(path, f"is not a readable Arrow file ({error})") from None
    expected = index_schema(streams, version=version)
    if not batch.schema.equals(expected):
        differing = sorted(set(map(str, batch.schema)) ^ set(map(str, expected)))
        what = f"other columns than this version's: {', '.join(differing) or 'order'}"
        raise _fault(path, what)
    try:
        batch.validate()
    except pa.ArrowException as error:
        what = f"claims {batch.num_rows} rows that its {num_bytes} bytes cannot hold ({error})"
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


def _fault(path: Path, what: str) -> DatasetError:
    return DatasetError(
        f"{path}: {what}\n  Run: ckshard verify {path.parent}, then build the dataset again."
    )
