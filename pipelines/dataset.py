"""A dataset folder, opened: the index mapped into memory, the tars mapped when first read, every
member by its offset.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.plan.permutation import Int64
from shard_builder.errors import DamagedMemberError, DatasetError, InputError
from shard_builder.format.codecs import parse_npy_header
from shard_builder.format.index import INDEX_NAME, read_index
from shard_builder.format.manifest import Stream, read_manifest
from shard_builder.format.streams import NUM_LAST_FRAMES

UInt8 = npt.NDArray[np.uint8]


def open_dataset(path: Path | str) -> Dataset:
    """Open a dataset folder. Nothing but the manifest and the index's schema is read.

    Raises:
        DatasetError: If the folder is missing, unfinished, damaged or of another version.
    """
    return Dataset(Path(path))


class Dataset:
    """An open dataset folder; also a context manager.

    Attributes:
        path: The folder.
        manifest: Its manifest.
        labels: Class index of each row, ``int64`` (n,).
        num_frames: Frames of each sequence, ``int64`` (n,).
        num_pairs: Flow pairs of each sequence, ``int64`` (n,).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_manifest(path)
        self._batch = read_index(path / INDEX_NAME, streams=self.manifest.streams)
        if self._batch.num_rows != self.manifest.num_sequences:
            raise DatasetError(
                f"{path / INDEX_NAME}: {self._batch.num_rows} rows, expected"
                f" {self.manifest.num_sequences} as in manifest.json\n  Run: ckshard verify {path},"
                " then build the dataset again."
            )
        self.labels = self._integers("label")
        self.num_frames = self._integers("num_frames")
        self.num_pairs = self._integers("num_pairs")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(
            self.manifest.classes
        ):
            raise DatasetError(
                f"{path / INDEX_NAME}: labels outside the manifest's {len(self.manifest.classes)}"
                " classes"
            )
        self._members: dict[str, StreamMembers] = {}
        self._lock = threading.Lock()

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
    def keys(self) -> list[str]:
        """Key of each row."""
        return self._strings("key")

    @cached_property
    def subjects(self) -> list[str]:
        """Subject of each row."""
        return self._strings("subject")

    def keys_of(self, rows: Int64) -> tuple[str, ...]:
        """Return the keys of some rows without making a list of all."""
        return tuple(self._batch.column("key").take(pa.array(rows)).to_pylist())

    def rows_of(self, keys: Iterable[str]) -> Int64:
        """Return the rows of some keys, in the order of the keys.

        Raises:
            InputError: If a key is not in the dataset.
        """
        wanted = pa.array(list(keys), pa.string())
        rows = pc.index_in(wanted, self._batch.column("key"))
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
            InputError: If the dataset was built without it.
        """
        if name not in self.manifest.streams:
            raise InputError(
                f"{self.path}: has no {name} stream, expected one of"
                f" {', '.join(self.manifest.streams)}\n  Build it: ckshard build SRC DATASET"
                " --streams rgb,flow"
            )
        return self.manifest.streams[name]

    def members(self, stream: str) -> StreamMembers:
        """Return the members of a stream, by row."""
        with self._lock:
            if stream not in self._members:
                self._members[stream] = StreamMembers(self, stream, self._batch)
            return self._members[stream]

    def num_stored_frames(self) -> Int64:
        """Return how many frames the rgb stream keeps of each sequence, ``int64`` (n,)."""
        keep = NUM_LAST_FRAMES.get(self.stream("rgb").frames or "all")
        return self.num_frames if keep is None else np.minimum(self.num_frames, keep)

    def read_member(self, stream: str, row: int, number: int) -> UInt8:
        """Return the bytes of one image member of a row, ``uint8`` (n,), checked; ``number`` may
        count from the end (-1).
        """
        return self.members(stream).read(row, number)

    def _integers(self, name: str) -> Int64:
        return np.asarray(self._batch.column(name).to_numpy(zero_copy_only=True)).astype(np.int64)

    def _strings(self, name: str) -> list[str]:
        return [str(value) for value in self._batch.column(name).to_pylist()]


class StreamMembers:
    """Where the image or npy members of one stream lie, and their bytes straight from the mapped
    tars.

    A member's CRC-32 is checked the first time this process reads it; afterwards the page cache is
    trusted.
    """

    def __init__(self, dataset: Dataset, stream: str, batch: pa.RecordBatch) -> None:
        self.stream = stream
        self.is_raw = dataset.stream(stream).codec == "raw"
        self._dataset = dataset
        self._batch = batch
        self._shards = np.asarray(batch.column(f"{stream}_shard").to_numpy(zero_copy_only=True))
        offsets = batch.column(f"{stream}_offset")
        self.first = np.asarray(offsets.offsets.to_numpy(zero_copy_only=True))
        self._offsets = np.asarray(offsets.values.to_numpy(zero_copy_only=True))
        self._sizes, self._crcs = (
            np.asarray(batch.column(f"{stream}_{name}").values.to_numpy(zero_copy_only=True))
            for name in ("size", "crc32")
        )
        if not len(self._offsets) == len(self._sizes) == len(self._crcs):
            raise DatasetError(
                f"{dataset.path / INDEX_NAME}: the lists of {stream} members differ in length"
            )
        self._is_checked = np.zeros(len(self._offsets), bool)
        self._array_begins = np.zeros(len(self._shards), np.int64)
        self._maps: dict[int, UInt8] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Drop the maps."""
        self._maps.clear()

    def num_members(self, row: int) -> int:
        """Return how many image members a row has (one npy for raw)."""
        return int(self.first[row + 1] - self.first[row])

    def flat_number(self, row: int, number: int) -> int:
        """Return a member's number among all members of the stream."""
        count = self.num_members(row)
        if not -count <= number < count:
            key = self._dataset.keys_of(np.array([row]))[0]
            raise DatasetError(
                f"{self._dataset.path / INDEX_NAME}: sequence {key} has {count} {self.stream}"
                f" members, asked for {number}"
            )
        return int(self.first[row]) + number % count

    def read(self, row: int, number: int) -> UInt8:
        """Return one member's bytes as a view of the mapped tar.

        Raises:
            DamagedMemberError: If they lie outside the tar, or their CRC-32 is not the index's.
        """
        flat = self.flat_number(row, number)
        offset, size = int(self._offsets[flat]), int(self._sizes[flat])
        tar = self._tar(int(self._shards[row]))
        if offset < 512 or size <= 0 or offset + size > len(tar):
            raise self.damage(
                row,
                flat,
                f"lies at {offset} to {offset + size}, outside the tar's {len(tar)} bytes",
            )
        data = tar[offset : offset + size]
        if not self._is_checked[flat]:
            found, expected = zlib.crc32(data.data), int(self._crcs[flat])
            if found != expected:
                raise self.damage(row, flat, f"CRC-32 is {found:08x}, expected {expected:08x}")
            self._is_checked[flat] = True
        return data

    def read_stack(self, row: int, shape: tuple[int, ...]) -> UInt8:
        """Return a raw row's array as a view of the mapped tar: flow (2n, H, W) or rgb (k, H, W,
        3).

        Raises:
            DamagedMemberError: If the npy header or its shape is not what manifest and index say.
        """
        begin = int(self._array_begins[row])
        if not begin:
            begin = self._array_begins[row] = self._find_array(row, shape)
        return self._tar(int(self._shards[row]))[begin : begin + math.prod(shape)].reshape(shape)

    def _find_array(self, row: int, shape: tuple[int, ...]) -> int:
        """Check a raw row's member and return the offset of its array in the tar."""
        data, flat = self.read(row, 0), self.flat_number(row, 0)
        try:
            start, found = parse_npy_header(data.data)
        except ValueError as error:
            raise self.damage(row, flat, str(error)) from None
        if found != shape or len(data) - start != math.prod(shape):
            raise self.damage(row, flat, f"holds an array of shape {found}, expected {shape}")
        return int(self._offsets[flat]) + start

    def damage(self, row: int, flat: int, reason: str) -> DamagedMemberError:
        """Return the error that names shard, offset, member and key of a member."""
        key = self._dataset.keys_of(np.array([row]))[0]
        if self.is_raw:
            member = f"{key}.{self.stream}.npy"
        else:
            number = flat - int(self.first[row])
            skipped = (
                int(self._dataset.num_frames[row]) - self.num_members(row)
                if self.stream == "rgb"
                else 0
            )
            digits = max(3, len(str(skipped + self.num_members(row) - 1)))
            codec = self._dataset.stream(self.stream).codec
            member = f"{key}.{self.stream}-{number + skipped:0{digits}d}.{codec}"
        shards = self._dataset.stream(self.stream).shards
        number = int(self._shards[row])
        shard = shards[number].name if 0 <= number < len(shards) else f"shard {number}"
        return DamagedMemberError(
            reason, shard=shard, offset=int(self._offsets[flat]), member=member, key=key
        )

    def _tar(self, number: int) -> UInt8:
        tar = self._maps.get(number)
        if tar is None:
            with self._lock:
                tar = self._maps.get(number)
                if tar is None:
                    tar = self._maps[number] = self._map(number)
        return tar

    def _map(self, number: int) -> UInt8:
        shards = self._dataset.stream(self.stream).shards
        if not 0 <= number < len(shards):
            raise DatasetError(
                f"{self._dataset.path / INDEX_NAME}: {self.stream} shard {number}, expected 0 to"
                f" {len(shards) - 1}"
            )
        path = self._dataset.path / shards[number].name
        try:
            with pa.memory_map(str(path)) as file:  # unlike Python's own map it keeps no file open
                return np.frombuffer(file.read_buffer(), np.uint8)
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{path}: cannot be mapped ({error})\n  Run: ckshard verify {self._dataset.path},"
                " then build the dataset again."
            ) from None
