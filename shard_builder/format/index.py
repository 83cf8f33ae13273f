"""``index.arrow``: one row a sequence, memory-mapped, with the place of every member as
ready-to-use lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from shard_builder.errors import DatasetError
from shard_builder.files import FileDigest, digest_file
from shard_builder.format.streams import STREAMS

INDEX_NAME = "index.arrow"


def index_schema(streams: Iterable[str]) -> pa.Schema:
    """Return the schema of an index with the members of ``streams``."""
    fields: list[pa.Field[Any]] = [
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("emotion", "subject", "session", "source")
        ),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("num_pairs", pa.int32(), nullable=False),
    ]
    wanted = set(streams)
    for stream in (name for name in STREAMS if name in wanted):
        fields.append(pa.field(f"{stream}_shard", pa.int32(), nullable=False))
        for name, kind in (("offset", pa.int64()), ("size", pa.int64()), ("crc32", pa.uint32())):
            fields.append(
                pa.field(
                    f"{stream}_{name}",
                    pa.list_(pa.field("item", kind, nullable=False)),
                    nullable=False,
                )
            )
    return pa.schema(fields)


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


def read_index(path: Path, *, streams: Iterable[str]) -> pa.RecordBatch:
    """Map an index into memory; nothing but its few hundred bytes of schema is read.

    Raises:
        DatasetError: If the file is missing, is not Arrow, claims more than it holds, or has other
            columns.
    """
    try:
        with pa.memory_map(str(path)) as source:
            size = source.size()
            reader = pa.ipc.open_file(source)
            if reader.num_record_batches != 1:
                raise DatasetError(
                    _fault(path, f"{reader.num_record_batches} record batches, expected 1")
                )
            batch = reader.get_batch(0)
    except FileNotFoundError:
        raise DatasetError(_fault(path, "is missing, expected beside manifest.json")) from None
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(_fault(path, f"is not a readable Arrow file ({error})")) from None
    expected = index_schema(streams)
    if not batch.schema.equals(expected):
        differing = set(map(str, batch.schema)) ^ set(map(str, expected))
        raise DatasetError(
            _fault(
                path,
                f"other columns than this version's: {', '.join(sorted(differing)) or 'order'}",
            )
        )
    try:
        batch.validate()
    except pa.ArrowException as error:
        raise DatasetError(
            _fault(
                path, f"claims {batch.num_rows} rows that its {size} bytes cannot hold ({error})"
            )
        ) from None
    return batch


def _fault(path: Path, what: str) -> str:
    return f"{path}: {what}\n  Run: ckshard verify {path.parent}, then build the dataset again."
