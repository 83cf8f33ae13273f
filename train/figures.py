"""The curves of a run as a picture, and what all figures of cktrain share."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shard_builder.files import write_atomically
from shard_builder.untrusted.text import plain_label

MOST_INCHES = 40
INK = "#1b2733"
TRAIN, VAL, LR = "#1f77b4", "#d62728", "#7f7f7f"


def make_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches; one that would be huge is made smaller."""
    width, height = min(width, MOST_INCHES), min(height, MOST_INCHES)
    return Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")


def png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG, without the version of matplotlib in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png_of(figure))


def draw_confusion(axes: Axes, counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Draw a confusion matrix.

    A cell's colour is its share of the true class, so that rare classes read as well as frequent
    ones; the number is the count, the small one below the share. Empty cells stay empty.

    Args:
        axes: Where to.
        counts: ``int64`` (classes, classes), row = true class, column = predicted class.
        class_names: Names in label order.
    """
    support = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if share[row, column] > 0.55 else INK
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": color}
            axes.text(column, row - 0.1, str(count), fontsize=11, **style)
            axes.text(column, row + 0.26, f"{share[row, column]:.0%}", fontsize=7, **style)
    axes.set_xticks(np.arange(-0.5, len(counts)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(counts)), minor=True)
    axes.grid(which="minor", color="#d5dce3", linewidth=0.8)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_visible(False)
    ticks = range(len(class_names))
    labels = [plain_label(name) for name in class_names]
    axes.set_xticks(ticks, labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, labels)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)


def draw_curves(rows: Sequence[dict[str, Any]], *, title: str) -> Figure:
    """Draw loss, accuracy, learning rate and speed with and without data over the epochs.

    Args:
        rows: Epoch rows of metrics.jsonl, at least one.
        title: Heading.
    """
    figure = make_figure(10, 6.2)
    figure.suptitle(title)
    (loss, accuracy), (lr, speed) = figure.subplots(2, 2, sharex=True)
    validated = [row for row in rows if row["val_loss"] is not None]
    marker = "o" if len(rows) < 40 else None

    def draw(panel: Axes, name: str, own: Sequence[dict[str, Any]], **style: Any) -> None:
        scale = 100 if name.endswith("accuracy") else 1
        panel.plot([row["epoch"] for row in own], [scale * row[name] for row in own], **style)

    draw(loss, "loss", rows, color=TRAIN, marker=marker, ms=3, label="training")
    draw(loss, "val_loss", validated, color=VAL, marker="o", ms=4, label="validation")
    draw(accuracy, "accuracy", rows, color=TRAIN, marker=marker, ms=3, label="training")
    draw(accuracy, "val_accuracy", validated, color=VAL, marker="o", ms=4, label="validation")
    draw(lr, "lr", rows, color=LR, drawstyle="steps-mid")
    draw(speed, "samples_per_s", rows, color=TRAIN, label="with data")
    draw(speed, "compute_samples_per_s", rows, color=LR, ls="--", label="compute alone")
    for panel, name in (
        (loss, "cross entropy"),
        (accuracy, "accuracy, %"),
        (lr, "learning rate"),
        (speed, "samples/s"),
    ):
        panel.set_ylabel(name)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        if panel is lr:
            panel.set_yscale("log")
        else:
            panel.set_ylim(bottom=0)
            panel.legend(frameon=False)
    for panel in (lr, speed):
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    return figure


def draw_comparison(curves: Mapping[str, Sequence[dict[str, Any]]]) -> Figure:
    """Draw losses, accuracy and speed of several runs over the epochs, a colour for each run.

    Args:
        curves: Epoch rows of metrics.jsonl by the name of the run, each at least one.
    """
    names = ("loss", "val_loss", "val_accuracy", "samples_per_s")
    titles = ("training loss", "validation loss", "validation accuracy, %", "samples/s")
    figure = make_figure(10, 6.6)
    palette = colormaps["tab10"] if len(curves) <= 10 else colormaps["turbo"]
    panels = figure.subplots(2, 2, sharex=True)
    for panel in panels[1]:
        panel.set_xlabel("epoch")
    for panel, name, title in zip(panels.flat, names, titles, strict=True):
        scale = 100 if name.endswith("accuracy") else 1
        for number, (label, rows) in enumerate(curves.items()):
            own = [row for row in rows if row[name] is not None]
            panel.plot(
                [row["epoch"] for row in own],
                [scale * row[name] for row in own],
                color=palette(number if len(curves) <= 10 else number / (len(curves) - 1)),
                marker="o" if len(own) < 40 else None,
                ms=3,
                label=plain_label(label),
            )
        panel.set_ylabel(title)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure
