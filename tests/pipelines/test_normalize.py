"""Levels to normalised floats: one rounding, per channel, channels_last kept."""

from __future__ import annotations

import pytest
import torch

from pipelines.engines.normalize import BIT_DTYPES, LevelTable, Normalizer, channel_scale_shift
from pipelines.streams import KINDS

CPU = torch.device("cpu")


def all_levels(num_channels: int) -> torch.Tensor:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, num_channels, 1, 1)
    return levels.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("stream", "num_channels"), [("rgb", 3), ("flow", 2), ("flow", 10), ("flow", 12)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_level_of_every_channel(stream: str, num_channels: int, dtype: torch.dtype) -> None:
    levels = all_levels(num_channels)
    found = Normalizer(KINDS[stream], num_channels, dtype=dtype, device=CPU)(levels)
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    mean, deviation = {
        "rgb": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "flow": ((0.5,), (0.226,)),
    }[stream]
    for channel in range(num_channels):
        exact = (levels[:, channel].double() / 255 - mean[channel % len(mean)]) / deviation[
            channel % len(mean)
        ]
        error = (found[:, channel].double() - exact).abs()
        assert (error <= torch.finfo(dtype).eps / 2 * exact.abs() + 1e-6).all()


@pytest.mark.parametrize(("stream", "num_channels"), [("rgb", 3), ("flow", 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_table_has_the_same_values(stream: str, num_channels: int, dtype: torch.dtype) -> None:
    levels = torch.randint(0, 256, (32, 24, num_channels), dtype=torch.uint8)
    out = torch.empty((32, 24, num_channels), dtype=dtype)
    LevelTable(KINDS[stream], dtype).look_up(levels.numpy(), out.view(BIT_DTYPES[dtype]).numpy())
    expected = Normalizer(KINDS[stream], num_channels, dtype=dtype, device=CPU)(
        levels[None].permute(0, 3, 1, 2)
    )
    assert torch.equal(out, expected[0].permute(1, 2, 0))


def test_rest_is_almost_zero() -> None:
    """Zero motion is level 128, half a level above the middle of 0..255."""
    scale, shift = channel_scale_shift(KINDS["flow"], 10)
    assert len(scale) == len(shift) == 10
    assert 128 * scale[0] + shift[0] == pytest.approx(0.5 / 255 / 0.226)
