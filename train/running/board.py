"""What TensorBoard shows beside scalars: the confusion matrix, and inputs as the net sees them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipelines.streams import kind_of
from train.figures import draw_confusion, make_figure
from train.running.run_folder import RunFolder

NUM_PICTURES = 4
FLOW_GAIN = 4.0
"""Facial motion is small against the bound; deviations from zero motion are shown so many times
larger."""


def add_inputs(folder: RunFolder, images: torch.Tensor, *, stream: str) -> None:
    """Show the first samples of a batch; of flow, the x planes of the window above the y planes.

    Args:
        folder: The run.
        images: Normalised (N, C, H, W).
        stream: ``rgb`` or ``flow``.
    """
    if not folder.is_writer:
        return
    levels = images[:NUM_PICTURES].float().cpu()
    kind = kind_of(stream)
    mean, deviation = (
        torch.tensor(values).view(1, -1, 1, 1) for values in (kind.mean, kind.deviation)
    )
    pictures = levels * deviation + mean
    if kind.has_pairs:
        amplified = (pictures - 0.5) * FLOW_GAIN + 0.5
        rows = [torch.cat(list(amplified[:, axis::2].unbind(1)), dim=-1) for axis in (0, 1)]
        pictures = torch.cat(rows, dim=-2)[:, None]
    for number, picture in enumerate(pictures.clamp(0, 1)):
        folder.board().add_image(f"inputs/{stream}-{number}", picture, 0)


def add_confusion(
    folder: RunFolder, confusion: torch.Tensor, class_names: Sequence[str], *, step: int
) -> None:
    """Show a confusion matrix, counts (classes, classes)."""
    if folder.is_writer:
        figure = make_figure(5, 4.5)
        draw_confusion(figure.add_subplot(), confusion.numpy(), class_names)
        folder.board().add_figure("validation/confusion", figure, step, close=False)
