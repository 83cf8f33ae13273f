"""What TensorBoard shows beside scalars: the confusion matrix, and a few inputs as the net sees
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipelines.streams import kind_of
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
    """Show a confusion matrix (classes, classes) as a picture, each row divided by its sum."""
    if not folder.is_writer:
        return
    import matplotlib.figure

    rates = confusion.float() / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    figure = matplotlib.figure.Figure(figsize=(5, 4.5), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(rates.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row in range(len(class_names)):
        for column in range(len(class_names)):
            if count := int(confusion[row, column]):
                color = "white" if rates[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color)
    folder.board().add_figure("validation/confusion", figure, step, close=False)
