"""``cktrain test``: test one run or two, and print the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from shard_builder.commands.options import TakeOverOption
from shard_builder.console import make_console, make_table
from shard_builder.errors import InputError
from train.commands.options import CheckpointOption, DeviceOption, ViewsOption, WorkersOption
from train.evaluation.table_cells import METRIC_COLUMNS, counts_cell, metric_cells, share_cell

if TYPE_CHECKING:
    from train.evaluation.statistics import Metrics
    from train.evaluation.stored_test import EvaluationReport


def evaluate(
    runs_and_dataset: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN [RUN] DATASET", help="One run, or an rgb and a flow run, then the dataset."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for test.json, scores and figures; RUN/test if not given."),
    ] = None,
    checkpoint: CheckpointOption = "last",
    views: ViewsOption = "ten",
    fusion: Annotated[
        str, typer.Option(help="default (1:1.5), RGB:FLOW, or another test's folder to search on.")
    ] = "default",
    batch_size: Annotated[
        int, typer.Option(help="Sequences per batch; each has 10 (rgb) or 50 (flow) views.")
    ] = 4,
    workers: WorkersOption = 0,
    device: DeviceOption = "auto",
    take_over: TakeOverOption = False,
) -> None:
    """Test one run, or fuse an rgb and a flow run, on what their split left out.

    That is its third part if it has one, else the validation part. Ten views a sequence.
    """
    from train.evaluation.evaluate import evaluate_runs

    if len(runs_and_dataset) < 2:
        raise InputError(f"{len(runs_and_dataset)} folder given, expected RUN [RUN] DATASET")
    *runs, dataset = runs_and_dataset
    from shard_builder.files import folder_inside

    out = out or folder_inside(runs[0], "test")
    report = evaluate_runs(
        runs,
        dataset,
        out=out,
        checkpoint=checkpoint,
        views=views,  # type: ignore[arg-type]
        batch_size=batch_size,
        workers=workers or None,
        device=device,
        fusion=fusion,
        take_over=take_over,
    )
    print_report(report, out)


def print_report(report: EvaluationReport, out: Path) -> None:
    """Print the tables of a test and where its files are."""
    from models.fusion import deciding
    from train.evaluation.evaluate import TITLES

    console = make_console()
    console.print(summary_table(report))
    stream, metrics = deciding({name: (name, entry) for name, entry in report.results.items()})
    console.print(class_table(metrics, title=TITLES[stream]))
    console.print(confusion_table(metrics, report.class_names))
    for line in remarks(report):
        console.print(line)
    files = "test.json, scores.parquet, predictions.jsonl, confusion-*.png"
    console.print(f"{out}: {files}")


def remarks(report: EvaluationReport) -> Iterator[str]:
    """Say how the streams were fused, whether they differ, and what flatters the numbers."""
    yield from report.notices
    if weights := report.weights:
        yield (f"fused with weights rgb {weights.rgb:g}, flow {weights.flow:g} ({weights.origin})")
    if test := report.mcnemar:
        yield (
            f"McNemar, rgb against flow: p = {test.p_value:.3g}"
            f" ({test.only_first} right in rgb only, {test.only_second} in flow only)"
        )
    if report.part == "test":
        yield "These sequences are a third part, which neither trained nor validated."
    elif report.checkpoint == "best":
        yield "best.pt was chosen on these sequences: its accuracy on them is optimistic."


def summary_table(report: EvaluationReport) -> Table:
    """Tabulate accuracy with its interval, UAR and macro-F1 of each stream."""
    table = make_table(f"{counts_cell(report)}, {report.views} views", "stream", *METRIC_COLUMNS)
    for stream, metrics in report.results.items():
        table.add_row(stream, *metric_cells(metrics))
    return table


def class_table(metrics: Metrics, *, title: str) -> Table:
    """Tabulate each class."""
    table = make_table(title, "class", "precision", "recall", "F1", "sequences")
    for entry in metrics.per_class:
        numbers = map(share_cell, (entry.precision, entry.recall, entry.f1))
        table.add_row(entry.name, *numbers, str(entry.support))
    return table


def confusion_table(metrics: Metrics, class_names: Sequence[str]) -> Table:
    """Tabulate the confusion counts."""
    names = (name[:8] for name in class_names)
    table = make_table("rows: true class, columns: predicted", "", *names)
    for name, row in zip(class_names, metrics.confusion, strict=True):
        table.add_row(name, *(str(count) if count else "." for count in row))
    return table
