"""The 8-bit planes of one window: views of the mapped tar, decoded members, or cached."""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.dataset import Dataset
from pipelines.members import StreamMembers
from pipelines.plan.plan import Plan
from pipelines.plan.requests import BatchRequest
from pipelines.read_ahead import ReadAhead
from pipelines.remote_members import Fetched, RemoteMembers
from pipelines.row_cache import RowCache
from pipelines.streams import StreamKind, UInt8
from shard_builder.errors import InputError
from shard_builder.format.decoding import decode_item


def open_planes(
    dataset: Dataset, kind: StreamKind, *, stack_length: int, cache_bytes: int = 0
) -> PlaneReader:
    """Return a reader of the windows of a dataset's stream; for the arguments see the class."""
    geometry = dataset.manifest.geometry
    return PlaneReader(
        kind,
        dataset.members(kind.name),
        height=geometry.height,
        width=geometry.width,
        stack_length=stack_length,
        cache_bytes=cache_bytes,
    )


class PlaneReader:
    """Reads the planes of windows of one stream; safe to use from many threads.

    Args:
        kind: The stream.
        members: Its members.
        height: Of every plane, pixels.
        width: Of every plane, pixels.
        stack_length: Flow pairs in a window; an rgb window is always one frame.
        cache_bytes: Keep decoded planes in memory up to this many bytes; 0 keeps none. Raw planes
            need no decoding and are never kept.

    Attributes:
        num_channels: Of a window.
        shape: Of a window.
        row_cache: Where blocks of a store's tars are kept on disk, if they are.
        gives_planes: Whether windows are raw or kept in memory, so that an engine need not decode
            them itself.
    """

    def __init__(
        self,
        kind: StreamKind,
        members: StreamMembers,
        *,
        height: int,
        width: int,
        stack_length: int,
        cache_bytes: int = 0,
    ) -> None:
        self.kind, self.members, self.stack_length = kind, members, stack_length
        self.height, self.width = height, width
        self.num_channels = kind.num_channels(stack_length)
        self.shape = kind.window_shape(stack_length, height, width)
        self._item_shape = kind.item_shape(height, width)
        self.gives_planes = members.is_raw or cache_bytes > 0
        self.row_cache: RowCache | None = None
        self._cache: dict[int, _KeptRow] = {}
        self._cache_left = cache_bytes
        self._lock = threading.Lock()

    def window(self, row: int, start: int, room: UInt8 | None = None) -> UInt8:
        """Return flow planes (2L, H, W) as x1, y1, x2, y2, ..., or an RGB frame (H, W, 3).

        Raw and cached windows are views; flow that is decoded is written to ``room``, of the
        window's shape, where it is given: memory that is in the processor's cache already.

        Raises:
            DamagedMemberError: If a member cannot be read or decoded.
        """
        items = self.items(row, start)
        if self.members.is_raw:
            return self._take(self._raw(row), items)
        if (kept := self._kept(row)) is not None:
            for item in items:
                if not kept.is_decoded[item]:
                    self._decode(row, item, kept.images[item])
                    kept.is_decoded[item] = True
            return self._take(kept.array, items)
        if not self.kind.has_pairs:
            return self._decode(row, items[0])
        window = np.empty(self.shape, np.uint8) if room is None else room
        for pair, item in zip(window.reshape(-1, *self._item_shape), items, strict=True):
            self._decode(row, item, pair)
        return window

    def read_ahead(
        self, requests: Generator[BatchRequest, None, None], num_ahead: int, *, num_held: int
    ) -> Generator[BatchRequest, None, None]:
        """Ask a store for what comes, see :class:`ReadAhead`; a folder needs nothing of it."""
        if not isinstance(self.members, RemoteMembers):
            return requests
        ahead = ReadAhead(
            requests=requests,
            members=self.members,
            kind=self.kind,
            stack_length=self.stack_length,
            cache=self.row_cache,
            is_kept=self._is_kept,
            num_ahead=num_ahead,
            num_held=num_held,
        )
        return ahead.iterate()

    def ask(self, row: int, items: Sequence[int]) -> list[Fetched]:
        """Ask a store for neighbouring items of a row; of a folder there is nothing to ask for."""
        if not isinstance(self.members, RemoteMembers):
            return []
        return [self.members.ask(row, items, self.row_cache)]

    def drop(self, asked: list[Fetched]) -> None:
        """Let go of what was asked for."""
        if isinstance(self.members, RemoteMembers):
            self.members.drop(asked)

    def item(self, row: int, number: int) -> UInt8:
        """Return the planes of a pair, (2, H, W), or a frame, (H, W, 3).

        Raises:
            DamagedMemberError: If its member cannot be read or decoded.
        """
        if self.members.is_raw:
            array = self._raw(row)
            return array[2 * number : 2 * number + 2] if self.kind.has_pairs else array[number]
        shape = self.kind.window_shape(1, self.height, self.width)
        return self._decode(row, number).reshape(shape)

    def encoded_window(self, row: int, start: int) -> list[UInt8]:
        """Return the encoded members of a window, ``uint8`` (n,) each.

        Raises:
            DamagedMemberError: If a member cannot be read.
        """
        return [self.members.read(row, number) for number in self.items(row, start)]

    def items(self, row: int, start: int) -> range | list[int]:
        """Return the numbers of a window's frame or pairs."""
        return self.kind.window_items(start, int(self.members.num_stored[row]), self.stack_length)

    def items_of_rows(self, plan: Plan) -> dict[int, range]:
        """Return the frames or pairs that a plan may ask for, by row."""
        firsts, lasts = plan.start_bounds()
        starts = zip(plan.rows.tolist(), firsts.tolist(), lasts.tolist(), strict=True)
        return {row: range(first, self.items(row, last)[-1] + 1) for row, first, last in starts}

    def keep_blocks(self, plan: Plan, folder: Path, most_bytes: int) -> None:
        """Keep what a plan reads from a store on this machine's disk.

        Raises:
            InputError: If there is no store, or the folder cannot be written.
        """
        if not isinstance(self.members, RemoteMembers):
            raise InputError(
                f"shard_cache={str(folder)!r}: the dataset is a folder, which needs no such cache\n"
                "  Leave it out."
            )
        from pipelines.block_cache import BlockCache

        items = self.items_of_rows(plan)
        names = {row: self.members.block_name(row, own) for row, own in items.items()}
        blocks = BlockCache(folder, most_bytes)
        self.row_cache = RowCache(blocks, plan, items=items, names=names)

    def _take(self, array: UInt8, items: range | list[int]) -> UInt8:
        """Take a window from a row's whole array, (2n, H, W) or (k, H, W, 3)."""
        if not self.kind.has_pairs:
            frame: UInt8 = array[items[0]]
            return frame
        if isinstance(items, range):
            window: UInt8 = array[2 * items.start : 2 * items.stop]
            return window
        return np.concatenate([array[2 * item : 2 * item + 2] for item in items])

    def _raw(self, row: int) -> UInt8:
        count = int(self.members.num_stored[row])
        return self.members.read_array(row, self.kind.array_shape(count, self.height, self.width))

    def _kept(self, row: int) -> _KeptRow | None:
        """Return where a row's decoded planes are kept; None if there is no memory for them."""
        kept = self._cache.get(row)
        if kept is None and self._cache_left > 0:
            count = int(self.members.num_stored[row])
            size = count * math.prod(self._item_shape)
            with self._lock:
                kept = self._cache.get(row)
                if kept is None and self._cache_left >= size:
                    self._cache_left -= size
                    images = np.empty((count, *self._item_shape), np.uint8)
                    array = images.reshape(self.kind.array_shape(count, self.height, self.width))
                    kept = _KeptRow(images=images, array=array, is_decoded=np.zeros(count, bool))
                    self._cache[row] = kept
        return kept

    def _is_kept(self, row: int, items: Sequence[int]) -> bool:
        kept = self._cache.get(row)
        return kept is not None and bool(kept.is_decoded[items[0] : items[-1] + 1].all())

    def _decode(self, row: int, number: int, out: UInt8 | None = None) -> UInt8:
        """Decode a member, a pair (2H, W) or a frame (H, W, 3), to ``out`` where it is given."""
        data = self.members.read(row, number)
        try:
            return decode_item(data, codec=self.members.codec, shape=self._item_shape, out=out)
        except ValueError as error:
            raise self.members.damage(row, number, str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeptRow:
    """A row's decoded planes; an item is filled in when it is first asked for.

    Two threads may fill in the same item: they write the same bytes.

    Args:
        images: Pairs (n, 2H, W) or frames (k, H, W, 3).
        array: The same memory as a raw row's array.
        is_decoded: Which items are filled in, ``bool`` (n,).
    """

    images: UInt8
    array: UInt8
    is_decoded: npt.NDArray[np.bool_]
