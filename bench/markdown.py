"""What every report shares: tables of Markdown, ranges and ratios of spreads."""

from __future__ import annotations

from collections.abc import Iterable

from bench.records import Record


def markdown_table(header: str, rows: Iterable[str]) -> str:
    """Write a table of rows whose cells are parted by ``|``.

    >>> print(markdown_table("loader | samples/s", ["cpu | 3", "dali | 4"]))
    | loader | samples/s |
    |---|---|
    | cpu | 3 |
    | dali | 4 |
    """
    lines = [f"| {header} |", "|" + "---|" * len(header.split(" | "))]
    return "\n".join([*lines, *(f"| {row} |" for row in rows)])


def cores_of(record: Record) -> str:
    """Name the machine of a record."""
    return f"{record['machine']['usable_cores']} cores of {record['machine']['processor']}"


def low_to_high(spread: Record, digits: int = 0, factor: float = 1.0) -> str:
    """Write the range of a spread, multiplied by ``factor``: ``1,000 - 4,000``."""
    return f"{factor * spread['min']:,.{digits}f} - {factor * spread['max']:,.{digits}f}"


def ratio_in_turns(ours: Record, other: Record) -> Record:
    """Return the ``ratio`` of two medians, and ``min`` and ``max`` of the ratios of single turns.

    >>> ratio_in_turns({"median": 10, "runs": [8, 10, 12]}, {"median": 1, "runs": [1, 2, 1]})
    {'ratio': 10.0, 'min': 5.0, 'max': 12.0}
    """
    turns = [one / two for one, two in zip(ours["runs"], other["runs"], strict=True)]
    return {"ratio": ours["median"] / other["median"], "min": min(turns), "max": max(turns)}
