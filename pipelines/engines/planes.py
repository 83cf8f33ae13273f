"""The 8-bit planes of one window: views of the mapped tar, decoded members, or cached."""

from __future__ import annotations

import threading

import numpy as np

from pipelines.dataset import Dataset
from pipelines.members import StreamMembers
from pipelines.streams import StreamKind, UInt8


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
        self.gives_planes = members.is_raw or cache_bytes > 0
        self._cache: dict[tuple[int, int], UInt8] = {}
        self._cache_left = cache_bytes
        self._lock = threading.Lock()

    def window(self, row: int, start: int) -> list[UInt8]:
        """Return a window's planes (H, W) as x1, y1, x2, y2, ..., or its RGB frame (H, W, 3).

        Raises:
            DamagedMemberError: If a member cannot be read or decoded.
        """
        if self.members.is_raw:
            window = self._raw_window(row, start)
            return list(window) if self.kind.has_pairs else [window]
        images = [self._decoded(row, number) for number in self.items(row, start)]
        if not self.kind.has_pairs:
            return images
        height = self.height
        return [plane for pair in images for plane in (pair[:height], pair[height:])]

    def stacked_window(self, row: int, start: int) -> UInt8:
        """Return a window as one array, (H, W, 3) or (2L, H, W); raw ones without a copy.

        Raises:
            DamagedMemberError: If a member cannot be read or decoded.
        """
        if self.members.is_raw:
            return self._raw_window(row, start)
        planes = self.window(row, start)
        return np.stack(planes) if self.kind.has_pairs else planes[0]

    def encoded_window(self, row: int, start: int) -> list[UInt8]:
        """Return the encoded members of a window, ``uint8`` (n,) each.

        Raises:
            DamagedMemberError: If a member cannot be read.
        """
        return [self.members.read(row, number) for number in self.items(row, start)]

    def items(self, row: int, start: int) -> range | list[int]:
        """Return the numbers of a window's frame or pairs."""
        return self.kind.window_items(start, int(self.members.num_stored[row]), self.stack_length)

    def _raw_window(self, row: int, start: int) -> UInt8:
        count = int(self.members.num_stored[row])
        array = self.members.read_array(row, self.kind.array_shape(count, self.height, self.width))
        items = self.items(row, start)
        if not self.kind.has_pairs:
            frame: UInt8 = array[start]
            return frame
        if isinstance(items, range):
            window: UInt8 = array[2 * items.start : 2 * items.stop]
            return window
        return np.concatenate([array[2 * number : 2 * number + 2] for number in items])

    def _decoded(self, row: int, number: int) -> UInt8:
        cached = self._cache.get((row, number))
        if cached is not None:
            return cached
        image = self.kind.decode(self.members.read(row, number))
        expected = self.kind.item_shape(self.height, self.width)
        if image is None:
            raise self.members.damage(row, number, "cannot be decoded")
        if image.shape != expected:
            what = f"holds an image of shape {image.shape}, expected {expected}"
            raise self.members.damage(row, number, what)
        if self._cache_left >= image.nbytes:
            with self._lock:
                if (row, number) not in self._cache and self._cache_left >= image.nbytes:
                    self._cache[row, number] = np.ascontiguousarray(image)
                    self._cache_left -= image.nbytes
        return image
