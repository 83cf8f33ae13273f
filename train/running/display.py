"""Training on the terminal: a progress bar with the figures that matter, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Row = dict[str, Any]


@contextmanager
def training_display(
    console: Console, *, first_epoch: int, epochs: int, steps: int
) -> Iterator[Callable[[Row], None]]:
    """Show training; yields a function that takes each row.

    Args:
        console: Where to.
        first_epoch: Epochs done already.
        epochs: Epochs in all.
        steps: Optimizer steps of an epoch.
    """
    if not console.is_terminal:
        yield (
            lambda row: (
                console.print(epoch_line(row, epochs), highlight=False)
                if row["kind"] == "epoch"
                else None
            )
        )
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=epochs * steps, completed=first_epoch * steps)
        last = {"figures": ""}

        def show(row: Row) -> None:
            if row["kind"] == "epoch":
                last["figures"] = (
                    f" {row['samples_per_s']:.1f} samples/s, wait {row['data_wait_pct']:.1f} %"
                )
                bar.console.print(epoch_line(row, epochs), highlight=False)
            else:
                text = (
                    f"epoch {row['epoch']}/{epochs} loss {row['loss']:.3f} acc"
                    f" {100 * row['accuracy']:.0f} %"
                )
                bar.update(task, completed=row["step"], description=text + last["figures"])

        yield show


def epoch_line(row: Row, epochs: int) -> str:
    """Return the line of an epoch."""
    parts = [
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}",
        f"loss {row['loss']:.4f}",
        f"acc {100 * row['accuracy']:.1f} %",
    ]
    if row["val_loss"] is not None:
        parts.append(f"val loss {row['val_loss']:.4f}  val acc {100 * row['val_accuracy']:.1f} %")
    parts += [
        f"{row['samples_per_s']:.1f} samples/s",
        f"data wait {row['data_wait_pct']:.2f} %",
        f"lr {row['lr']:.2g}",
    ]
    if row["num_damaged"]:
        parts.append(f"{row['num_damaged']} damaged samples replaced")
    return "  ".join(parts)
