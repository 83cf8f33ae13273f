"""The 8-bit planes of one window: views of the mapped tar (raw), decoded members (jpg, png), or
cached ones.
"""

from __future__ import annotations

import threading

import numpy as np

from pipelines.dataset import Dataset, UInt8
from shard_builder.errors import InputError
from shard_builder.images import decode_gray, decode_rgb

BATCH_CHANNELS = {"rgb": 3, "flow": 2}


class PlaneReader:
    """Reads the planes of windows of one stream; safe to use from many threads.

    Args:
        dataset: An open dataset.
        stream: ``rgb`` or ``flow``.
        stack_length: Flow pairs in a window; an rgb window is always one frame.
        cache_bytes: Keep decoded planes in memory up to this many bytes; 0 keeps none. Raw planes
            need no decoding and are never kept.

    Attributes:
        gives_planes: Whether windows are raw or kept in memory, so that an engine need not decode
            them itself.
    """

    def __init__(
        self, dataset: Dataset, *, stream: str, stack_length: int, cache_bytes: int = 0
    ) -> None:
        if stack_length < 1:
            raise InputError(f"--stack-length {stack_length}, expected 1 or more")
        self.dataset, self.stream, self.stack_length = dataset, stream, stack_length
        self.num_channels = 3 if stream == "rgb" else 2 * stack_length
        geometry = dataset.manifest.geometry
        self.height, self.width = geometry.height, geometry.width
        self.members = dataset.members(stream)
        self._num_stored = dataset.num_stored_frames() if stream == "rgb" else dataset.num_pairs
        self._cache: dict[int, UInt8] = {}
        self._cache_left = cache_bytes
        self.gives_planes = self.members.is_raw or cache_bytes > 0
        self._lock = threading.Lock()

    def window(self, row: int, start: int) -> list[UInt8]:
        """Return the planes of a window, each (H, W) for flow (x1, y1, x2, y2, ...) or one (H, W,
        3) RGB frame.

        A sequence with fewer pairs than the stack repeats its last pair.

        Raises:
            DamagedMemberError: If a member cannot be read or decoded.
        """
        if self.stream == "rgb":
            return [
                self.raw_window(row, start) if self.members.is_raw else self._decoded(row, start)
            ]
        if self.members.is_raw:
            return list(self.raw_window(row, start))
        planes = []
        for number in self.member_numbers(row, start):
            pair = self._decoded(row, number)
            planes += [pair[: self.height], pair[self.height :]]
        return planes

    def stacked_window(self, row: int, start: int) -> UInt8:
        """Return a window as one array, (H, W, 3) or (2L, H, W); decoded planes are copied for it,
        raw ones are not.

        Raises:
            DamagedMemberError: If a member cannot be read or decoded.
        """
        if self.members.is_raw:
            return self.raw_window(row, start)
        planes = self.window(row, start)
        return planes[0] if self.stream == "rgb" else np.stack(planes)

    def member_numbers(self, row: int, start: int) -> list[int]:
        """Return the numbers of the frame or pairs of a window; a short sequence repeats its last
        pair.
        """
        if self.stream == "rgb":
            return [start]
        last = int(self._num_stored[row]) - 1
        return [min(start + step, last) for step in range(self.stack_length)]

    def raw_window(self, row: int, start: int) -> UInt8:
        """Return a window of a raw stream: (H, W, 3) or (2L, H, W), a view of the mapped tar unless
        the last pair is repeated.

        Raises:
            DamagedMemberError: If the member cannot be read.
        """
        if self.stream == "rgb":
            frame: UInt8 = self._stack(row, 3)[start]
            return frame
        numbers, stack = self.member_numbers(row, start), self._stack(row, 2)
        if numbers[-1] - numbers[0] == self.stack_length - 1:
            window: UInt8 = stack[2 * start : 2 * (start + self.stack_length)]
            return window
        return np.concatenate([stack[2 * number : 2 * number + 2] for number in numbers])

    def _stack(self, row: int, kind: int) -> UInt8:
        count = int(self._num_stored[row])
        shape = (
            (count, self.height, self.width, 3)
            if kind == 3
            else (2 * count, self.height, self.width)
        )
        return self.members.read_stack(row, shape)

    def _decoded(self, row: int, number: int) -> UInt8:
        flat = self.members.flat_number(row, number)
        cached = self._cache.get(flat)
        if cached is not None:
            return cached
        data = self.members.read(row, number)
        image = decode_rgb(data) if self.stream == "rgb" else decode_gray(data)
        expected = (
            (self.height, self.width, 3) if self.stream == "rgb" else (2 * self.height, self.width)
        )
        if image is None:
            raise self.members.damage(row, flat, "cannot be decoded")
        if image.shape != expected:
            raise self.members.damage(
                row, flat, f"holds an image of shape {image.shape}, expected {expected}"
            )
        if self._cache_left >= image.nbytes:
            with self._lock:
                if flat not in self._cache and self._cache_left >= image.nbytes:
                    self._cache[flat] = np.ascontiguousarray(image)
                    self._cache_left -= image.nbytes
        return image
