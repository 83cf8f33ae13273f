"""uint8 levels to normalised floats, on whatever device they are."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipelines.streams import StreamKind

BIT_DTYPES = {
    torch.uint8: torch.uint8,
    torch.float32: torch.float32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
"""As what NumPy and OpenCV, which have no half precisions, pass values on."""


def channel_scale_shift(kind: StreamKind, num_channels: int) -> tuple[list[float], list[float]]:
    """Return scale and shift of each channel, so that normalised = level * scale + shift."""
    repeats = num_channels // len(kind.mean)
    scale = [1 / (255 * deviation) for deviation in kind.deviation] * repeats
    pairs = zip(kind.mean, kind.deviation, strict=True)
    return scale, [-mean / deviation for mean, deviation in pairs] * repeats


class Normalizer:
    """Normalises ``uint8`` batches (N, C, H, W) into one dtype, keeping channels_last."""

    def __init__(
        self, kind: StreamKind, num_channels: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        scale, shift = channel_scale_shift(kind, num_channels)
        self._dtype = dtype
        self._scale, self._shift = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for values in (scale, shift)
        )

    def __call__(self, levels: torch.Tensor) -> torch.Tensor:
        """Return the normalised levels; the arithmetic is float32, the last step the dtype."""
        # Not addcmul: whether that rounds the product is up to the processor.
        return levels.to(torch.float32).mul_(self._scale).add_(self._shift).to(self._dtype)


class LevelTable:
    """Normalises on the CPU by a table of the 256 levels, to the values of :class:`Normalizer`.

    Args:
        kind: The stream.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
    """

    def __init__(self, kind: StreamKind, dtype: torch.dtype) -> None:
        num_channels = len(kind.mean)
        levels = (
            torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(-1, num_channels, 1, 1)
        )
        values = Normalizer(kind, num_channels, dtype=dtype, device=torch.device("cpu"))(levels)
        self._values = (
            values.reshape(1, 256, num_channels).contiguous().view(BIT_DTYPES[dtype]).numpy()
        )

    def look_up(self, levels: npt.NDArray[np.uint8], out: npt.NDArray[Any]) -> None:
        """Write the normalised values of levels.

        Args:
            levels: ``uint8`` (H, W, C), C-contiguous.
            out: Of the same shape, C-contiguous, of the dtype's bits: see ``BIT_DTYPES``.
        """
        num_channels = self._values.shape[-1]  # all channels of flow share one table
        shape = len(levels), -1, num_channels
        cv2.LUT(levels.reshape(shape), self._values, out.reshape(shape))
