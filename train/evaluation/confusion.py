"""The confusion matrix of a test as a figure, with recall and precision at its margins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shard_builder.untrusted.text import plain_label
from train.evaluation.statistics import Metrics
from train.figures import INK, draw_confusion, make_figure, save_figure

FAINT = "#5a6875"


def write_confusion_figure(path: Path, metrics: Metrics, *, title: str) -> None:
    """Draw a confusion matrix and write it as PNG; see :func:`draw_confusion_figure`."""
    save_figure(draw_confusion_figure(metrics, title=title), path)


def draw_confusion_figure(metrics: Metrics, *, title: str) -> Figure:
    """Draw a confusion matrix.

    Args:
        metrics: What to draw; ``confusion`` and ``per_class`` are used.
        title: First line above the matrix; the second states accuracy, UAR and their number of
            sequences.
    """
    side = 2.6 + 0.68 * len(metrics.per_class)
    figure = make_figure(side + 0.5, side)
    axes = figure.add_subplot()
    draw_confusion(axes, np.array(metrics.confusion), [entry.name for entry in metrics.per_class])
    axes.set_yticks(
        range(len(metrics.per_class)),
        [f"{plain_label(entry.name)} ({entry.support})" for entry in metrics.per_class],
    )
    axes.set_ylabel("true (sequences)", color=INK)
    _draw_margins(axes, metrics)
    low, high = metrics.interval
    summary = (
        f"accuracy {metrics.accuracy:.1%} [{low:.1%}, {high:.1%}], UAR {metrics.uar:.1%},"
        f" n = {metrics.num_sequences}"
    )
    axes.set_title(f"{title}\n{summary}", fontsize=10, loc="left", color=INK)
    return figure


def _draw_margins(axes: Axes, metrics: Metrics) -> None:
    ticks = range(len(metrics.per_class))
    recall, precision = (
        ["-" if share is None else f"{share:.0%}" for share in shares]
        for shares in zip(*((c.recall, c.precision) for c in metrics.per_class), strict=True)
    )
    right, top = axes.secondary_yaxis("right"), axes.secondary_xaxis("top")
    right.set_yticks(ticks, recall, fontsize=8)
    right.set_ylabel("recall", fontsize=8, color=FAINT)
    top.set_xticks(ticks, precision, fontsize=8)
    top.set_xlabel("precision", fontsize=8, color=FAINT)
    for margin in (right, top):
        margin.tick_params(length=0, colors=FAINT)
        margin.spines[:].set_visible(False)
