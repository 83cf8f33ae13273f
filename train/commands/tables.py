"""The tables that commands print."""

from __future__ import annotations

from rich.table import Table


def make_table(title: str, *columns: str, num_left: int = 1, caption: str | None = None) -> Table:
    """Make an empty table; the first ``num_left`` columns hold words, the others numbers."""
    table = Table(title=title, caption=caption)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < num_left else "right")
    return table
