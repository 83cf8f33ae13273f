"""Training on the terminal: a progress bar with the figures that matter, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shard_builder.errors import counted

if TYPE_CHECKING:
    from train.running.session import Session

Row = dict[str, Any]

WIDE = 120
"""Columns of a terminal that has room for the speed beside the times."""


@contextmanager
def training_display(console: Console, session: Session) -> Iterator[Callable[[Row], None]]:
    """Show the training of a session; yields a function that takes each row."""
    epochs, steps = session.config.epochs, session.steps_per_epoch

    def print_epoch(row: Row) -> None:
        if row["kind"] == "epoch":
            console.print(epoch_line(row, epochs))

    if not console.is_terminal:
        yield print_epoch
        return
    is_wide = console.width >= WIDE
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24 if is_wide else 8),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        done = session.epoch * steps
        task = bar.add_task("starting", total=epochs * steps, completed=done)
        speed = ""

        def show(row: Row) -> None:
            nonlocal speed
            print_epoch(row)  # above the bar, whose console this is
            if row["kind"] == "epoch" and is_wide:
                wait = row["data_wait_pct"]
                speed = f" {row['samples_per_s']:.1f} samples/s, wait {wait:.1f} %"
            elif row["kind"] != "epoch":
                accuracy = f"acc {100 * row['accuracy']:.0f} %"
                text = f"epoch {row['epoch']}/{epochs} loss {row['loss']:.3f} {accuracy}{speed}"
                bar.update(task, completed=row["step"], description=text)

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
        parts.append(f"{counted(row['num_damaged'], 'damaged sample')} replaced")
    return "  ".join(parts)
