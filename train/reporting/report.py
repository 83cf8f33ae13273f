"""What a run or a cross-validation says, on one self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.fusion import deciding
from pipelines.dataset import Dataset, open_dataset
from shard_builder.checks import check_targets
from shard_builder.errors import DatasetError, InputError, counted
from shard_builder.files import folder_inside
from shard_builder.inspection.page import png_address, write_html
from shard_builder.lock import locked
from train.evaluation.confusion import draw_confusion_figure
from train.evaluation.cv_options import Views
from train.evaluation.cv_protocol import PROTOCOL_NAME, find_protocols, fold_dir
from train.evaluation.cv_summary import read_folds, title_of
from train.evaluation.evaluate import PREDICTIONS_NAME, TITLES, evaluate_runs
from train.evaluation.stored_test import TEST_NAME, StoredTest, read_test, why_stale
from train.evaluation.table_cells import (
    METRIC_COLUMNS,
    counts_cell,
    mean_cell,
    metric_cells,
    share_cell,
)
from train.figures import png_of
from train.reporting.report_page import Page
from train.running.run_folder import CONFIG_NAME, RunDataset, read_run

TEMPLATE = "report.html.j2"


def write_report(
    source: Path, out: Path, *, dataset: Path | None = None, take_over: bool = False
) -> Page:
    """Write the page of a run folder or a cross-validation folder.

    Args:
        source: The folder. A run that has not been tested yet is tested first.
        out: HTML file to write.
        dataset: Where the dataset is, if not where it was in training; it is needed for pictures
            only.
        take_over: See :func:`shard_builder.lock.locked`.

    Raises:
        InputError: If the folder is neither, or another process writes it.
    """
    is_run = os.path.lexists(source / CONFIG_NAME)
    if not is_run and not find_protocols(source):
        raise InputError(
            f"{source}: neither a run nor a cross-validation, expected {CONFIG_NAME} in it or"
            f" {PROTOCOL_NAME} in the folders of its folds"
        )
    check_targets(out)
    with locked(out, take_over=take_over):
        page = run_page(source, dataset) if is_run else cv_page(source, dataset)
        write_html(out, Path(__file__).with_name(TEMPLATE), page=page, share_cell=share_cell)
    return page


def run_page(run: Path, dataset: Path | None) -> Page:
    """Collect the page of one run."""
    record, _ = read_run(run)
    split, test = record.split, folder_inside(run, "test")
    leaks = split.kind == "original-random"
    page = Page(
        title=f"{record.options.arch}, {record.stream} stream",
        subtitle=f"{counted(split.num_train, 'sequence')} for training, {split.num_val}"
        f"{'' if leaks else ' of other subjects'} for the test ({split.kind})",
    )
    if leaks:
        page.notices.append(
            "The split shares subjects between training and test:"
            " the accuracy is not accuracy on new people."
        )
    with fitting_dataset(dataset, record.dataset, page.notices) as opened:
        report = current_test(run, opened, page.notices)
        page.add_training(run)
        if report is not None:
            add_test(page, report)
            page.add_predictions([test / PREDICTIONS_NAME], report.classes, opened)
            runs = [path for entry in report.origin if (path := Path(entry.run)).is_dir()]
            page.explain_mistakes(runs, report.checkpoint, report.classes, opened)
    page.add_settings(record)
    return page


def current_test(run: Path, dataset: Dataset | None, notices: list[str]) -> StoredTest | None:
    """Return the run's ``test.json``: one that is not there, or of other weights, is made anew."""
    test = folder_inside(run, "test")
    path = test / TEST_NAME
    runs, checkpoint = [run], "last"
    views: Views = "ten"
    if os.path.lexists(path):
        report = read_test(path)
        reason = why_stale(report, run)
        if not reason:
            if {report.manifest_sha256} != {entry.manifest_sha256 for entry in report.origin}:
                notices.append("The test is on another dataset than the training.")
            return report
        checkpoint, views = report.checkpoint, report.views
        others = [Path(entry.run) for entry in report.origin]
        runs = [other for other in others if other.is_dir()] or runs
        then = "tested again" if dataset is not None else "it is left out"
        notices.append(f"{reason[0].upper()}{reason[1:]}; {then}.")
    if dataset is None:
        return None
    evaluate_runs(runs, Path(dataset.address), out=test, checkpoint=checkpoint, views=views)
    return read_test(path)


def add_test(page: Page, report: StoredTest) -> None:
    """Add the results and figures of a test."""
    results = report.results()
    page.columns = ["stream", *METRIC_COLUMNS]
    page.rows = [[name, *metric_cells(metrics)] for name, metrics in results.items()]
    page.add_metrics(deciding(results), remark=counts_cell(report))
    if "fused" in results:
        runs = " and ".join(entry.run for entry in report.origin)
        page.notices.append(
            f"The test fused {runs}: accuracy, classes, subjects and mistakes are those of both"
            " streams together."
        )
    if report.checkpoint == "best":
        page.notices.append(
            "best.pt was chosen on the tested sequences: the accuracy is optimistic."
        )
    for name, metrics in results.items():
        figure = draw_confusion_figure(metrics, title=TITLES[name])
        page.figures.append((TITLES[name], png_address(png_of(figure))))


def cv_page(out: Path, dataset: Path | None) -> Page:
    """Collect the page of a cross-validation from the folds that are finished."""
    summary = read_folds(out)
    page = Page(
        title="Cross-validation",
        subtitle="predictions of all folds pooled; each sequence tested by the net of its fold",
        columns=["stream, split", "folds", *METRIC_COLUMNS, "mean ± sd of folds"],
        notices=[f"Not finished: {entry}." for entry in summary.missing] + list(summary.notices),
    )
    for entry in summary.series:
        name = f"{entry.stream}, {entry.split}"
        cells = (*metric_cells(entry.pooled), mean_cell(entry))
        page.rows.append([name, f"{len(entry.folds)}/{summary.num_folds(entry)}", *cells])
        figure = draw_confusion_figure(entry.pooled, title=title_of(entry))
        page.figures.append((name, png_address(png_of(figure))))
    for stream, difference in summary.leaks():
        page.notices.append(
            f"Leak, {stream}: the original's random split scores {100 * difference:+.1f} points"
            " against subject folds."
        )
    honest = [entry for entry in summary.series if entry.split == "subject-kfold"]
    if best := max(
        honest or summary.series,
        key=lambda entry: (entry.stream == "fused", entry.pooled.accuracy),
        default=None,
    ):
        page.add_metrics(best.pooled, remark=f"{best.stream}, {best.split}")
        stream = best.stream if best.stream != "fused" else "flow"
        folds = [fold_dir(out, stream, best.split, fold) for fold in best.folds]
        record, _ = read_run(folds[0])
        with fitting_dataset(dataset, record.dataset, page.notices) as opened:
            files = [folder_inside(fold, "test") / PREDICTIONS_NAME for fold in folds]
            page.add_predictions(files, summary.class_names, opened)
            for fold in folds:
                test = read_test(folder_inside(fold, "test") / TEST_NAME)
                page.explain_mistakes([fold], test.checkpoint, summary.class_names, opened)
        page.add_training(folds[0])
        page.add_settings(record)
    return page


@contextmanager
def fitting_dataset(
    path: Path | None, trained_on: RunDataset, notices: list[str]
) -> Iterator[Dataset | None]:
    """Open the dataset of a run, or note why there are no pictures."""
    path = path or Path(trained_on.path)
    try:
        opened = open_dataset(path)
    except DatasetError as error:
        notices.append(f"No pictures: {str(error).splitlines()[0]}. Pass --dataset.")
        yield None
        return
    with opened:
        fits = opened.sha256 == trained_on.manifest_sha256
        if not fits:
            notices.append(
                f"No pictures: {path} is not the dataset that this was trained on. Pass --dataset."
            )
        yield opened if fits else None
