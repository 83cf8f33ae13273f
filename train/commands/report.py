"""``cktrain report``: a run or a cross-validation as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from train.commands.options import TakeOverOption


def report(
    folder: Annotated[Path, typer.Argument(help="A run, or a folder of cktrain cv.")],
    out: Annotated[
        Path | None, typer.Option(help="Page to write; FOLDER/report.html if not given.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset, if it has moved since; for pictures.")
    ] = None,
    take_over: TakeOverOption = False,
) -> None:
    """Write one self-contained HTML page: curves, results, worst mistakes, speed, configuration."""
    from train.evaluation.report import write_report

    path = out or folder / "report.html"
    write_report(folder, path, dataset=dataset, take_over=take_over)
    typer.echo(f"written: {path}")
