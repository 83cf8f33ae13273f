"""Crop, resize, mirror and turn as plain torch operations, the same on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import grid_sample

from pipelines.plan.crops import INPUT_SIZE
from pipelines.plan.jitter import source_matrix, vector_matrix
from pipelines.plan.requests import Draw
from pipelines.streams import ZERO_MOTION, StreamKind


def cut_planes(
    planes: torch.Tensor,
    channels: torch.Tensor,
    boxes: torch.Tensor,
    mirrored: torch.Tensor,
    *,
    has_pairs: bool,
) -> torch.Tensor:
    """Cut the samples of a batch out of planes; nothing leaves the planes' device.

    Args:
        planes: ``uint8`` (P, H, W).
        channels: Which plane is each channel of each sample, ``int64`` (N, C).
        boxes: y, x, height, width of the crops, in pixels, ``int64`` (N, 4); each is resized
            bilinearly to 224x224, its own border pixels repeated.
        mirrored: Which samples are flipped left to right, ``bool`` (N,).
        has_pairs: The channels are x1, y1, x2, y2, ... of flow; x of a mirrored sample becomes
            255 - x.

    Returns:
        Whole levels, ``float32`` (N, C, 224, 224) channels_last.
    """
    num, num_channels = channels.shape
    plane_height, plane_width = planes.shape[1:]
    y, x, height, width = boxes.unbind(1)
    upper, lower, down = _places(y, height)
    left, right, along = (
        torch.where(mirrored[:, None], places.flip(1), places)[:, None, None, :]
        for places in _places(x, width)
    )
    # Whole rows first, which are copied as they lie; then the columns of each.
    first_rows = channels[:, :, None] * plane_height

    def rows(numbers: torch.Tensor) -> torch.Tensor:
        wanted = (first_rows + numbers[:, None, :]).flatten()
        found = planes.view(-1, plane_width).index_select(0, wanted)
        return found.view(num, num_channels, INPUT_SIZE, plane_width).to(torch.float32)

    def columns(numbers: torch.Tensor) -> torch.Tensor:
        return resized.gather(3, numbers.expand(num, num_channels, INPUT_SIZE, INPUT_SIZE))

    resized = rows(upper).lerp_(rows(lower), down[:, None, :, None])
    levels = columns(left).lerp_(columns(right), along).round_()
    if has_pairs:
        x_flow = levels[:, 0::2]
        x_flow.copy_(torch.where(mirrored[:, None, None, None], 255 - x_flow, x_flow))
    return levels.contiguous(memory_format=torch.channels_last)


def _places(
    begins: torch.Tensor, extents: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return where the pixels of a resized side come from.

    Args:
        begins: First pixel of each crop along the side, ``int64`` (N,).
        extents: Pixels of each crop along it, ``int64`` (N,).

    Returns:
        For each of the 224 the pixel before, the one after, both ``int64`` (N, 224), and how far it
        lies from the first to the second, ``float32`` (N, 224).
    """
    centres = torch.arange(INPUT_SIZE, device=begins.device, dtype=torch.float32) + 0.5
    last = (extents - 1)[:, None]
    places = centres * (extents[:, None] / INPUT_SIZE) - 0.5
    places = torch.minimum(places.clamp_(min=0), last.to(torch.float32))
    before = places.to(torch.int64)
    after = torch.minimum(before + 1, last)
    return begins[:, None] + before, begins[:, None] + after, places - before


def jitter_numbers(draws: Sequence[Draw]) -> torch.Tensor:
    """Return of each draw, which has a jitter, what :func:`cut_jittered` takes, float32 (N, 16).

    The matrix of the pixels (6), that of the vectors (4), brightness, contrast, and the box that is
    erased (4).
    """
    rows = []
    for draw in draws:
        assert draw.jitter is not None
        pixels = source_matrix(draw.box, draw.mirrored, draw.jitter).flat
        vectors = vector_matrix(draw.mirrored, draw.jitter).flat
        _, _, brightness, contrast, erased = draw.jitter
        rows.append([*pixels, *vectors, brightness, contrast, *erased])
    return torch.from_numpy(np.array(rows, np.float32))


def cut_jittered(
    planes: torch.Tensor, channels: torch.Tensor, jitter: torch.Tensor, kind: StreamKind
) -> torch.Tensor:
    """Cut the samples of a batch of ``strong``.

    Args:
        planes: ``uint8`` (P, H, W).
        channels: Which plane is each channel of each sample, ``int64`` (N, C).
        jitter: What :func:`jitter_numbers` returns.
        kind: The stream.

    Returns:
        Whole levels, ``float32`` (N, C, 224, 224) channels_last.
    """
    numbers = jitter[:, :, None, None]
    places = torch.arange(INPUT_SIZE, device=planes.device, dtype=torch.float32)
    row, column = places[:, None], places[None, :]
    x = numbers[:, 0] * column + numbers[:, 1] * row + numbers[:, 2]
    y = numbers[:, 3] * column + numbers[:, 4] * row + numbers[:, 5]
    height, width = planes.shape[1:]
    grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], dim=-1)
    levels = grid_sample(
        planes[channels].to(torch.float32), grid, padding_mode="border", align_corners=True
    )
    numbers = numbers[:, :, None]
    if kind.has_pairs:
        x, y = levels[:, 0::2] - ZERO_MOTION, levels[:, 1::2] - ZERO_MOTION
        levels[:, 0::2] = numbers[:, 6] * x + numbers[:, 7] * y + ZERO_MOTION
        levels[:, 1::2] = numbers[:, 8] * x + numbers[:, 9] * y + ZERO_MOTION
    else:
        levels = numbers[:, 10] * (128 + numbers[:, 11] * (levels - 128))
    levels = levels.clamp_(0, 255).round_()
    top, left, tall, wide = (numbers[:, number] for number in range(12, 16))
    is_erased = (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)
    fill = torch.tensor(kind.mean_levels(), device=planes.device, dtype=torch.float32)
    levels = torch.where(is_erased, fill[:, None, None], levels)
    return levels.contiguous(memory_format=torch.channels_last)
