"""``scores.parquet``: logits of every view and probabilities of every sequence, to compute on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.fusion import softmax
from shard_builder.errors import InputError
from shard_builder.files import atomic_writer, name_of_open, read_regular
from shard_builder.untrusted.records import parse_record
from shard_builder.untrusted.text import clean

MOST_BYTES, MOST_UNPACKED_BYTES, MOST_VALUES = 1 << 28, 1 << 28, 1 << 25
SCORES_NAME = "scores.parquet"
STREAMS = ("flow", "fused", "rgb")


def _column(name: str, kind: Any) -> Any:
    return pa.field(name, kind, nullable=False)


COLUMNS: list[Any] = [
    _column("stream", pa.string()),  # one of STREAMS
    _column("key", pa.string()),
    _column("subject", pa.string()),
    _column("label", pa.int32()),
    pa.field("view", pa.int32()),  # null: the sequence, over all its views
    pa.field("logits", pa.list_(_column("item", pa.float32()))),  # null: fused rows have none
    _column("probs", pa.list_(_column("item", pa.float64()))),
]
SCHEMA = pa.schema(COLUMNS)
TEXTS = ("stream", "key", "subject")
# As it is read: a text that stands in many rows stands in memory once.
READ_SCHEMA = pa.schema(
    [_column(c.name, pa.dictionary(pa.int32(), c.type)) if c.name in TEXTS else c for c in COLUMNS]
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamScores:
    """What one model says of some sequences, view by view.

    Args:
        stream: ``rgb`` or ``flow``.
        keys: The sequences, n.
        subjects: Whose face each shows.
        labels: True classes, ``int64`` (n,).
        logits: ``float32``, shape (n, views, classes).
    """

    stream: str
    keys: tuple[str, ...]
    subjects: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.keys)
        lengths = {count, len(self.subjects), len(self.labels), len(self.logits)}
        if len(lengths) > 1 or self.logits.ndim != 3:
            raise ValueError(
                f"{self.stream}: {count} keys, {len(self.subjects)} subjects, {len(self.labels)}"
                f" labels and logits of shape {self.logits.shape},"
                " expected equally many and (n, views, classes)"
            )
        if not np.isfinite(self.logits).all():
            raise ValueError(f"{self.stream}: logits are not finite")

    @property
    def mean_logits(self) -> npt.NDArray[np.float64]:
        """Mean over the views, shape (n, classes).

        Source: spatial_demo.py averages logits, not probabilities.
        """
        return np.asarray(self.logits.mean(axis=1, dtype=np.float64))

    @property
    def probs(self) -> npt.NDArray[np.float64]:
        """Probabilities of each sequence: softmax of the mean logits, shape (n, classes)."""
        return softmax(self.mean_logits)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceScores:
    """What a stream, or both of them fused, says of each sequence; sorted by key.

    Args:
        keys: The sequences.
        subjects: Whose face each shows.
        labels: True classes, ``int64`` (n,).
        probs: Probabilities (n, classes).
    """

    keys: tuple[str, ...]
    subjects: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    probs: npt.NDArray[np.float64]


def write_scores(
    path: Path,
    streams: Sequence[StreamScores],
    *,
    class_names: Sequence[str],
    fused: npt.NDArray[np.float64] | None = None,
) -> None:
    """Write every view and sequence as Parquet, under a temporary name until whole.

    Args:
        path: The file to write.
        streams: Scores of one or two streams, the sequences in the same order.
        class_names: Names in label order; JSON in the file's metadata under ``class_names``.
        fused: Probabilities of the fused streams, shape (n, classes).
    """
    tables = []
    for scores in streams:
        tables += [_view_rows(scores), _sequence_rows(scores, scores.probs)]
    if fused is not None:
        tables.append(_sequence_rows(streams[0], fused, stream="fused"))
    metadata = {"class_names": json.dumps(list(class_names))}
    table = pa.concat_tables(tables).replace_schema_metadata(metadata)
    with atomic_writer(path) as file:
        pq.write_table(table, name_of_open(file), compression="zstd")


def read_scores(path: Path) -> tuple[pa.Table, tuple[str, ...]]:
    """Read a file that :func:`write_scores` wrote.

    Returns:
        The table and the class names.

    Raises:
        InputError: If the file is missing, is not Parquet or has other columns.
    """
    if not os.path.lexists(path):
        raise InputError(
            f"{path}: no such file\n  Write it: cktrain test RUN DATASET --out {path.parent}"
        )
    data = read_regular(path, most_bytes=MOST_BYTES)
    try:
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=TEXTS)
        # What a file unpacks to is bounded before it is unpacked, runs of equal values too.
        groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > MOST_UNPACKED_BYTES:
            raise ValueError(f"it unpacks to more than {MOST_UNPACKED_BYTES} bytes")
        counts = (g.column(c).num_values for g in groups for c in range(g.num_columns))
        if sum(counts) > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values")
        if not file.schema_arrow.equals(READ_SCHEMA):
            columns = clean(", ".join(file.schema_arrow.names))
            raise ValueError(f"columns {columns}, expected {', '.join(SCHEMA.names)}")
        table = file.read()
        table.validate(full=True)
        metadata = (table.schema.metadata or {})[b"class_names"]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = clean(error)
        raise InputError(f"{path}: is not a scores table of cktrain test ({reason})") from None
    names = parse_record(metadata, tuple[str, ...], place=f"{path}: class_names")
    return table, names


def read_sequences(path: Path) -> tuple[dict[str, SequenceScores], tuple[str, ...]]:
    """Read the rows of whole sequences.

    Returns:
        Scores by stream, and the class names.

    Raises:
        InputError: As :func:`read_scores`.
    """
    table, names = read_scores(path)
    table = table.filter(pc.is_null(table["view"]))
    keys, subjects, streams = (_texts(table, name) for name in ("key", "subject", "stream"))
    if unknown := set(streams) - set(STREAMS):
        raise InputError(
            f"{path}: stream {clean(repr(min(unknown)))}, expected {', '.join(STREAMS)}"
        )
    labels = table["label"].to_numpy().astype(np.int64)
    probs = _probs(path, table, keys, labels, len(names))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    scores = {}
    for stream in sorted(set(streams)):
        rows = [row for row in order if streams[row] == stream]
        scores[stream] = SequenceScores(
            keys=tuple(keys[row] for row in rows),
            subjects=tuple(subjects[row] for row in rows),
            labels=labels[rows],
            probs=probs[rows],
        )
    return scores, names


def _texts(table: pa.Table, name: str) -> list[str]:
    """Return a column of text; equal ones are one object."""
    found = []
    for chunk in table[name].chunks:
        texts = chunk.dictionary.to_pylist()
        found += [texts[place] for place in chunk.indices.to_pylist()]
    return found


def _probs(
    path: Path, table: pa.Table, keys: Sequence[str], labels: npt.NDArray[np.int64], num: int
) -> npt.NDArray[np.float64]:
    """Return the probabilities of sequences, (n, classes).

    Raises:
        InputError: If a row names no class, or has not one probability for each.
    """
    lengths = pc.list_value_length(table["probs"]).to_numpy()
    for row in np.flatnonzero((labels < 0) | (labels >= num) | (lengths != num))[:1]:
        what = f"label {labels[row]} and {lengths[row]} probabilities of {num} classes"
        raise InputError(f"{path}: {clean(keys[row])}: {what}")
    probs: npt.NDArray[np.float64] = pc.list_flatten(table["probs"]).to_numpy().reshape(-1, num)
    for row in np.flatnonzero(~((probs >= 0) & (probs <= 1)).all(axis=1))[:1]:
        what = f"probabilities {clean(probs[row].tolist())}, expected 0 to 1"
        raise InputError(f"{path}: {clean(keys[row])}: {what}")
    return probs


def _view_rows(scores: StreamScores) -> pa.Table:
    count, num_views, num_classes = scores.logits.shape
    flat = scores.logits.reshape(-1, num_classes)
    columns = {
        "stream": [scores.stream] * len(flat),
        "key": np.repeat(np.array(scores.keys, object), num_views),
        "subject": np.repeat(np.array(scores.subjects, object), num_views),
        "label": np.repeat(scores.labels.astype(np.int32), num_views),
        "view": np.tile(np.arange(num_views, dtype=np.int32), count),
        "logits": list(flat),
        "probs": list(softmax(flat)),
    }
    return pa.table(columns, schema=SCHEMA)


def _sequence_rows(
    scores: StreamScores, probs: npt.NDArray[np.float64], *, stream: str | None = None
) -> pa.Table:
    count = len(scores.keys)
    columns = {
        "stream": [stream or scores.stream] * count,
        "key": list(scores.keys),
        "subject": list(scores.subjects),
        "label": scores.labels.astype(np.int32),
        "view": [None] * count,
        "logits": [None] * count if stream else list(scores.mean_logits.astype(np.float32)),
        "probs": list(probs),
    }
    return pa.table(columns, schema=SCHEMA)
