"""What a stream is: channels, windows, values, crops. The one place that tells rgb from flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shard_builder.errors import InputError
from shard_builder.format.streams import StreamName, item_shape

UInt8 = npt.NDArray[np.uint8]
ZERO_MOTION = 127.5
"""The level, between two, that stands for no motion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamKind:
    """How the windows of a stream are made of what is stored.

    Args:
        name: ``rgb`` or ``flow``.
        has_pairs: Whether a stored item is a pair of planes, x above y, and a window a stack of
            pairs; else an item is an RGB frame, and a window one of them.
        mean: Of values in 0..1, per channel, or one for all. rgb: ImageNet's.
        deviation: Likewise. flow: TSN's.
        crop_ratios: Sizes of a training crop as parts of the plane's shorter side.

    Source: video_transforms.py of two_stream_for_emotion_recognition (values, ratios).
    """

    name: StreamName
    has_pairs: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    crop_ratios: tuple[float, ...]

    def num_channels(self, stack_length: int) -> int:
        """Return the channels of a sample: 3, or x and y of each pair."""
        return 2 * stack_length if self.has_pairs else 3

    def mean_levels(self) -> list[int]:
        """Return the levels that normalise to nearly 0, per channel, or one for all."""
        return [round(255 * mean) for mean in self.mean]

    def item_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of a stored item: a pair (2H, W) or a frame (H, W, 3)."""
        return item_shape(self.name, height, width)

    def array_shape(self, count: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of a raw member: (2n, H, W) or (k, H, W, 3)."""
        return (2 * count, height, width) if self.has_pairs else (count, height, width, 3)

    def window_shape(self, stack_length: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of a window: (2L, H, W) or one frame (H, W, 3)."""
        return (2 * stack_length, height, width) if self.has_pairs else (height, width, 3)

    def window_items(self, start: int, num_stored: int, stack_length: int) -> range | list[int]:
        """Return the items of a window; a sequence shorter than the stack repeats its last pair."""
        if not self.has_pairs:
            return range(start, start + 1)
        if start + stack_length <= num_stored:
            return range(start, start + stack_length)
        return [min(start + step, num_stored - 1) for step in range(stack_length)]


RGB = StreamKind(
    name="rgb",
    has_pairs=False,
    mean=(0.485, 0.456, 0.406),
    deviation=(0.229, 0.224, 0.225),
    crop_ratios=(1.0, 0.875, 0.75, 0.66),
)
FLOW = StreamKind(
    name="flow", has_pairs=True, mean=(0.5,), deviation=(0.226,), crop_ratios=(1.0, 0.875, 0.75)
)
KINDS = {kind.name: kind for kind in (RGB, FLOW)}


def kind_of(stream: str) -> StreamKind:
    """Return the record of a stream.

    Raises:
        InputError: If there is no such stream.
    """
    if stream not in KINDS:
        raise InputError(f"stream={stream!r}, expected one of {', '.join(KINDS)}")
    return KINDS[stream]
