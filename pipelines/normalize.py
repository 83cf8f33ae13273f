"""uint8 levels to normalised floats, on whatever device they are."""

from __future__ import annotations

import torch

MEAN = {"rgb": (0.485, 0.456, 0.406), "flow": (0.5,)}
DEVIATION = {"rgb": (0.229, 0.224, 0.225), "flow": (0.226,)}
"""Of values in 0..1. rgb: ImageNet's; flow: TSN's. Source: video_transforms.py of two_stream_for_emotion_recognition."""


def channel_scale_shift(stream: str, num_channels: int) -> tuple[list[float], list[float]]:
    """Return scale and shift of each channel, so that normalised = level * scale + shift."""
    repeats = num_channels // len(MEAN[stream])
    scale = [1 / (255 * deviation) for deviation in DEVIATION[stream]] * repeats
    shift = [-mean / deviation for mean, deviation in zip(MEAN[stream], DEVIATION[stream], strict=True)] * repeats
    return scale, shift


class Normalizer:
    """Normalises (N, C, H, W) ``uint8`` batches of one stream into one dtype, keeping channels_last."""

    def __init__(self, stream: str, num_channels: int, *, dtype: torch.dtype, device: torch.device) -> None:
        scale, shift = channel_scale_shift(stream, num_channels)
        self._dtype = dtype
        self._scale, self._shift = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1) for values in (scale, shift)
        )

    def __call__(self, levels: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return normalised levels; the arithmetic is float32, the result is rounded once to the dtype.

        Args:
            levels: ``uint8`` (N, C, H, W).
            out: Where to write, of the dtype; made if absent.
        """
        normalized = torch.addcmul(self._shift, levels.to(torch.float32), self._scale)
        if out is None:
            return normalized.to(self._dtype)
        return out.copy_(normalized)
