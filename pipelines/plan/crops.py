"""The tables of crop boxes that training draws from, and the centre crop of validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

INPUT_SIZE = 224

Boxes = npt.NDArray[np.int32]
"""Rows of (y, x, height, width) in pixels of the stored plane."""

# The 13 places of a crop, in quarters of the free space: the corners, the centre, the edges'
# middles, and half way to the corners.
PLACES = (
    (0, 0),
    (0, 4),
    (4, 0),
    (4, 4),
    (2, 2),
    (2, 0),
    (2, 4),
    (4, 2),
    (0, 2),
    (1, 1),
    (1, 3),
    (3, 1),
    (3, 3),
)


def multi_scale_crops(
    *, height: int, width: int, ratios: Sequence[float], augmentation: str = "standard"
) -> Boxes:
    """List every crop that training may take, each as likely as any other.

    A crop's height and width are the plane's shorter side times one of the ratios, at most
    one step apart; it lies at one of 13 places. ``standard`` places a crop by its own size.
    ``original`` places every crop as if it were 224x224, as the original does: larger crops are cut
    at the border, smaller ones never reach the right and the lower edge.

    Args:
        height: Height of the stored plane, pixels.
        width: Width of the stored plane, pixels.
        ratios: Of the stream: rgb has four, flow three.
        augmentation: ``standard`` or ``original``.

    Returns:
        ``int32`` array (num_crops, 4) of y, x, height, width.

    Source: MultiScaleCrop of TSN (Wang et al. 2016) and of two_stream_for_emotion_recognition,
        video_transforms.py.
    """
    base = min(height, width)
    sizes = [int(base * ratio) for ratio in ratios]
    boxes = []
    for i, crop_height in enumerate(sizes):
        for j, crop_width in enumerate(sizes):
            if abs(i - j) > 1:
                continue
            placed = (
                (INPUT_SIZE, INPUT_SIZE)
                if augmentation == "original"
                else (crop_height, crop_width)
            )
            step_y, step_x = max(0, height - placed[0]) // 4, max(0, width - placed[1]) // 4
            for quarter_y, quarter_x in PLACES:
                y, x = quarter_y * step_y, quarter_x * step_x
                boxes.append((y, x, min(crop_height, height - y), min(crop_width, width - x)))
    return np.array(boxes, np.int32)


def center_crop(*, height: int, width: int) -> Boxes:
    """Return the middle 224x224 box (1, 4); a smaller plane is taken whole and enlarged."""
    crop_height, crop_width = min(INPUT_SIZE, height), min(INPUT_SIZE, width)
    return np.array(
        [[(height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width]],
        np.int32,
    )
