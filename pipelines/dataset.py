"""A dataset folder, opened: the index mapped into memory, the tars mapped when first read."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.members import StreamMembers
from pipelines.plan.permutation import Int64
from pipelines.plan.sampling import check_rows
from pipelines.streams import UInt8, kind_of
from shard_builder.checks import check_keys
from shard_builder.errors import DatasetError, InputError
from shard_builder.format.index import INDEX_NAME, MOST_FRAMES, checked_column, read_index
from shard_builder.format.manifest import Stream, manifest_sha256, read_manifest
from shard_builder.format.streams import NUM_LAST_FRAMES

if TYPE_CHECKING:
    from webdataset import WebDataset


def open_dataset(path: Path | str) -> Dataset:
    """Open a dataset folder. Nothing but the manifest and the index's schema is read.

    Raises:
        DatasetError: If the folder is missing, unfinished, damaged or of another version.
    """
    return Dataset(Path(path))


def _reopen(path: Path, sha256: str) -> Dataset:
    dataset = Dataset(path)
    if dataset.sha256 != sha256:
        raise DatasetError(
            f"{path}: manifest.json has SHA-256 {dataset.sha256[:12]}, expected {sha256[:12]}:"
            " the dataset was replaced since it was pickled"
        )
    return dataset


class Dataset:
    """An open dataset folder; also a context manager.

    Attributes:
        path: The folder.
        manifest: Its manifest.
        labels: Class index of each row, ``int64`` (n,).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_manifest(path)
        self._columns: dict[str, Any] = {}
        self._batch = read_index(
            path / INDEX_NAME, streams=self.manifest.streams, version=self.manifest.version
        )
        if self._batch.num_rows != self.manifest.num_sequences:
            raise DatasetError(
                f"{path / INDEX_NAME}: {self._batch.num_rows} rows, expected"
                f" {self.manifest.num_sequences} as in manifest.json\n"
                f"  Run: ckshard verify {path}, then build the dataset again."
            )
        self.labels = self._integers("label", low=0, high=len(self.manifest.classes) - 1)
        self._members: dict[str, StreamMembers] = {}

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by path and hash: the other process opens the folder itself."""
        return (_reopen, (self.path.absolute(), self.sha256))

    def close(self) -> None:
        """Let go of the mapped tars; a map is closed when the last array on it is gone."""
        for members in self._members.values():
            members.close()
        self._members.clear()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return self.manifest.class_names

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of ``manifest.json``; through its checksums it stands for the whole dataset."""
        return manifest_sha256(self.path)

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
                f"{self.path}: {len(missing)} sequences are not in the dataset, the first is"
                f" {missing[0].as_py()}\n  Was the split or the run made with another dataset?"
            )
        return np.asarray(rows.to_numpy(zero_copy_only=False), np.int64)

    def stream(self, name: str) -> Stream:
        """Return the manifest's entry of a stream.

        Raises:
            InputError: If there is no such stream, or the dataset was built without it.
        """
        kind_of(name)
        if name not in self.manifest.streams:
            raise InputError(
                f"{self.path}: has no {name} stream, expected one of"
                f" {', '.join(self.manifest.streams)}\n"
                "  Build it: ckshard build SRC DATASET --streams rgb,flow"
            )
        return self.manifest.streams[name]

    def num_stored(self, stream: str) -> Int64:
        """Return how many frames (rgb) or pairs (flow) are stored of each row, ``int64`` (n,)."""
        if kind_of(stream).has_pairs:
            return self.num_pairs
        keep = self._num_kept
        return self.num_frames if keep is None else np.minimum(self.apex + 1, keep)

    def num_usable(self, stream: str) -> Int64:
        """Return how many stored pairs (flow) or stored frames up to the apex (rgb) each row has,
        ``int64`` (n,): the last of these frames is the apex.
        """
        if kind_of(stream).has_pairs or self._num_kept is not None:
            return self.num_stored(stream)
        return self.apex + 1

    @property
    def _num_kept(self) -> int | None:
        """How many frames up to the apex the rgb stream keeps; None if it keeps all."""
        return NUM_LAST_FRAMES.get(self.stream("rgb").frames or "all")

    def members(self, stream: str) -> StreamMembers:
        """Return the members of a stream, by row."""
        if stream not in self._members:
            entry, num_stored = self.stream(stream), self.num_stored(stream)
            keeps_all = kind_of(stream).has_pairs or self._num_kept is None
            first_stored = np.zeros_like(num_stored) if keeps_all else self.apex + 1 - num_stored
            members = StreamMembers(
                self.path,
                stream,
                entry,
                {name: self._column(name) for name in StreamMembers.columns(stream)},
                geometry=self.manifest.geometry,
                num_stored=num_stored,
                first_stored=first_stored,
                num_bytes={name: file.num_bytes for name, file in self.manifest.files.items()},
            )
            self._members.setdefault(stream, members)
        return self._members[stream]

    def check_sizes(self) -> None:
        """Compare the sizes of all tars with the manifest's.

        Raises:
            DatasetError: If a tar is missing or has another size.
        """
        for stream in self.manifest.streams:
            self.members(stream).check_sizes()

    def read_member(self, stream: str, row: int, number: int) -> UInt8:
        """Return the bytes of a member; see :meth:`pipelines.members.StreamMembers.read`."""
        return self.members(stream).read(row, number)

    def as_webdataset(self, stream: str) -> WebDataset:
        """Return a plain ``webdataset`` pipeline over the shards of a stream, decoded.

        Its samples are dicts: ``__key__``, ``label`` (class index), and ``planes`` ``uint8``: flow
        (2n, H, W) as x1 y1 x2 y2 ..., rgb (k, H, W, 3); of rgb also ``apex``, the place of the apex
        among the k frames. They come in stored order, which is a
        random one; add ``.shuffle()``, ``.split_by_worker`` and so on as the library has them.

        Raises:
            InputError: If the dataset has no such stream.
        """
        from pipelines.web_pipeline import make_web_pipeline

        geometry = self.manifest.geometry
        return make_web_pipeline(self.path, kind_of(stream), self.stream(stream), geometry)

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
