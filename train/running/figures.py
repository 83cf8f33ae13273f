"""The curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure

TRAIN, VAL, LR = "#1f77b4", "#d62728", "#7f7f7f"


def write_curves(path: Path, rows: Sequence[dict[str, Any]], *, title: str) -> None:
    """Draw loss, accuracy, learning rate and data wait over the epochs.

    Args:
        path: PNG to write.
        rows: Epoch rows of metrics.jsonl, at least one.
        title: Heading.
    """
    figure = matplotlib.figure.Figure(figsize=(10, 6.2), dpi=110, layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2, sharex=True)
    epochs = [row["epoch"] for row in rows]
    validated = [row for row in rows if row["val_loss"] is not None]
    val_epochs = [row["epoch"] for row in validated]
    marker = "o" if len(rows) < 40 else None
    for panel, name in ((axes[0, 0], "loss"), (axes[0, 1], "accuracy")):
        scale = 100 if name == "accuracy" else 1
        panel.plot(
            epochs,
            [scale * row[name] for row in rows],
            color=TRAIN,
            marker=marker,
            ms=3,
            label="training",
        )
        panel.plot(
            val_epochs,
            [scale * row[f"val_{name}"] for row in validated],
            color=VAL,
            marker="o",
            ms=4,
            label="validation",
        )
        panel.set_ylabel("accuracy, %" if name == "accuracy" else "cross entropy")
        panel.legend(frameon=False)
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 1].set_ylim(0, 101)
    axes[1, 0].step(epochs, [row["lr"] for row in rows], where="mid", color=LR)
    axes[1, 0].set_yscale("log")
    axes[1, 0].set_ylabel("learning rate")
    axes[1, 1].plot(epochs, [row["samples_per_s"] for row in rows], color=TRAIN, label="with data")
    axes[1, 1].plot(
        epochs,
        [row["compute_samples_per_s"] for row in rows],
        color=LR,
        ls="--",
        label="compute alone",
    )
    axes[1, 1].set_ylim(bottom=0)
    axes[1, 1].set_ylabel("samples/s")
    axes[1, 1].legend(frameon=False, loc="lower right")
    for panel in axes.flat:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes[1]:
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
