"""The columns of an index that say what its sequences are, each checked when it is first used."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.plan.permutation import Int64
from pipelines.plan.sampling import check_rows
from shard_builder.checks import check_keys
from shard_builder.errors import DatasetError, InputError, counted
from shard_builder.format.index import INDEX_NAME, MOST_FRAMES, checked_column


class IndexColumns:
    """The sequences of a dataset, row by row.

    Args:
        path: Folder of the index.
        address: How people name the dataset.
        batch: Rows of the index.
    """

    def __init__(self, path: Path, address: str, batch: pa.RecordBatch) -> None:
        self.path, self.address, self._batch = path, address, batch
        self._columns: dict[str, Any] = {}

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @cached_property
    def num_frames(self) -> Int64:
        """Frames of each sequence, ``int64`` (n,).

        Raises:
            DatasetError: If one is less than 1 or more than ``MOST_FRAMES``.
        """
        return self._integers("num_frames", low=1, high=MOST_FRAMES)

    @cached_property
    def num_pairs(self) -> Int64:
        """Flow pairs of each sequence, ``int64`` (n,).

        Raises:
            DatasetError: If one is negative or more than ``MOST_FRAMES``.
        """
        return self._integers("num_pairs", low=0, high=MOST_FRAMES)

    @cached_property
    def keys(self) -> list[str]:
        """Key of each row."""
        return self._strings("key")

    @cached_property
    def subjects(self) -> list[str]:
        """Subject of each row."""
        return self._strings("subject")

    @cached_property
    def apex(self) -> Int64:
        """The strongest frame of each sequence, from 0, ``int64`` (n,); in version 1 the last.

        Raises:
            DatasetError: If one is not among the sequence's frames.
        """
        apex = self._integers("apex", low=0, high=MOST_FRAMES)
        wrong = np.flatnonzero(apex >= self.num_frames)
        if len(wrong):
            row = int(wrong[0])
            raise DatasetError(
                f"{self.path / INDEX_NAME}: sequence {self.keys_of(wrong[:1])[0]} has apex"
                f" {apex[row]}, expected 0 to {self.num_frames[row] - 1}\n"
                f"  Run: ckshard verify {self.path}, then build it again."
            )
        return apex

    @cached_property
    def folds(self) -> list[str]:
        """Official fold or part of each row; empty where the source names none."""
        return self._strings("fold")

    @cached_property
    def sources(self) -> list[str]:
        """Path of each row in what was built from."""
        return self._strings("source")

    def keys_of(self, rows: Int64) -> tuple[str, ...]:
        """Return the keys of some rows without making a list of all.

        Row by row and not by ``take``, which lets go of the interpreter lock: a trainer that asks
        for its next batch would get it back only after a reading thread.
        """
        if getattr(rows, "dtype", None) != np.int64:
            rows = check_rows(rows, len(self))
        column = self._column("key")
        return tuple([column[row].as_py() for row in rows.tolist()])

    def rows_of(self, keys: Iterable[str]) -> Int64:
        """Return the rows of some keys, in the order of the keys, ``int64`` (k,).

        Raises:
            InputError: If a key is not in the dataset, or ``keys`` is one string.
        """
        wanted = pa.array(check_keys("keys", keys), pa.string())
        rows = pc.index_in(wanted, self._column("key"))
        if rows.null_count:
            missing = wanted.filter(pc.is_null(rows))
            raise InputError(
                f"{self.address}: {counted(len(missing), 'sequence is', 'sequences are')} not in"
                f" the dataset, the first is {missing[0].as_py()}\n  Was the split or the run made"
                " with another dataset?"
            )
        return np.asarray(rows.to_numpy(zero_copy_only=False), np.int64)

    def _integers(self, name: str, *, low: int, high: int) -> Int64:
        values = np.asarray(self._column(name).to_numpy(zero_copy_only=True))
        if len(values) and not low <= values.min() <= values.max() <= high:
            raise DatasetError(
                f"{self.path / INDEX_NAME}: {name} {values.min()} to {values.max()}, expected"
                f" {low} to {high}\n  Run: ckshard verify {self.path}, then build it again."
            )
        return values.astype(np.int64)

    def _strings(self, name: str) -> list[str]:
        strings: list[str] = self._column(name).to_pylist()
        return strings

    def _column(self, name: str) -> Any:
        """Return a column of the index; what it holds is checked when it is first used."""
        if name not in self._columns:
            self._columns[name] = checked_column(self.path / INDEX_NAME, self._batch, name)
        return self._columns[name]
