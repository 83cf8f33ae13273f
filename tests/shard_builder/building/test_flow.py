"""Flow estimators: the original's parameters, and sign and scale on known motion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from shard_builder.building.flow import make_flow_estimator
from shard_builder.images import to_gray

"""Flow: the original's quantisation to the integer, its parameters, and sign and scale on known
motion."""


def test_farneback_has_the_originals_parameters() -> None:
    generator = np.random.default_rng(1)
    one, two = (
        cv2.GaussianBlur(generator.integers(0, 256, (120, 160), np.uint8), (0, 0), 3)
        for _ in range(2)
    )
    expected = cv2.calcOpticalFlowFarneback(
        one, two, None, 0.702, 5, 10, 2, 7, 1.5, cv2.OPTFLOW_FARNEBACK_GAUSSIAN
    )
    assert np.array_equal(make_flow_estimator("farneback")(one, two), expected)


@pytest.mark.parametrize("method", ["farneback", "dis"])
@pytest.mark.parametrize("shift", [(3.0, 0.0), (-3.0, 0.0), (0.0, 2.0), (0.0, -2.0)])
def test_sign_and_scale_on_a_face_moved_by_a_known_distance(
    method: str, shift: tuple[float, float]
) -> None:
    """A public-domain portrait moved to the right has positive x flow of the same number of
    pixels."""
    from skimage import data

    face = to_gray(np.ascontiguousarray(data.astronaut()[0:300, 80:380]))
    moved = cv2.warpAffine(
        face,
        np.float32([[1, 0, shift[0]], [0, 1, shift[1]]]),
        face.shape[::-1],
        borderMode=cv2.BORDER_REPLICATE,
    )
    flow = make_flow_estimator(method)(face, moved)[60:240, 60:240]
    # the median: flat background has no flow to measure
    detailed = (
        cv2.GaussianBlur(np.abs(cv2.Laplacian(face, cv2.CV_32F)), (0, 0), 5)[60:240, 60:240] > 8
    )
    found = [float(np.median(flow[..., axis][detailed])) for axis in (0, 1)]
    assert found == pytest.approx(list(shift), abs=0.5)
