"""Dense optical flow between consecutive frames, and its 8-bit quantisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from shard_builder.sources.frames import Image

FlowMethod = Literal["farneback", "dis"]
FLOW_METHODS: tuple[FlowMethod, ...] = ("farneback", "dis")

Flow = npt.NDArray[np.float32]


def make_flow_estimator(method: FlowMethod) -> Callable[[Image, Image], Flow]:
    """Return a function (gray frame k, gray frame k+1) -> flow of shape (H, W, 2), ``float32``,
    pixels per frame.

    x is positive to the right, y downwards: what frame k shows at p, frame k+1 shows at p +
    flow(p). ``farneback`` uses the parameters of prepare-ck-'s extract_flow.py; ``dis`` is OpenCV's
    dense inverse search, medium preset.
    """
    if method == "farneback":
        return _farneback
    if method == "dis":
        estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return lambda previous, following: np.asarray(
            estimator.calc(previous, following, None),  # type: ignore[call-overload]
            np.float32,
        )
    raise ValueError(f"flow method {method!r}, expected one of {', '.join(FLOW_METHODS)}")


def _farneback(previous: Image, following: Image) -> Flow:
    flow = cv2.calcOpticalFlowFarneback(
        previous,
        following,
        None,  # type: ignore[call-overload]
        pyr_scale=0.702,
        levels=5,
        winsize=10,
        iterations=2,
        poly_n=7,
        poly_sigma=1.5,
        flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN,
    )
    return np.asarray(flow, np.float32)


def to_gray(image: Image) -> Image:
    """Convert RGB (H, W, 3) ``uint8`` to the gray (H, W) that the flow is computed on (ITU-R BT.601
    weights, as the original).
    """
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)


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
    """Map 8-bit levels back to displacements in pixels, ``float32``; rest (128) becomes half a
    level, not 0.

    >>> dequantize_flow(np.array([0, 255], np.uint8), bound_px=10.0).tolist()
    [-10.0, 10.0]
    """
    return levels.astype(np.float32) * np.float32(2 * bound_px / 255) - np.float32(bound_px)


@dataclass(slots=True, kw_only=True)
class LevelStatistics:
    """Running count of quantised levels: how many lie at the bound, and their sum."""

    num_levels: int = 0
    num_saturated: int = 0
    sum_levels: int = 0

    def add(self, levels: npt.NDArray[np.uint8]) -> None:
        """Count an array of levels."""
        histogram = cv2.calcHist([levels.reshape(-1, 1)], [0], None, [256], [0, 256]).ravel()
        self.num_levels += levels.size
        self.num_saturated += int(histogram[0]) + int(histogram[255])
        self.sum_levels += int(np.dot(histogram.astype(np.int64), np.arange(256)))

    @property
    def saturated_fraction(self) -> float:
        """Fraction of levels at the bound, 0..1."""
        return self.num_saturated / self.num_levels if self.num_levels else 0.0

    @property
    def mean_level(self) -> float:
        """Mean level; near 128 unless the camera moves."""
        return self.sum_levels / self.num_levels if self.num_levels else 128.0
