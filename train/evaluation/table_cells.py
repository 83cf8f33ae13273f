"""Metrics as the cells of a table, on the terminal and on a page; light, for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shard_builder.errors import counted

if TYPE_CHECKING:
    from train.evaluation.cv_summary import Series
    from train.evaluation.statistics import Metrics
    from train.evaluation.stored_test import EvaluationReport, StoredTest

METRIC_COLUMNS = ("accuracy", "95 % interval", "UAR", "macro-F1")


def metric_cells(metrics: Metrics) -> tuple[str, str, str, str]:
    """Format what ``METRIC_COLUMNS`` names."""
    low, high = metrics.interval
    return (
        f"{100 * metrics.accuracy:.1f} %",
        f"{100 * low:.1f} - {100 * high:.1f}",
        f"{100 * metrics.uar:.1f} %",
        f"{metrics.macro_f1:.3f}",
    )


def counts_cell(test: EvaluationReport | StoredTest) -> str:
    """Say how much was tested on: sequences, and subjects where the source names some."""
    text = counted(test.num_sequences, "sequence")
    return (
        text if test.num_subjects is None else f"{text} of {counted(test.num_subjects, 'subject')}"
    )


def share_cell(share: float | None) -> str:
    """Format a precision, recall or F1; "-" where it would divide by nothing."""
    return "-" if share is None else f"{share:.2f}"


def mean_cell(series: Series) -> str:
    """Format mean and deviation of the folds' accuracies."""
    return f"{100 * series.mean_accuracy:.1f} ± {100 * series.sd_accuracy:.1f} %"
