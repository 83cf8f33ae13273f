"""The confusion matrix as a figure: counts and row percentages, classes by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from train.evaluation.statistics import Metrics

INK = "#1b2733"
FAINT = "#5a6875"


def write_confusion_figure(path: Path, metrics: Metrics, *, title: str) -> None:
    """Draw a confusion matrix and write it as PNG.

    A cell's colour is its share of the true class, so that rare classes read as well as frequent
    ones; the number is the count, the small one below the share. Empty cells stay empty. The
    margins hold recall and precision.

    Args:
        path: The PNG to write.
        metrics: What to draw; ``confusion`` and ``per_class`` are used.
        title: First line above the matrix; the second states accuracy, UAR and their number of
            sequences.
    """
    names = [entry.name for entry in metrics.per_class]
    counts = np.array(metrics.confusion)
    side = 2.6 + 0.68 * len(names)
    figure = Figure(figsize=(side + 0.5, side), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_cells(axes, counts)
    _draw_margins(axes, metrics)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(
        ticks,
        [f"{name} ({entry.support})" for name, entry in zip(names, metrics.per_class, strict=True)],
    )
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true (sequences)", color=INK)
    low, high = metrics.interval
    summary = (
        f"accuracy {metrics.accuracy:.1%} [{low:.1%}, {high:.1%}], UAR {metrics.uar:.1%}, n ="
        f" {metrics.num_sequences}"
    )
    axes.set_title(f"{title}\n{summary}", fontsize=10, loc="left", color=INK)
    figure.savefig(path, metadata={"Software": None})


def _draw_cells(axes: Axes, counts: npt.NDArray[np.int64]) -> None:
    support = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if share[row, column] > 0.55 else INK
            axes.text(
                column, row - 0.1, str(count), ha="center", va="center", color=colour, fontsize=11
            )
            axes.text(
                column,
                row + 0.26,
                f"{share[row, column]:.0%}",
                ha="center",
                va="center",
                color=colour,
                fontsize=7,
            )
    axes.set_xticks(np.arange(-0.5, len(counts)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(counts)), minor=True)
    axes.grid(which="minor", color="#d5dce3", linewidth=0.8)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_visible(False)


def _draw_margins(axes: Axes, metrics: Metrics) -> None:
    ticks = range(len(metrics.per_class))
    predicted = np.array(metrics.confusion).sum(axis=0)
    recall = [f"{entry.recall:.0%}" if entry.support else "-" for entry in metrics.per_class]
    precision = [
        f"{entry.precision:.0%}" if predicted[n] else "-"
        for n, entry in enumerate(metrics.per_class)
    ]
    right, top = axes.secondary_yaxis("right"), axes.secondary_xaxis("top")
    right.set_yticks(ticks, recall, fontsize=8)
    right.set_ylabel("recall", fontsize=8, color=FAINT)
    top.set_xticks(ticks, precision, fontsize=8)
    top.set_xlabel("precision", fontsize=8, color=FAINT)
    for margin in (right, top):
        margin.tick_params(length=0, colors=FAINT)
        margin.spines[:].set_visible(False)
