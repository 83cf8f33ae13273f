"""Tables and cells that several commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from train.evaluation.statistics import Metrics

METRIC_COLUMNS = ("accuracy", "95 % interval", "UAR", "macro-F1")


def make_table(title: str, *columns: str, num_left: int = 1, caption: str | None = None) -> Table:
    """Make an empty table; the first ``num_left`` columns hold words, the others numbers."""
    table = Table(title=title, caption=caption)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < num_left else "right")
    return table


def metric_cells(metrics: Metrics) -> tuple[str, str, str, str]:
    """Format what ``METRIC_COLUMNS`` names."""
    low, high = metrics.interval
    return (
        f"{100 * metrics.accuracy:.1f} %",
        f"{100 * low:.1f} - {100 * high:.1f}",
        f"{100 * metrics.uar:.1f} %",
        f"{metrics.macro_f1:.3f}",
    )
