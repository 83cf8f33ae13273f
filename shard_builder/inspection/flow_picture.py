"""Flow as a picture: hue is the direction, brightness the speed."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from shard_builder.format.levels import dequantize_flow

FULL_BRIGHTNESS = 0.25
"""Part of the bound at which a pixel is fully bright: facial motion is small."""


def flow_to_rgb(levels: npt.NDArray[np.uint8], *, bound_px: float) -> npt.NDArray[np.uint8]:
    """Colour a flow pair: right is red, down green-yellow, left cyan, up violet; rest is black.

    Args:
        levels: x above y, ``uint8`` (2H, W).
        bound_px: Displacement at which the levels saturate, in pixels.

    Returns:
        RGB, ``uint8`` (H, W, 3).
    """
    height = levels.shape[0] // 2
    flow = dequantize_flow(levels, bound_px=bound_px)
    speed, angle = cv2.cartToPolar(flow[:height], flow[height:], angleInDegrees=True)
    value = np.clip(speed * (255 / (FULL_BRIGHTNESS * bound_px)), 0, 255).astype(np.uint8)
    hsv = np.dstack([(angle / 2).astype(np.uint8), np.full_like(value, 255), value])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.uint8, copy=False)
