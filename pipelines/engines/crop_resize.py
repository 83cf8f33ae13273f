"""Crop, resize and flip 8-bit planes into one sample of a channels_last batch with cv2."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipelines.engines.normalize import LevelTable
from pipelines.plan.crops import INPUT_SIZE
from pipelines.streams import StreamKind, UInt8

SIZE, WIDE_SIZE = (INPUT_SIZE, INPUT_SIZE), (INPUT_SIZE // 4, INPUT_SIZE)


class Cv2Cutter:
    """The cutter of machines without the fused one; for the arguments see :class:`Cutter`.

    Args:
        kind: The stream.
        shape: Of a window.
        dtype: ``uint8`` levels, or a float type: normalised.
    """

    def __init__(self, kind: StreamKind, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self._has_pairs = kind.has_pairs
        self._num_channels = shape[0] if kind.has_pairs else shape[2]
        self._table = None if dtype == torch.uint8 else LevelTable(kind, dtype)
        self._local = threading.local()

    def cut(
        self, window: UInt8, box: tuple[int, int, int, int], mirrored: bool, out: npt.NDArray[Any]
    ) -> None:
        """Write one sample."""
        cutter = getattr(self._local, "cutter", None)
        if cutter is None:
            cutter = self._local.cutter = SampleCutter(self._num_channels, self._table)
        cutter.cut(window if self._has_pairs else window[None], box, mirrored, out)


class SampleCutter:
    """Cuts windows with cv2 into (224, 224, C) arrays; its scratch memory serves one thread.

    Args:
        num_channels: Channels of a sample.
        table: Normalises what is cut; without it the levels are handed over.
    """

    def __init__(self, num_channels: int, table: LevelTable | None = None) -> None:
        self._table = table
        self._levels: UInt8 = np.empty(
            (INPUT_SIZE, INPUT_SIZE, num_channels if table else 0), np.uint8
        )
        self._resized: UInt8 = np.empty((num_channels, INPUT_SIZE, INPUT_SIZE), np.uint8)
        self._mirrored: UInt8 = np.empty_like(self._resized)
        self._targets = list(self._resized)
        self._wide_targets = [target.reshape(INPUT_SIZE, -1, 4) for target in self._targets]

    def cut(
        self,
        planes: Sequence[UInt8] | UInt8,
        box: tuple[int, int, int, int],
        mirrored: bool,
        out: npt.NDArray[Any],
    ) -> None:
        """Write one sample.

        Args:
            planes: 2L flow planes (H, W) as x1, y1, x2, y2, ..., or one RGB frame (H, W, 3).
            box: y, x, height, width of the crop, in pixels; it is resized bilinearly to 224x224.
            mirrored: Whether to flip left to right after the resize; x flow then becomes 255 - x.
            out: (224, 224, C), C-contiguous: ``uint8`` levels, or normalised values as their table
                writes them.
        """
        if self._table is None:
            self._cut_levels(planes, box, mirrored, out)
        else:
            self._cut_levels(planes, box, mirrored, self._levels)
            self._table.look_up(self._levels, out)

    def _cut_levels(
        self,
        planes: Sequence[UInt8] | UInt8,
        box: tuple[int, int, int, int],
        mirrored: bool,
        out: npt.NDArray[Any],
    ) -> None:
        y, x, height, width = box
        crop = slice(y, y + height), slice(x, x + width)
        if planes[0].ndim == 3:
            cv2.resize(planes[0][crop], SIZE, out, 0, 0, cv2.INTER_LINEAR)
            if mirrored:
                cv2.flip(out, 1, dst=out)
            return
        # Columns that stay as they are pass four at a time, as channels of one: fewer steps for the
        # same levels.
        is_wide = width == INPUT_SIZE
        size, targets = (WIDE_SIZE, self._wide_targets) if is_wide else (SIZE, self._targets)
        # Few and short steps under the interpreter lock: another thread waits for it after each of
        # its own resizes.
        for plane, target in zip(planes, targets, strict=True):
            source = plane[crop].reshape(height, -1, 4) if is_wide else plane[crop]
            cv2.resize(source, size, target, 0, 0, cv2.INTER_LINEAR)
        resized = self._resized
        if mirrored:
            flipped = self._mirrored
            cv2.flip(resized.reshape(-1, INPUT_SIZE), 1, dst=flipped.reshape(-1, INPUT_SIZE))
            np.bitwise_not(flipped[0::2], out=flipped[0::2])
            resized = flipped
        cv2.transpose(resized.reshape(len(planes), -1), dst=out.reshape(-1, len(planes)))
