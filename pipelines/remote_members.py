"""The members of a stream in a store: one range a window, asked for before it is read."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.members import StreamMembers
from pipelines.row_cache import RowCache
from pipelines.streams import UInt8
from shard_builder.cloud.metadata import check_unchanged
from shard_builder.cloud.store import Store
from shard_builder.errors import DatasetError, RangeError, StoreError
from shard_builder.format.index import INDEX_NAME
from shard_builder.format.streams import IMAGE_CODECS
from shard_builder.machine import has_failed

MOST_WRONG = 3
"""So often a range may come with wrong bytes before its member counts as damaged."""
BYTES_BETWEEN = 1024
"""At most: two members of a sequence lie a header and padding apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """Some neighbouring members of a row, fetched or about to be.

    Args:
        places: Their numbers among all members of the stream.
        begin: Where they begin in their tar.
        num_bytes: From there to their end.
        data: Their bytes ``uint8`` (num_bytes,), checked.
    """

    places: range
    begin: int
    num_bytes: int
    data: Future[UInt8]


class RemoteMembers(StreamMembers):
    """The members of a stream in a store.

    Every member is compared with its length and CRC-32 each time it is fetched. A raw row has one
    checksum, so it is fetched whole.
    """

    def __init__(
        self,
        *words: Any,
        store: Store,
        manifest_sha256: str,
        sha256_of: Mapping[str, str],
        **named: Any,
    ) -> None:
        super().__init__(*words, **named)
        self._store, self._manifest_sha256 = store, manifest_sha256
        self._sha256_of = sha256_of
        self._fetched: dict[int, tuple[Fetched, ...]] = {}
        self._lock = threading.Lock()

    def check_sizes(self) -> None:
        """Do nothing: no map can be too short here, and each range is checked when it comes."""

    def ask(self, row: int, items: Sequence[int], cache: RowCache | None = None) -> Fetched:
        """Ask for the members of some neighbouring items; :meth:`read` then waits for them.

        Args:
            row: Row of the index.
            items: Frames or pairs of a window, rising.
            cache: Where the row's block may be, which is then fetched whole.
        """
        if cache is not None:
            items = cache.items[row]
        places = self._places(row, items)
        begin, end = self._span(row, places)
        # At an epoch's border, and by another loader, a member is asked for while it is still held.
        with self._lock:
            held = self._fetched.get(places[0], ())
            data = next(
                (e.data for e in held if e.places == places and not has_failed(e.data)), None
            )
            if data is None:
                data = self._store.submit(self._fetch_kept, row, places, begin, end, cache)
            fetched = Fetched(places, begin, end - begin, data)
            for place in places:
                self._fetched[place] = (*self._fetched.get(place, ()), fetched)
        return fetched

    def drop(self, fetched: Iterable[Fetched]) -> None:
        """Let go of what was asked for; what is read yet is fetched again."""
        for entry in fetched:
            with self._lock:
                for place in entry.places:
                    left = tuple(e for e in self._fetched.pop(place, ()) if e is not entry)
                    if left:
                        self._fetched[place] = left
                others = self._fetched.get(entry.places[0], ())
                if not any(other.data is entry.data for other in others):
                    entry.data.cancel()

    def read(self, row: int, number: int) -> UInt8:
        """Return one member's bytes, ``uint8`` (n,), read-only; see the base's."""
        place = self._place(row, number)
        asked = self._fetched.get(place, ())
        fetched = next((entry for entry in asked if entry.data.done()), asked[0] if asked else None)
        begin, size = int(self._offsets[place]), int(self._sizes[place])
        if fetched is not None:
            try:
                data = self._store.wait_for(fetched.data)
                return data[begin - fetched.begin : begin - fetched.begin + size]
            except CancelledError:  # dropped meanwhile
                pass
        places = range(place, place + 1)
        return self._fetch(row, places, *self._span(row, places))

    def read_array(self, row: int, shape: tuple[int, ...]) -> UInt8:
        """Return a raw row's array; see the base's."""
        data = self.read(row, 0)
        start = self._array_start(row, data, shape)
        return data[start : start + math.prod(shape)].reshape(shape)

    def _places(self, row: int, items: Sequence[int]) -> range:
        first, last = (0, 0) if self.is_raw else (items[0], items[-1])
        return range(self._place(row, first), self._place(row, last) + 1)

    def _span(self, row: int, places: range) -> tuple[int, int]:
        """Return where some members begin and end in their tar.

        Raises:
            DamagedMemberError: If one lies outside the tar, or not beside the one before.
        """
        tar_bytes = self._num_bytes[self._tar_name(row)]
        end = 0
        for place in places:
            offset, size = int(self._offsets[place]), int(self._sizes[place])
            is_beside = not end or end <= offset <= end + BYTES_BETWEEN
            if offset < 512 or size <= 0 or offset + size > tar_bytes or not is_beside:
                what = f"lies at {offset} to {offset + size}, not where a member can be"
                raise self.damage(row, place - int(self._bounds[row]), what)
            end = offset + size
        return int(self._offsets[places[0]]), end

    def _tar_name(self, row: int) -> str:
        number, shards = int(self._shards[row]), self._stream.shards
        if not 0 <= number < len(shards):
            raise DatasetError(
                f"{self._folder / INDEX_NAME}: {self.name} shard {number},"
                f" expected 0 to {len(shards) - 1}"
            )
        return shards[number].name

    def block_name(self, row: int, items: Sequence[int]) -> str:
        """Return the name, the same for equal bytes, of a block of neighbouring items."""
        begin, end = self._span(row, self._places(row, items))
        return f"{self._sha256_of[self._tar_name(row)][:32]}-{begin}-{end}"

    def _fetch_kept(
        self, row: int, places: range, begin: int, end: int, cache: RowCache | None
    ) -> UInt8:
        """Take a row's block from a cache, or fetch it and keep it; see :meth:`_fetch`."""
        if cache is None:
            return self._fetch(row, places, begin, end)
        name = cache.names[row]
        data = cache.blocks.read(name, end - begin)
        if data is not None:
            if self._wrong_member(places, data, begin) is None:
                self._check_headers(row, places, data, begin)
                return data
            cache.blocks.remove(name)
        data = self._fetch(row, places, begin, end)
        cache.blocks.write(name, data, cache.next_use)
        return data

    def _fetch(self, row: int, places: range, begin: int, end: int) -> UInt8:
        """Fetch and check some members of a row, ``uint8`` (end - begin,).

        Raises:
            DamagedMemberError: If the bytes are wrong again and again.
            StoreError: If they cannot be had.
            DatasetError: If the tar is gone, or the dataset was replaced.
        """
        name = self._tar_name(row)
        for number in range(1, MOST_WRONG + 1):
            try:
                data = np.frombuffer(self._store.get_range(name, begin, end), np.uint8)
            except DatasetError as error:
                if isinstance(error, RangeError) or not isinstance(error, StoreError):
                    check_unchanged(self._store, self._manifest_sha256)
                raise
            wrong = self._wrong_member(places, data, begin)
            if wrong is None:
                break
            if number == MOST_WRONG:
                check_unchanged(self._store, self._manifest_sha256)
                place, what = wrong
                where = f"; bytes {begin} to {end} of {self._store.address}/{name}"
                raise self.damage(row, place - int(self._bounds[row]), what + where)
            self._store.note_retry()
        self._check_headers(row, places, data, begin)
        return data

    def _check_headers(self, row: int, places: range, data: UInt8, begin: int) -> None:
        for place in places if self.codec in IMAGE_CODECS else ():
            offset = int(self._offsets[place]) - begin
            member = data[offset : offset + int(self._sizes[place])]
            self._check_header(row, place - int(self._bounds[row]), member)

    def _wrong_member(self, places: range, data: UInt8, begin: int) -> tuple[int, str] | None:
        """Return the first member whose CRC-32 is not the index's, and what it is."""
        for place in places:
            offset, expected = int(self._offsets[place]) - begin, int(self._crcs[place])
            found = zlib.crc32(data[offset : offset + int(self._sizes[place])].data)
            if found != expected:
                return place, f"CRC-32 is {found:08x}, expected {expected:08x}"
        return None
