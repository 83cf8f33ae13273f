"""Flow as a picture: hue is the direction, brightness the speed."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
BRIGHT_PERCENTILE = 99.0
"""Share of the pixels, in percent, that are slower than what is fully bright."""
LEAST_LEVELS = 2
"""Levels that a fully bright pixel is from rest at least: less is noise."""


def flow_speed(levels: npt.NDArray[np.uint8], *, bound_px: float) -> tuple[Array, Array, Array]:
    """Return x, y and speed of a flow pair in pixels a frame; level 128 is rest.

    Args:
        levels: x above y, ``uint8`` (2H, W).
        bound_px: Displacement at which the levels saturate, in pixels.
    """
    # From 128, not from the bound: what rests shall have speed 0.
    x, y = np.split((levels.astype(np.float32) - 128) * np.float32(2 * bound_px / 255), 2)
    return x, y, np.hypot(x, y)


def flow_to_rgb(
    levels: npt.NDArray[np.uint8], *, bound_px: float
) -> tuple[npt.NDArray[np.uint8], float]:
    """Colour a flow pair: right is red, down green-yellow, left cyan, up violet; rest is black.

    The brightness is scaled to what is in it: facial motion is far from the bound.

    Args:
        levels: x above y, ``uint8`` (2H, W).
        bound_px: Displacement at which the levels saturate, in pixels.

    Returns:
        RGB, ``uint8`` (H, W, 3), and the speed that is fully bright, in pixels a frame.
    """
    x, y, speed = flow_speed(levels, bound_px=bound_px)
    least = LEAST_LEVELS * 2 * bound_px / 255
    full_px = max(float(np.percentile(speed, BRIGHT_PERCENTILE)), least)
    angle = cv2.cartToPolar(x, y, angleInDegrees=True)[1]
    value = np.clip(speed * (255 / full_px), 0, 255).astype(np.uint8)
    hsv = np.dstack([(angle / 2).astype(np.uint8), np.full_like(value, 255), value])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.uint8, copy=False), full_px
