"""``cktrain report``: a run or a cross-validation as one HTML page, or several runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shard_builder.commands.options import TakeOverOption
from shard_builder.console import make_console, make_table


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER [RUN]...",
            help="A run, or a folder of cktrain cv; several runs are compared.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Page to write; FOLDER/report.html or comparison.html if not given."),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset, if it has moved since; for pictures.")
    ] = None,
    take_over: TakeOverOption = False,
) -> None:
    """Write one self-contained HTML page: curves, results, worst mistakes, speed, configuration.

    Of several runs: accuracies with intervals, classes, curves overlaid, options that differ.
    """
    console = make_console()
    if len(folders) == 1:
        from train.reporting.report import write_report

        path = out or folders[0] / "report.html"
        write_report(folders[0], path, dataset=dataset, take_over=take_over)
    else:
        from train.reporting.comparison import COLUMNS, write_comparison

        path = out or Path("comparison.html")
        page = write_comparison(folders, path, dataset=dataset, take_over=take_over)
        table = make_table("Runs compared", *COLUMNS)
        for row in page.rows:
            table.add_row(*row)
        console.print(table)
        for notice in page.notices:
            console.print(f"notice: {notice}")
    console.print(f"written: {path}")
