"""``cktrain cv``: run the folds, then print what they say together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from shard_builder.commands.options import values_of, with_options_of
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
    config, given = training_config(context, stream, training)
    console = make_console()

    def print_fold(fold: int, result: str) -> None:
        of = "" if cv.split == "fold" else f" of {cv.folds}"
        console.print(f"{stream}, {cv.split}, fold {fold}{of}: {result}")

    code = run_folds(config, dataset, out, cv, given=given, on_fold=print_fold)
    summary = summarize(out, num_folds=cv.folds)
    if summary is not None:
        console.print(series_table(summary, cv.folds))
        for line in leak_lines(summary):
            console.print(line)
        console.print(f"{out / SUMMARY_NAME}")
    raise typer.Exit(code)


def series_table(summary: CvSummary, num_folds: int) -> Table:
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
            str(len(entry.folds)) + ("" if entry.split == "fold" else f"/{num_folds}"),
            *metric_cells(entry.pooled),
            mean_cell(entry),
        )
    return table


def leak_lines(summary: CvSummary) -> list[str]:
    """Say for each stream how much of the accuracy on the original's split is knowing the face."""
    return [
        f"leak, {stream}: original-random minus subject folds ="
        f" {100 * difference:+.1f} points of accuracy"
        for stream, difference in summary.leaks()
    ]
