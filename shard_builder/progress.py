"""Progress bars on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL_S = 10.0
MOST_BAR, LEAST_BAR = 40, 4
COLUMNS_BESIDE = 44
"""Characters of a line's percentage, count, times and gaps: they are shown on a narrow terminal
too, where the bar gives way."""


@contextmanager
def progress_bar(label: str, *, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show progress; yields a function to be called with (done, total)."""
    if not console.is_terminal:
        yield _plain_reporter(label, console)
        return
    room = console.width - len(label) - COLUMNS_BESIDE
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=max(LEAST_BAR, min(MOST_BAR, room))),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_reporter(label: str, console: Console) -> Callable[[int, int], None]:
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_INTERVAL_S:
            last = time.monotonic()
            console.print(f"{label}: {done} of {total}")

    return report
