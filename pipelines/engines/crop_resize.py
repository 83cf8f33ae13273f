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
from pipelines.plan.jitter import Float64, source_matrix, vector_matrix
from pipelines.plan.requests import Draw
from pipelines.streams import ZERO_MOTION, StreamKind, UInt8

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


class JitterCutter:
    """Cuts samples of ``strong``; any number of threads may share one.

    Args:
        kind: The stream.
        dtype: ``uint8`` levels, or a float type: normalised.
    """

    def __init__(self, kind: StreamKind, dtype: torch.dtype) -> None:
        self._kind = kind
        self._table = None if dtype == torch.uint8 else LevelTable(kind, dtype)

    def cut(self, window: UInt8, draw: Draw, out: npt.NDArray[Any]) -> None:
        """Write one sample.

        Args:
            window: 2L flow planes (2L, H, W) as x1, y1, x2, y2, ..., or a frame (H, W, 3).
            draw: The plan's row, which has a jitter.
            out: (224, 224, C), C-contiguous, of the dtype's bits: see ``BIT_DTYPES``.
        """
        assert draw.jitter is not None
        levels = self._flow(window, draw) if self._kind.has_pairs else self._rgb(window, draw)
        y, x, height, width = draw.jitter.erased
        levels[y : y + height, x : x + width] = self._kind.mean_levels()
        if self._table is None:
            out[...] = levels
        else:
            self._table.look_up(levels, out)

    def _rgb(self, frame: UInt8, draw: Draw) -> UInt8:
        assert draw.jitter is not None
        _, _, brightness, contrast, _ = draw.jitter
        warped = _warp(frame, source_matrix(draw.box, draw.mirrored, draw.jitter))
        shift = 128 * brightness * (1 - contrast)
        return _mix(warped, brightness * contrast, warped, 0, shift)

    def _flow(self, planes: UInt8, draw: Draw) -> UInt8:
        assert draw.jitter is not None
        matrix = source_matrix(draw.box, draw.mirrored, draw.jitter)
        turn = vector_matrix(draw.mirrored, draw.jitter).tolist()
        warped = [_warp(plane, matrix) for plane in planes]
        levels = np.stack(
            [
                _mix(x, along, y, across, ZERO_MOTION * (1 - along - across))
                for x, y in zip(warped[0::2], warped[1::2], strict=True)
                for along, across in turn
            ]
        )
        shape = (INPUT_SIZE, INPUT_SIZE, len(levels))
        return np.asarray(cv2.transpose(levels.reshape(len(levels), -1)), np.uint8).reshape(shape)


def _warp(plane: UInt8, matrix: Float64) -> npt.NDArray[np.float32]:
    """Sample a plane in float32, which OpenCV does faster than in levels, and without rounding."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    source = plane.astype(np.float32)
    warped = cv2.warpAffine(source, matrix, SIZE, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def _mix(
    first: npt.NDArray[np.float32],
    weight: float,
    second: npt.NDArray[np.float32],
    other_weight: float,
    shift: float,
) -> UInt8:
    """Return a weighted sum as levels: rounded, and no less than 0 or more than 255."""
    mixed = cv2.addWeighted(first, weight, second, other_weight, shift, dtype=cv2.CV_8U)
    return np.asarray(mixed, np.uint8)
