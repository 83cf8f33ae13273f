"""Dense optical flow between consecutive frames."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from shard_builder.building.options import FlowMethod
from shard_builder.checks import check_choice
from shard_builder.errors import SourceError
from shard_builder.format.frames import Geometry
from shard_builder.format.levels import Flow
from shard_builder.images import Image

DIS_LEAST_PX = 16
"""Below it OpenCV's dense inverse search fails or, with a wide frame, ends the process."""


def make_flow_estimator(
    method: FlowMethod, *, size: Geometry | None = None
) -> Callable[[Image, Image], Flow]:
    """Return a function (gray frame k, gray frame k+1) -> flow, ``float32`` (H, W, 2), in pixels.

    x is positive to the right, y downwards: what frame k shows at p, frame k+1 shows at p +
    flow(p). ``farneback`` uses the parameters of prepare-ck-'s extract_flow.py; ``dis`` is OpenCV's
    dense inverse search, medium preset. With a ``size`` frames are resized to it before, and the
    flow is of that size and in its pixels.

    Raises:
        InputError: If the method is unknown.
    """
    check_choice("flow_method", method, FlowMethod)
    if size is not None:
        estimate, shape = make_flow_estimator(method), (size.width, size.height)

        def on_resized(*frames: Image) -> Flow:
            previous, following = (
                cv2.resize(frame, shape, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
                for frame in frames
            )
            return estimate(previous, following)

        return on_resized
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
