"""``cktrain test``: run the test and print its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from shard_builder.console import make_console
from train.evaluation.evaluate import TITLES, TestReport, run_test
from train.evaluation.statistics import Metrics


def print_test(
    runs: Sequence[Path],
    dataset: Path,
    *,
    out: Path,
    checkpoint: str,
    views: str,
    batch_size: int,
    workers: int | None,
    device: str,
    fusion: str,
) -> None:
    """Test and print; see :func:`train.evaluation.evaluate.run_test`."""
    report = run_test(
        runs,
        dataset,
        out=out,
        checkpoint=checkpoint,
        views=views,
        batch_size=batch_size,
        workers=workers,
        device=device,
    )
    console = make_console()
    console.print(summary_table(report))
    decision = "fused" if "fused" in report.results else next(iter(report.results))
    console.print(class_table(report.results[decision], title=TITLES[decision]))
    console.print(confusion_table(report.results[decision], report.class_names))
    if report.weights:
        weights = report.weights
        console.print(
            f"fused with weights rgb {weights.rgb:g}, flow {weights.flow:g} ({weights.origin})",
            highlight=False,
        )
    if report.mcnemar:
        console.print(
            f"McNemar, rgb against flow: p = {report.mcnemar.p_value:.3g}"
            f" ({report.mcnemar.only_first} right in rgb only, {report.mcnemar.only_second} in flow"
            " only)",
            highlight=False,
        )
    if checkpoint == "best":
        console.print(
            "best.pt was chosen on these sequences: its accuracy on them is optimistic.",
            highlight=False,
        )
    console.print(
        f"{out}: test.json, scores.parquet, predictions.jsonl, confusion-*.png", highlight=False
    )


def summary_table(report: TestReport) -> Table:
    """Tabulate accuracy with its interval, UAR and macro-F1 of each stream."""
    table = Table(
        title=(
            f"{report.num_sequences} sequences of {report.num_subjects} subjects, {report.views}"
            " views"
        )
    )
    for name in ("stream", "accuracy", "95 % interval", "UAR", "macro-F1"):
        table.add_column(name, justify="left" if name == "stream" else "right")
    for stream, metrics in report.results.items():
        low, high = metrics.interval
        table.add_row(
            stream,
            f"{100 * metrics.accuracy:.1f} %",
            f"{100 * low:.1f} - {100 * high:.1f}",
            f"{100 * metrics.uar:.1f} %",
            f"{metrics.macro_f1:.3f}",
        )
    return table


def class_table(metrics: Metrics, *, title: str) -> Table:
    """Tabulate each class."""
    table = Table(title=title)
    for name in ("class", "precision", "recall", "F1", "sequences"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for entry in metrics.per_class:
        table.add_row(
            entry.name,
            f"{entry.precision:.2f}",
            f"{entry.recall:.2f}",
            f"{entry.f1:.2f}",
            str(entry.support),
        )
    return table


def confusion_table(metrics: Metrics, class_names: Sequence[str]) -> Table:
    """Tabulate the confusion counts."""
    table = Table(title="rows: true class, columns: predicted")
    table.add_column("")
    for name in class_names:
        table.add_column(name[:8], justify="right")
    for name, row in zip(class_names, metrics.confusion, strict=True):
        table.add_row(name, *(str(count) if count else "." for count in row))
    return table
