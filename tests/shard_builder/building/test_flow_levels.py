"""What is counted of flow levels, and what is advised where they are nearly all at rest."""

from __future__ import annotations

import numpy as np
import pytest

from shard_builder.building.flow_levels import LevelStatistics, merge_statistics
from shard_builder.format.levels import quantize_flow


def test_level_statistics_count_saturation_and_mean() -> None:
    statistics = LevelStatistics()
    statistics.add(np.array([0, 128, 255, 128], np.uint8))
    statistics.add(np.array([128, 128, 128, 128], np.uint8))
    assert statistics.saturated_fraction == 0.25
    assert statistics.mean_level == pytest.approx((255 + 6 * 128) / 8)


def test_statistics_add_up_and_name_the_bound_of_what_moves() -> None:
    generator = np.random.Generator(np.random.Philox(0))
    flows = [generator.normal(0, 0.04, (64, 64, 2)).astype(np.float32) for _ in range(4)]
    parts = [LevelStatistics() for _ in range(2)]
    for part, flow in zip(parts * 2, flows, strict=True):
        part.add(quantize_flow(flow, bound_px=10.0), flow)
    total = merge_statistics(parts)
    assert total.rest_fraction > 0.95 and total.num_levels == 4 * 64 * 64 * 2
    cure = total.cure(num_frames=31)
    assert cure is not None and cure[0] == 3
    assert cure[1] == pytest.approx(1.25 * 3.3 * 0.04 * 3, rel=0.3)
    assert total.cure(num_frames=8) == (1, pytest.approx(cure[1] / 3, rel=0.05))
    still = LevelStatistics()
    still.add(np.full((4, 4), 128, np.uint8), np.zeros((2, 4, 2), np.float32))
    assert still.rest_fraction == 1 and still.cure(num_frames=31) is None
