"""Optical flow as 8-bit levels, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Flow = npt.NDArray[np.float32]


def quantize_flow(flow: npt.NDArray[np.floating[Any]], *, bound_px: float) -> npt.NDArray[np.uint8]:
    """Map optical flow to 8-bit levels, as the original stores it.

    Displacements are clipped to ``[-bound_px, bound_px]`` and mapped linearly to 0..255, rounding
    half to even, so that zero motion is 128. One level is ``2 * bound_px / 255`` pixels. The
    arithmetic keeps the input's dtype, as the original's does.

    Args:
        flow: Displacements, any shape, any float dtype, in pixels per frame; x positive to the
            right, y downwards.
        bound_px: Largest displacement kept, in pixels, > 0.

    Returns:
        ``uint8`` array of the same shape.

    Raises:
        ValueError: If ``bound_px`` is not positive or ``flow`` is not finite.

    Source: prepare-ck-, extract_flow.py (bound 10).

    >>> quantize_flow(np.array([-12.0, -10.0, 0.0, 0.1, 12.0]), bound_px=10.0).tolist()
    [0, 0, 128, 129, 255]
    """
    if not bound_px > 0:
        raise ValueError(f"bound_px is {bound_px}, expected a positive number of pixels")
    levels = flow + flow.dtype.type(bound_px)
    levels *= flow.dtype.type(255)
    levels /= flow.dtype.type(2 * bound_px)
    np.rint(levels, out=levels)
    if not np.isfinite(levels.sum(dtype=np.float64)):
        raise ValueError("flow is not finite")
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def dequantize_flow(levels: npt.NDArray[np.uint8], *, bound_px: float) -> Flow:
    """Map 8-bit levels back to displacements in pixels, ``float32``; 128 becomes half a level.

    >>> dequantize_flow(np.array([0, 255], np.uint8), bound_px=10.0).tolist()
    [-10.0, 10.0]
    """
    return levels.astype(np.float32) * np.float32(2 * bound_px / 255) - np.float32(bound_px)
