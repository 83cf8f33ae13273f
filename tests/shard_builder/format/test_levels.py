"""Flow as 8-bit levels: the original's quantisation to the integer, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shard_builder.format.levels import dequantize_flow, quantize_flow


def quantize_like_the_original(flow: np.ndarray, bound: float) -> np.ndarray:
    """The original's loop over pixels: clip, then Python's round (half to even)."""
    levels = np.empty(flow.shape, np.uint8)
    for index, value in np.ndenumerate(flow):
        if value > bound:
            levels[index] = 255
        elif value < -bound:
            levels[index] = 0
        else:
            levels[index] = round(255 * (value + bound) / (2 * bound))
    return levels


@given(
    flow=hnp.arrays(np.float32, (6, 7), elements=st.floats(-15, 15, width=32)),
    bound=st.sampled_from([1.0, 10.0, 20.0]),
)
@settings(deadline=None, max_examples=80)
def test_quantisation_equals_the_originals_per_pixel_code(flow: np.ndarray, bound: float) -> None:
    assert np.array_equal(
        quantize_flow(flow, bound_px=bound), quantize_like_the_original(flow, bound)
    )


def test_rest_is_128_and_the_bounds_saturate() -> None:
    flow = np.array([0.0, 10.0, -10.0, 11.0, -99.0, 10 / 255], np.float32)
    assert quantize_flow(flow, bound_px=10).tolist() == [128, 255, 0, 255, 0, 128]


@pytest.mark.parametrize(
    ("flow", "bound"), [([np.nan], 10.0), ([np.inf], 10.0), ([1.0], 0.0), ([1.0], -1.0)]
)
def test_what_cannot_be_quantised_is_refused(flow: list[float], bound: float) -> None:
    with pytest.raises(ValueError, match=r"finite|bound_px"):
        quantize_flow(np.array(flow), bound_px=bound)


def test_dequantising_returns_within_half_a_step() -> None:
    flow = np.linspace(-10, 10, 1001).astype(np.float32)
    back = dequantize_flow(quantize_flow(flow, bound_px=10), bound_px=10)
    assert np.abs(back - flow).max() <= 10 / 255 + 1e-5
