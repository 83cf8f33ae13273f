"""Flow pictures are bright where something moves, however slow, and black at rest."""

from __future__ import annotations

import numpy as np
import pytest

from shard_builder.inspection.flow_picture import flow_to_rgb

PX = 255 / 20
"""Levels of a pixel a frame at a bound of 10."""


@pytest.mark.parametrize("speed_px", [0.4, 1.5, 9.0])
def test_the_fastest_part_is_fully_bright_and_the_scale_says_how_fast(speed_px: float) -> None:
    levels = np.full((200, 100), 128, np.uint8)
    levels[20:50, 20:50] += round(speed_px * PX)  # x, to the right
    picture, full_px = flow_to_rgb(levels, bound_px=10)
    assert picture.shape == (100, 100, 3)
    assert full_px == pytest.approx(speed_px, abs=0.06)
    assert picture[30, 30, 0] >= 254 and not picture[30, 30, 1:].any()
    assert not picture[80:, 80:].any()


def test_noise_and_rest_stay_dark() -> None:
    rest = np.full((200, 100), 128, np.uint8)
    picture, full_px = flow_to_rgb(rest, bound_px=10)
    assert full_px > 0 and not picture.any()
    noise = rest + (np.arange(rest.size).reshape(rest.shape) % 97 == 0)
    assert flow_to_rgb(noise.astype(np.uint8), bound_px=10)[0].max() < 200
