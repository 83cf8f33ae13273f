"""Where each member of a stream lies, and its bytes straight from the mapped tars."""

from __future__ import annotations

import math
import stat
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.plan.permutation import Int64
from pipelines.streams import UInt8
from shard_builder.errors import DamagedMemberError, DatasetError
from shard_builder.files import name_of_open, open_regular
from shard_builder.format.codecs import parse_npy_header
from shard_builder.format.frames import Geometry
from shard_builder.format.index import INDEX_NAME, LISTS
from shard_builder.format.manifest import Stream
from shard_builder.format.streams import IMAGE_CODECS
from shard_builder.untrusted.image_header import header_fault

SECONDS_BETWEEN_CHECKS = 1.0


class StreamMembers:
    """The members of one stream: the only one who knows where member k of row r lies.

    A member's CRC-32 is checked the first time this process reads it; then the page cache is
    trusted.

    Args:
        folder: The dataset folder.
        name: ``rgb`` or ``flow``.
        stream: The manifest's entry.
        columns: Those of ``index.arrow`` that :meth:`columns` names, checked.
        geometry: Of every plane and frame.
        num_stored: Frames or pairs that each row stores, ``int64`` (n,).
        first_stored: Number of each row's first stored frame or pair, ``int64`` (n,).
        num_bytes: Size of each tar by its name, as the manifest has it.
        key_of: Returns a row's key, for errors: to check a million beforehand would take a tenth of
            the time of opening.

    Attributes:
        num_stored: As given.
        codec: Of the members.
        is_raw: Whether a row's items are one npy array, not a member each.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        stream: Stream,
        columns: Mapping[str, Any],
        *,
        geometry: Geometry,
        num_stored: Int64,
        first_stored: Int64,
        num_bytes: Mapping[str, int],
        key_of: Callable[[int], str],
    ) -> None:
        self.name, self.num_stored, self.codec = name, num_stored, stream.codec
        self.is_raw = stream.codec == "raw"
        self._folder, self._stream, self._first_stored = folder, stream, first_stored
        self._num_bytes, self._checked_at = num_bytes, -math.inf
        self._height = geometry.height * (2 if name == "flow" else 1)
        self._width, self._channels = geometry.width, 1 if name == "flow" else 3
        self._key_of = key_of
        self._shards = np.asarray(columns[f"{name}_shard"].to_numpy(zero_copy_only=True))
        lists = [columns[f"{name}_{column}"] for column in LISTS]
        bounds = [np.asarray(entry.offsets.to_numpy(zero_copy_only=True)) for entry in lists]
        self._bounds = bounds[0]
        self._offsets, self._sizes, self._crcs = (
            np.asarray(entry.values.to_numpy(zero_copy_only=True)) for entry in lists
        )
        self._check_lists(bounds)
        self._is_checked = np.zeros(len(self._offsets), bool)
        self._array_begins = np.zeros(len(self._shards), np.int64)
        self._maps: dict[int, UInt8] = {}

    @staticmethod
    def columns(name: str) -> list[str]:
        """Return the columns of the index that say where a stream's members lie."""
        return [f"{name}_shard", *(f"{name}_{column}" for column in LISTS)]

    def _check_lists(self, bounds: list[npt.NDArray[np.int32]]) -> None:
        """Make sure that the lists of members are as long as the sequences say, and equally long.

        Raises:
            DatasetError: If one is not.
        """
        expected = np.ones_like(self.num_stored) if self.is_raw else self.num_stored
        counts = np.diff(bounds[0])
        wrong = np.flatnonzero(counts != expected)
        if len(wrong) or any(not np.array_equal(bounds[0], other) for other in bounds[1:]):
            row = int(wrong[0]) if len(wrong) else 0
            what = (
                f"sequence {self._key_of(row)} lists {counts[row]} {self.name} members,"
                f" expected {expected[row]}"
                if len(wrong)
                else f"the lists of {self.name} members differ in length"
            )
            raise DatasetError(
                f"{self._folder / INDEX_NAME}: {what}\n"
                f"  Run: ckshard verify {self._folder}, then build the dataset again."
            )

    def close(self) -> None:
        """Drop the maps; one is closed when the last array on it is gone."""
        self._maps.clear()

    def check_sizes(self) -> None:
        """Compare the tars' sizes with the manifest's, at most once a second.

        Reading a mapped page beyond the end of a tar that became shorter kills the process.

        Raises:
            DatasetError: If a tar is missing or has another size.
        """
        now = time.monotonic()
        if now - self._checked_at < SECONDS_BETWEEN_CHECKS:
            return
        for shard in self._stream.shards:
            path, expected = self._folder / shard.name, self._num_bytes[shard.name]
            try:
                status = path.lstat()
            except OSError as error:
                raise DatasetError(
                    f"{path}: {error.strerror}, expected a tar of {expected} bytes\n"
                    f"  Run: ckshard verify {self._folder}, then build the dataset again."
                ) from None
            if not stat.S_ISREG(status.st_mode):
                raise DatasetError(f"{path}: is a link or no regular file, expected a tar")
            found = status.st_size
            if found != expected:
                raise DatasetError(
                    f"{path}: {found} bytes, expected {expected} as in manifest.json\n"
                    f"  Run: ckshard verify {self._folder}, then build the dataset again."
                )
        self._checked_at = now

    def read(self, row: int, number: int) -> UInt8:
        """Return one member's bytes, ``uint8`` (n,), a view of the mapped tar.

        Args:
            row: Row of the index.
            number: Of the member in its row, from 0, or from the end (-1). A raw row has one.

        Raises:
            DamagedMemberError: If they lie outside the tar, or their CRC-32 is not the index's.
        """
        place = self._place(row, number)
        offset, size = int(self._offsets[place]), int(self._sizes[place])
        tar = self._tar(int(self._shards[row]))
        if offset < 512 or size <= 0 or offset + size > len(tar):
            where = f"lies at {offset} to {offset + size}, outside the tar's {len(tar)} bytes"
            raise self.damage(row, number, where)
        data = tar[offset : offset + size]
        if not self._is_checked[place]:
            found, expected = zlib.crc32(data.data), int(self._crcs[place])
            if found != expected:
                raise self.damage(row, number, f"CRC-32 is {found:08x}, expected {expected:08x}")
            if self.codec in IMAGE_CODECS:
                self._check_header(row, number, data)
            self._is_checked[place] = True
        return data

    def _check_header(self, row: int, number: int, data: UInt8) -> None:
        """Compare format and size of an image with the manifest's, before any engine decodes it."""
        fault = header_fault(
            data.data,
            format=self.codec,
            height=self._height,
            width=self._width,
            channels=self._channels,
        )
        if fault:
            raise self.damage(row, number, fault)

    def read_array(self, row: int, shape: tuple[int, ...]) -> UInt8:
        """Return a raw row's array as a view of the mapped tar: flow (2n, H, W), rgb (k, H, W, 3).

        Raises:
            DamagedMemberError: If the npy header or its shape is not what manifest and index say.
        """
        begin = int(self._array_begins[row])
        if not begin:
            start = self._array_start(row, self.read(row, 0), shape)
            begin = int(self._offsets[self._place(row, 0)]) + start
            self._array_begins[row] = begin
        tar = self._tar(int(self._shards[row]))
        return tar[begin : begin + math.prod(shape)].reshape(shape)

    def damage(self, row: int, number: int, reason: str) -> DamagedMemberError:
        """Return the error that names shard, offset, member and key of a member."""
        place, key = self._place(row, number), self._key_of(row)
        item = int(self._first_stored[row]) + place - int(self._bounds[row])
        if self.is_raw:
            member = f"{key}.{self.name}.npy"
        else:
            last = int(self._first_stored[row] + self.num_stored[row]) - 1
            digits = max(3, len(str(last)))
            member = f"{key}.{self.name}-{item:0{digits}d}.{self._stream.codec}"
        shard, shards = int(self._shards[row]), self._stream.shards
        name = shards[shard].name if 0 <= shard < len(shards) else f"shard {shard}"
        return DamagedMemberError(
            reason, shard=name, offset=int(self._offsets[place]), member=member, key=key
        )

    def _place(self, row: int, number: int) -> int:
        """Return a member's number among all members of the stream."""
        begin, end = int(self._bounds[row]), int(self._bounds[row + 1])
        count = end - begin
        if not -count <= number < count:
            raise DatasetError(
                f"{self._folder / INDEX_NAME}: sequence {self._key_of(row)} has {count}"
                f" {self.name} members, asked for {number}"
            )
        return begin + number % count

    def _array_start(self, row: int, data: UInt8, shape: tuple[int, ...]) -> int:
        """Check a raw row's member and return the offset of its array in it."""
        try:
            start, found = parse_npy_header(data.data)
        except ValueError as error:
            raise self.damage(row, 0, str(error)) from None
        if found != shape or len(data) - start != math.prod(shape):
            raise self.damage(row, 0, f"holds an array of shape {found}, expected {shape}")
        return start

    def _tar(self, number: int) -> UInt8:
        tar = self._maps.get(number)
        # No lock, which a fork could leave locked for ever: a tar mapped twice does no harm.
        return self._maps.setdefault(number, self._map(number)) if tar is None else tar

    def _map(self, number: int) -> UInt8:
        shards = self._stream.shards
        if not 0 <= number < len(shards):
            raise DatasetError(
                f"{self._folder / INDEX_NAME}: {self.name} shard {number},"
                f" expected 0 to {len(shards) - 1}"
            )
        path = self._folder / shards[number].name
        expected = self._num_bytes[path.name]
        try:
            # Arrow's map, for unlike Python's own it keeps no file open: thousands of shards would
            # use up the process's descriptors.
            with (
                open_regular(path, error=DatasetError) as opened,
                pa.memory_map(name_of_open(opened)) as file,
            ):
                if file.size() != expected:
                    raise ValueError(f"{file.size()} bytes, expected {expected}")
                return np.frombuffer(file.read_buffer(), np.uint8)
        except DatasetError as error:
            raise DatasetError(
                f"{error}\n  Run: ckshard verify {self._folder}, then build the dataset again."
            ) from None
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{path}: cannot be mapped ({error})\n"
                f"  Run: ckshard verify {self._folder}, then build the dataset again."
            ) from None
