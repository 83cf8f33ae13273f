"""``cktrain cv``: run the folds, then print what they say together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from shard_builder.console import make_console
from shard_builder.errors import InputError
from train.commands.options import (
    DatasetArgument,
    ViewsOption,
    training_config,
    with_training_options,
)
from train.commands.tables import make_table
from train.evaluation.table_cells import METRIC_COLUMNS, mean_cell, metric_cells

if TYPE_CHECKING:
    from train.evaluation.cv_summary import CvSummary


@with_training_options(without=("split", "folds", "fold", "subject"))
def cross_validate(
    context: typer.Context,
    stream: Annotated[str, typer.Argument(help="rgb or flow.")],
    dataset: DatasetArgument,
    out: Annotated[
        Path, typer.Option(help="Cross-validation folder; finished folds in it are kept.")
    ],
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 10,
    only: Annotated[
        str, typer.Option(help="Folds of this process, such as 0,3; else all that are free.")
    ] = "",
    split: Annotated[
        str,
        typer.Option(
            metavar="subject-kfold|original-random", help="original-random to measure its leak."
        ),
    ] = "subject-kfold",
    select: Annotated[
        str,
        typer.Option(
            metavar="fixed|inner",
            help="fixed tests the last epoch; inner chooses it on a further fold left out.",
        ),
    ] = "fixed",
    views: ViewsOption = "ten",
    **options: Any,
) -> None:
    """Cross-validate one stream by subjects; killed and started again, it resumes.

    Processes and hosts may share one folder: each takes folds that nobody works on.
    """
    from train.evaluation.cross_validate import CvOptions, run_folds
    from train.evaluation.cv_summary import SUMMARY_NAME, summarize

    config, given = training_config(context, stream, options)
    cv = CvOptions(
        split=split,  # type: ignore[arg-type]
        folds=folds,
        only=parse_folds(only),
        select=select,  # type: ignore[arg-type]
        views=views,  # type: ignore[arg-type]
    )
    console = make_console()

    def print_fold(fold: int, result: str) -> None:
        console.print(f"{stream}, {split}, fold {fold} of {folds}: {result}")

    code = run_folds(config, dataset, out, cv, given=given, on_fold=print_fold)
    summary = summarize(out, num_folds=folds)
    if summary is not None:
        console.print(series_table(summary, folds))
        for line in leak_lines(summary):
            console.print(line)
        console.print(f"{out / SUMMARY_NAME}")
    raise typer.Exit(code)


def parse_folds(text: str) -> tuple[int, ...] | None:
    """Parse ``0,3`` or ``0 3``; an empty text means all folds.

    Raises:
        InputError: If a part is not an integer.
    """
    try:
        return tuple(int(part) for part in text.replace(",", " ").split()) or None
    except ValueError:
        raise InputError(f"only={text!r}, expected fold numbers such as 0,3") from None


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
            f"{len(entry.folds)}/{num_folds}",
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
