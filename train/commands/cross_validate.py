"""``cktrain cv``: run the folds, then print what they say together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from shard_builder.commands.options import TakeOverOption, values_of, with_options_of
from shard_builder.console import make_console, make_table
from train.commands.options import (
    DatasetArgument,
    parse_integers,
    training_config,
    with_training_options,
)
from train.evaluation.cv_options import CvOptions
from train.evaluation.table_cells import METRIC_COLUMNS, mean_cell, metric_cells

if TYPE_CHECKING:
    from train.evaluation.cv_summary import CvSummary


@with_training_options(without=("split", "folds", "fold", "subject"))
@with_options_of(CvOptions)
def cross_validate(
    context: typer.Context,
    stream: Annotated[str, typer.Argument(help="rgb or flow.")],
    dataset: DatasetArgument,
    out: Annotated[
        Path, typer.Option(help="Cross-validation folder; finished folds in it are kept.")
    ],
    take_over: TakeOverOption = False,
    **options: Any,
) -> None:
    """Cross-validate one stream by subjects; killed and started again, it resumes.

    Processes and hosts may share one folder: each takes folds that nobody works on.
    """
    from train.evaluation.cross_validate import run_folds
    from train.evaluation.cv_summary import SUMMARY_NAME, summarize

    values = values_of(CvOptions, options)
    cv = CvOptions(**values | {"only": parse_integers("only", values["only"])})
    training = {name: value for name, value in options.items() if name not in values}
    config, _ = training_config(context, stream, training)
    console = make_console()

    def print_fold(fold: int, result: str) -> None:
        console.print(f"{stream}, {cv.split}, fold {fold}: {result}")

    code = run_folds(
        config, dataset, out, cv, take_over=take_over, on_notice=console.print, on_fold=print_fold
    )
    summary = summarize(out, take_over=take_over)
    if summary.series:
        console.print(series_table(summary))
    for line in (*leak_lines(summary), *missing_lines(summary), *summary.notices):
        console.print(line)
    console.print(f"{out / SUMMARY_NAME}")
    raise typer.Exit(code)


def series_table(summary: CvSummary) -> Table:
    """Tabulate each stream and split: pooled metrics, mean and deviation over the folds."""
    table = make_table(
        "cross-validation: predictions of all folds pooled",
        *("stream", "split", "folds", *METRIC_COLUMNS, "mean ± sd of folds"),
        num_left=2,
    )
    for entry in summary.series:
        table.add_row(
            entry.stream,
            entry.split,
            f"{len(entry.folds)}/{summary.num_folds(entry)}",
            *metric_cells(entry.pooled),
            mean_cell(entry),
        )
    return table


def missing_lines(summary: CvSummary) -> list[str]:
    """Say which folds are not finished, and why."""
    if not summary.missing:
        return []
    return ["not finished:", *(f"  {entry}" for entry in summary.missing)]


def leak_lines(summary: CvSummary) -> list[str]:
    """Say for each stream how much of the accuracy on the original's split is knowing the face."""
    return [
        f"leak, {stream}: original-random minus subject folds ="
        f" {100 * difference:+.1f} points of accuracy"
        for stream, difference in summary.leaks()
    ]
