"""``cktrain cv``: run the folds, then print what they say together."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rich.table import Table

from shard_builder.console import make_console
from train.config import TrainConfig
from train.evaluation.cross_validate import CvOptions, run_folds
from train.evaluation.cv_summary import SUMMARY_NAME, CvSummary, summarize


def run_cv(
    config: TrainConfig, dataset: Path, out: Path, options: CvOptions, *, given: Collection[str]
) -> int:
    """Run a cross-validation and print its tables; returns the exit code."""
    console = make_console()

    def tell(fold: int, what: str) -> None:
        console.print(
            f"{config.stream}, {options.split}, fold {fold} of {options.num_folds}: {what}",
            highlight=False,
        )

    code = run_folds(config, dataset, out, options, given=given, on_fold=tell)
    summary = summarize(out, num_folds=options.num_folds)
    if summary is not None:
        console.print(series_table(summary, options.num_folds))
        for line in leak_lines(summary):
            console.print(line, highlight=False)
        console.print(f"{out / SUMMARY_NAME}", highlight=False)
    return code


def series_table(summary: CvSummary, num_folds: int) -> Table:
    """Tabulate each stream and way of splitting: pooled metrics, and mean and deviation over the
    folds.
    """
    table = Table(title="cross-validation: predictions of all folds pooled")
    for name in (
        "stream",
        "split",
        "folds",
        "accuracy",
        "95 % interval",
        "UAR",
        "macro-F1",
        "mean +- sd of folds",
    ):
        table.add_column(name, justify="left" if name in ("stream", "split") else "right")
    for entry in summary.series:
        pooled = entry.pooled
        low, high = pooled.interval
        table.add_row(
            entry.stream,
            entry.split,
            f"{len(entry.folds)}/{num_folds}",
            f"{100 * pooled.accuracy:.1f} %",
            f"{100 * low:.1f} - {100 * high:.1f}",
            f"{100 * pooled.uar:.1f} %",
            f"{pooled.macro_f1:.3f}",
            f"{100 * entry.mean_accuracy:.1f} +- {100 * entry.sd_accuracy:.1f} %",
        )
    return table


def leak_lines(summary: CvSummary) -> list[str]:
    """Say for each stream how much of the accuracy on the original's split is knowing the face."""
    return [
        f"leak, {stream}: original-random minus subject folds = {100 * difference:+.1f} points of"
        " accuracy"
        for stream, difference in summary.leaks()
    ]
