"""uint8 levels to normalised floats, on whatever device they are."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

MEAN = {"rgb": (0.485, 0.456, 0.406), "flow": (0.5,)}
DEVIATION = {"rgb": (0.229, 0.224, 0.225), "flow": (0.226,)}
"""Of values in 0..1. rgb: ImageNet's; flow: TSN's. Source: video_transforms.py of
two_stream_for_emotion_recognition."""

BIT_DTYPES = {
    torch.uint8: torch.uint8,
    torch.float32: torch.float32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
"""As what NumPy and OpenCV, which have no half precisions, pass values on."""


def channel_scale_shift(stream: str, num_channels: int) -> tuple[list[float], list[float]]:
    """Return scale and shift of each channel, so that normalised = level * scale + shift."""
    repeats = num_channels // len(MEAN[stream])
    scale = [1 / (255 * deviation) for deviation in DEVIATION[stream]] * repeats
    shift = [
        -mean / deviation for mean, deviation in zip(MEAN[stream], DEVIATION[stream], strict=True)
    ] * repeats
    return scale, shift


class Normalizer:
    """Normalises (N, C, H, W) ``uint8`` batches of one stream into one dtype, keeping
    channels_last.
    """

    def __init__(
        self, stream: str, num_channels: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        scale, shift = channel_scale_shift(stream, num_channels)
        self._dtype = dtype
        self._scale, self._shift = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for values in (scale, shift)
        )

    def __call__(self, levels: torch.Tensor) -> torch.Tensor:
        """Return normalised levels ``uint8`` (N, C, H, W); the arithmetic is float32, the result is
        rounded once to the dtype.
        """
        return torch.addcmul(self._shift, levels.to(torch.float32), self._scale).to(self._dtype)


class LevelTable:
    """Normalises on the CPU by looking the 256 levels up: the values of :class:`Normalizer` in a
    quarter of its time.

    Args:
        stream: ``rgb`` or ``flow``.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
    """

    def __init__(self, stream: str, dtype: torch.dtype) -> None:
        num_channels = len(MEAN[stream])
        levels = (
            torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(-1, num_channels, 1, 1)
        )
        values = Normalizer(stream, num_channels, dtype=dtype, device=torch.device("cpu"))(levels)
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
