"""Progress bars on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

PLAIN_INTERVAL_S = 10.0


@contextmanager
def progress_bar(label: str, *, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show progress; yields a function to be called with (done, total)."""
    if not console.is_terminal:
        yield _plain_reporter(label, console)
        return
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
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
