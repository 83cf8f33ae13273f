"""Crop, resize, mirror and turn as plain torch operations, the same on the CPU and on a GPU."""

from __future__ import annotations

import torch

from pipelines.plan.crops import INPUT_SIZE


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
