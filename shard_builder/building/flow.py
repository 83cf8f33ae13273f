"""Dense optical flow between consecutive frames, and what its levels are like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from shard_builder.building.options import FlowMethod
from shard_builder.checks import check_choice
from shard_builder.errors import SourceError
from shard_builder.format.levels import Flow
from shard_builder.images import Image

DIS_LEAST_PX = 16
"""Below it OpenCV's dense inverse search fails or, with a wide frame, ends the process."""


def make_flow_estimator(method: FlowMethod) -> Callable[[Image, Image], Flow]:
    """Return a function (gray frame k, gray frame k+1) -> flow, ``float32`` (H, W, 2), in pixels.

    x is positive to the right, y downwards: what frame k shows at p, frame k+1 shows at p +
    flow(p). ``farneback`` uses the parameters of prepare-ck-'s extract_flow.py; ``dis`` is OpenCV's
    dense inverse search, medium preset.

    Raises:
        InputError: If the method is unknown.
    """
    check_choice("flow_method", method, FlowMethod)
    if method == "farneback":
        return _farneback
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def dense_inverse_search(previous: Image, following: Image) -> Flow:
        height, width = previous.shape
        if min(height, width) < DIS_LEAST_PX:
            raise SourceError(
                f"flow_method='dis' needs frames of at least {DIS_LEAST_PX} pixels a side, but"
                f" these have {width}x{height} pixels\n  Use flow_method='farneback'."
            )
        flow = estimator.calc(previous, following, None)  # type: ignore[call-overload]
        return np.asarray(flow, np.float32)

    return dense_inverse_search


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
