"""Several runs side by side on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shard_builder.checks import check_targets
from shard_builder.errors import InputError
from shard_builder.files import folder_inside
from shard_builder.inspection.page import png_address, write_html
from shard_builder.lock import locked
from shard_builder.untrusted.text import clean
from train.evaluation.statistics import Metrics, mcnemar_exact
from train.evaluation.stored_test import StoredTest, read_test_scores
from train.evaluation.table_cells import METRIC_COLUMNS, metric_cells, share_cell
from train.figures import draw_comparison, png_of
from train.reporting.report import current_test, fitting_dataset
from train.reporting.report_page import settings_of
from train.running.run_folder import RunRecord, read_metrics, read_run

TEMPLATE = "comparison.html.j2"
COLUMNS = ("run", "stream", "net", "epochs", "tested on", *METRIC_COLUMNS, "against the first")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """A run, its test if there is one, and its rows of epochs."""

    path: Path
    label: str
    record: RunRecord
    test: StoredTest | None
    epochs: list[dict[str, Any]]

    @property
    def tested_on(self) -> tuple[str, str, str]:
        """What must be the same where two accuracies are compared: datasets, last the split."""
        trained = self.record.dataset.manifest_sha256
        tested = self.test.manifest_sha256 if self.test else trained
        return trained, tested, self.record.split.sha256


@dataclass(slots=True, kw_only=True)
class Comparison:
    """What the template shows.

    Args:
        labels: Names of the runs.
        notices: What a reader must know before comparing the numbers.
        rows: Results, of the columns ``COLUMNS``.
        classes: Rows of a class and each run's recall and F1.
        curves: Data address of a PNG; empty if no run has a finished epoch.
        settings: Rows of an option that differs and each run's value.
    """

    labels: list[str]
    notices: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    classes: list[list[str]] = field(default_factory=list)
    curves: str = ""
    settings: list[list[str]] = field(default_factory=list)


def write_comparison(
    runs: Sequence[Path], out: Path, *, dataset: Path | None = None, take_over: bool = False
) -> Comparison:
    """Write a page that compares runs: accuracy, classes, curves, and the options that differ.

    A run that has not been tested yet is tested first.

    Args:
        runs: Run folders, at least two.
        out: HTML file to write.
        dataset: Where the dataset is, if not where it was in training.
        take_over: See :func:`shard_builder.lock.locked`.

    Raises:
        InputError: If a folder is no run or is given twice, or another process writes the page.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("a run is given twice, expected runs to compare")
    names = [run.resolve().name for run in runs]
    labels = [
        clean(name if names.count(name) == 1 else run)
        for name, run in zip(names, runs, strict=True)
    ]
    records = [read_run(run)[0] for run in runs]
    page = Comparison(labels=labels)
    check_targets(out)
    with locked(out, take_over=take_over):
        compared = []
        for run, label, record in zip(runs, labels, records, strict=True):
            notes, missing = list[str](), list[str]()
            with fitting_dataset(dataset, record.dataset, missing) as opened:
                test = current_test(run, opened, notes)
            if test is None:
                notes += ["Not tested.", *missing]
            page.notices += [f"{label}: {note}" for note in notes]
            epochs = read_metrics(run, keep=lambda row: row["kind"] == "epoch")
            compared.append(
                ComparedRun(path=run, label=label, record=record, test=test, epochs=epochs)
            )
        add_results(page, compared)
        add_classes(page, compared)
        add_settings(page, compared)
        if curves := {run.label: run.epochs for run in compared if run.epochs}:
            page.curves = png_address(png_of(draw_comparison(curves)))
        write_html(out, Path(__file__).with_name(TEMPLATE), page=page, columns=COLUMNS)
    return page


def add_results(page: Comparison, runs: Sequence[ComparedRun]) -> None:
    """Add the rows of results, and say which of them do not compare."""
    groups = list(dict.fromkeys(run.tested_on for run in runs))
    firsts = {run.tested_on: run for run in reversed(runs)}
    for run in runs:
        first = firsts[groups[0]]
        if run.tested_on != first.tested_on:
            same_data = run.tested_on[:2] == first.tested_on[:2]
            what = "split" if same_data else "dataset"
            page.notices.append(
                f"{run.label} is of another {what} than {first.label}: not comparable."
            )
        record, test = run.record, run.test
        if test is not None and test.checkpoint == "best":
            page.notices.append(
                f"{run.label}: best.pt was chosen on the tested sequences: optimistic."
            )
        last = str(run.epochs[-1]["epoch"]) if run.epochs else "0"
        common = [record.options.arch, f"{last} of {record.options.epochs}"]
        group = f"set {groups.index(run.tested_on) + 1}"
        if test is None:
            page.rows.append([run.label, record.stream, *common, group, *["-"] * 5])
            continue
        tested = f"{group} ({test.num_sequences})"
        for stream in dict.fromkeys((record.stream, "fused")):
            if metrics := test.results().get(stream):
                cells = metric_cells(metrics)
                against = _against(run, firsts[run.tested_on], stream)
                page.rows.append([run.label, stream, *common, tested, *cells, against])


def _against(run: ComparedRun, first: ComparedRun, stream: str) -> str:
    """Say by how much a run is better than the first of the same set, and how surely."""
    if run is first or first.test is None or run.test is None:
        return "-"
    own, other = (
        read_test_scores(folder_inside(entry.path, "test"))[1].get(name)
        for entry, name in ((run, stream), (first, first.record.stream))
    )
    if own is None or other is None or own.keys != other.keys:
        return "other sequences"
    guesses = [scores.probs.argmax(axis=1) for scores in (other, own)]
    test = mcnemar_exact(own.labels, *guesses)
    points = 100 * (test.only_second - test.only_first) / len(own.keys)
    return f"{points:+.1f} points, p = {test.p_value:.2g}"


def add_classes(page: Comparison, runs: Sequence[ComparedRun]) -> None:
    """Add recall and F1 of each class in each run's own stream."""
    results: list[Mapping[str, Any]] = []
    for run in runs:
        metrics: Metrics | None = run.test.results().get(run.record.stream) if run.test else None
        results.append({entry.name: entry for entry in metrics.per_class} if metrics else {})
    for name in dict.fromkeys(name for result in results for name in result):
        row = [name]
        for result in results:
            entry = result.get(name)
            is_there = entry is not None and entry.support
            row.append(
                f"{share_cell(entry.recall)} / {share_cell(entry.f1)}"
                if entry and is_there
                else "-"
            )
        page.classes.append(row)


def add_settings(page: Comparison, runs: Sequence[ComparedRun]) -> None:
    """Add the options and circumstances that are not the same in all runs."""
    settings = [dict(settings_of(run.record)) for run in runs]
    for name in dict.fromkeys(name for entry in settings for name in entry):
        values = [entry.get(name, "-") for entry in settings]
        if len(set(values)) > 1:
            page.settings.append([name, *values])
