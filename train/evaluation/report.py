"""``cktrain report``: what a run or a cross-validation says, on one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.dataset import Dataset, open_dataset
from shard_builder.errors import DatasetError, InputError
from shard_builder.format.manifest import manifest_sha256
from shard_builder.page import png_address, write_html
from train.evaluation.cv_summary import SUMMARY_NAME
from train.evaluation.evaluate import PREDICTIONS_NAME, TEST_NAME, TITLES, evaluate_runs
from train.evaluation.report_pictures import pictures_of
from train.running.run_folder import CONFIG_NAME, FIGURES_NAME, read_metrics, read_run
from train.running.stall import DATA_BOUND_PCT, FREE_PCT

NUM_MISTAKES = 8
TEMPLATE = "report.html.j2"


@dataclass(slots=True, kw_only=True)
class Page:
    """What the template shows; every part but the title may be empty.

    Args:
        title: Heading.
        subtitle: What was trained on what.
        cards: (name, value, remark) at the top.
        table: Header and rows of the results table.
        figures: (caption, data address of a PNG).
        classes: Rows of name, precision, recall, F1, sequences.
        subjects: Rows of subject, right, sequences.
        mistakes: The most confident wrong predictions.
        throughput: Sentences about speed and data wait.
        settings: Options as (name, value).
        commands: How to reproduce it.
        notices: What a reader must know before believing the numbers.
    """

    title: str
    subtitle: str
    cards: list[tuple[str, str, str]] = field(default_factory=list)
    table: tuple[list[str], list[list[str]]] = field(default_factory=lambda: ([], []))
    figures: list[tuple[str, str]] = field(default_factory=list)
    classes: list[list[str]] = field(default_factory=list)
    subjects: list[tuple[str, int, int]] = field(default_factory=list)
    mistakes: list[dict[str, Any]] = field(default_factory=list)
    throughput: list[str] = field(default_factory=list)
    settings: list[tuple[str, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def write_report(source: Path, out: Path, *, dataset: Path | None = None) -> Page:
    """Write the page of a run folder or a cross-validation folder.

    Args:
        source: The folder. A run that has not been tested yet is tested first.
        out: HTML file to write.
        dataset: Where the dataset is, if not where it was in training; it is needed for pictures
            only.

    Raises:
        InputError: If the folder is neither.
    """
    if (source / SUMMARY_NAME).is_file():
        page = cv_page(source, dataset)
    elif (source / CONFIG_NAME).is_file():
        page = run_page(source, dataset)
    else:
        raise InputError(
            f"{source}: neither a run nor a cross-validation, expected {CONFIG_NAME} or"
            f" {SUMMARY_NAME} in it"
        )
    write_html(out, Path(__file__).with_name(TEMPLATE), page=page)
    return page


def run_page(run: Path, dataset: Path | None) -> Page:
    """Collect the page of one run."""
    record, _ = read_run(run)
    split = record["split"]
    page = Page(
        title=f"{record['options']['arch']}, {record['stream']} stream",
        subtitle=(
            f"{split['num_train']} sequences for training, {split['num_val']} of other subjects for"
            f" the test ({split['kind']})"
        ),
    )
    if split["kind"] == "original-random":
        page.subtitle = (
            f"{split['num_train']} sequences for training, {split['num_val']} for the test"
            " (original-random)"
        )
        page.notices.append(
            "The split shares subjects between training and test: the accuracy is not accuracy on"
            " new people."
        )
    opened = open_fitting(dataset or Path(record["dataset"]["path"]), record, page)
    try:
        test = run / "test"
        if opened is not None and not (test / TEST_NAME).is_file():
            evaluate_runs([run], opened.path, out=test)
        add_training(page, run)
        if (test / TEST_NAME).is_file():
            report = json.loads((test / TEST_NAME).read_text(encoding="utf-8"))
            add_metrics(page, {name: report[name] for name in TITLES if name in report}, report)
            page.figures += [
                (TITLES[name], png_address(test / f"confusion-{name}.png"))
                for name in TITLES
                if name in report
            ]
            add_predictions(page, [test / PREDICTIONS_NAME], report["classes"], opened)
    finally:
        if opened is not None:
            opened.close()
    add_settings(page, record)
    return page


def cv_page(out: Path, dataset: Path | None) -> Page:
    """Collect the page of a cross-validation."""
    summary = json.loads((out / SUMMARY_NAME).read_text(encoding="utf-8"))
    series = summary["series"]
    page = Page(
        title="Cross-validation",
        subtitle=(
            "predictions of all folds pooled; each sequence is tested by a net of its own fold"
        ),
    )
    rows = []
    for entry in series:
        pooled, name = entry["pooled"], f"{entry['stream']}, {entry['split']}"
        rows.append([name, str(len(entry["folds"])), *metric_cells(pooled), mean_cell(entry)])
        folder = out / f"{entry['stream']}-{entry['split']}"
        page.figures.append((name, png_address(folder / "confusion.png")))
    page.table = (
        [
            "stream, split",
            "folds",
            "accuracy",
            "95 % interval",
            "UAR",
            "macro-F1",
            "mean ± sd of folds",
        ],
        rows,
    )
    honest = [entry for entry in series if entry["split"] == "subject-kfold"] or series
    best = max(honest, key=lambda entry: (entry["stream"] == "fused", entry["pooled"]["accuracy"]))
    add_cards(page, best["pooled"], remark=f"{best['stream']}, {best['split']}")
    for leak in summary["leak"]:
        points = 100 * leak["accuracy_difference"]
        page.notices.append(
            f"Leak, {leak['stream']}: the original's random split scores {points:+.1f} points"
            " against subject folds."
        )
    add_classes(page, best["pooled"])
    stream = best["stream"] if best["stream"] != "fused" else "flow"
    folds = [out / f"{stream}-{best['split']}" / f"fold-{fold:02d}" for fold in best["folds"]]
    record, _ = read_run(folds[0])
    opened = open_fitting(dataset or Path(record["dataset"]["path"]), record, page)
    try:
        add_predictions(
            page, [fold / "test" / PREDICTIONS_NAME for fold in folds], summary["classes"], opened
        )
    finally:
        if opened is not None:
            opened.close()
    add_training(page, folds[0])
    add_settings(page, record)
    return page


def open_fitting(path: Path, record: dict[str, Any], page: Page) -> Dataset | None:
    """Open the dataset of a run, or note on the page why there are no pictures."""
    try:
        opened = open_dataset(path)
    except DatasetError as error:
        page.notices.append(f"No pictures: {str(error).splitlines()[0]}. Pass --dataset.")
        return None
    if manifest_sha256(path) != record["dataset"]["manifest_sha256"]:
        opened.close()
        page.notices.append(
            f"No pictures: {path} is not the dataset that this was trained on. Pass --dataset."
        )
        return None
    return opened


def add_training(page: Page, run: Path) -> None:
    """Add the curves, and what the data cost."""
    curves = run / FIGURES_NAME / "curves.png"
    if curves.is_file():
        page.figures.insert(0, (f"Training of {run.name}", png_address(curves)))
    rows = read_metrics(run, keep=lambda row: row["kind"] == "epoch")
    if not rows:
        return
    waits = [row["data_wait_pct"] for row in rows]
    speed = sum(row["samples_per_s"] for row in rows) / len(rows)
    alone = sum(row["compute_samples_per_s"] for row in rows) / len(rows)
    wait = sum(waits) / len(waits)
    bound = (
        "compute"
        if wait < FREE_PCT
        else "data"
        if wait >= DATA_BOUND_PCT
        else "compute, with a small stall"
    )
    page.throughput = [
        f"{speed:.1f} samples/s on average over {len(rows)} epochs, {alone:.1f} if data were free.",
        (
            f"Data wait: {wait:.2f} % on average, {max(waits):.2f} % in the worst epoch. The run is"
            f" bound by {bound}."
        ),
    ]
    page.cards.append(("data wait", f"{wait:.2f} %", f"{speed:.1f} samples/s"))


def add_metrics(page: Page, results: dict[str, Any], report: dict[str, Any]) -> None:
    """Add the results table, the cards and the classes of a test."""
    decision = "fused" if "fused" in results else next(iter(results))
    page.table = (
        ["stream", "accuracy", "95 % interval", "UAR", "macro-F1"],
        [[name, *metric_cells(metrics)] for name, metrics in results.items()],
    )
    add_cards(
        page,
        results[decision],
        remark=f"{report['num_sequences']} sequences, {report['num_subjects']} subjects",
    )
    if report["checkpoint"] == "best":
        page.notices.append(
            "best.pt was chosen on the tested sequences: the accuracy is optimistic."
        )
    add_classes(page, results[decision])


def metric_cells(metrics: dict[str, Any]) -> list[str]:
    """Return accuracy, interval, UAR and macro-F1 as text."""
    low, high = metrics["interval"]
    return [
        f"{100 * metrics['accuracy']:.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * metrics['uar']:.1f} %",
        f"{metrics['macro_f1']:.3f}",
    ]


def mean_cell(entry: dict[str, Any]) -> str:
    """Return mean and deviation of the folds as text."""
    return f"{100 * entry['mean_accuracy']:.1f} ± {100 * entry['sd_accuracy']:.1f} %"


def add_cards(page: Page, metrics: dict[str, Any], *, remark: str) -> None:
    """Add the headline numbers."""
    accuracy, interval, uar, f1 = metric_cells(metrics)
    page.cards[:0] = [
        ("accuracy", accuracy, f"95 %: {interval}"),
        ("UAR", uar, f"macro-F1 {f1}"),
        ("tested", str(metrics["num_sequences"]), remark),
    ]


def add_classes(page: Page, metrics: dict[str, Any]) -> None:
    """Add the per-class table."""
    page.classes = [
        [
            entry["name"],
            f"{entry['precision']:.2f}",
            f"{entry['recall']:.2f}",
            f"{entry['f1']:.2f}",
            str(entry["support"]),
        ]
        for entry in metrics["per_class"]
    ]


def add_predictions(
    page: Page, files: Sequence[Path], class_names: Sequence[str], dataset: Dataset | None
) -> None:
    """Add per-subject results and the most confident mistakes with their pictures."""
    rows = [
        json.loads(line)
        for file in files
        if file.is_file()
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    counts: dict[str, list[int]] = {}
    for row in rows:
        right_and_all = counts.setdefault(row["subject"], [0, 0])
        right_and_all[0] += row["predicted"] == row["emotion"]
        right_and_all[1] += 1
    page.subjects = [(subject, right, num) for subject, (right, num) in sorted(counts.items())]
    wrong = []
    for row in rows:
        probs = row["probs"].get("fused") or next(iter(row["probs"].values()))
        if row["predicted"] != row["emotion"]:
            wrong.append((max(probs) - probs[row["label"]], row, probs))
    wrong.sort(key=lambda entry: (-entry[0], entry[1]["key"]))
    for _, row, probs in wrong[:NUM_MISTAKES]:
        bars = [(name, round(100 * p, 1)) for name, p in zip(class_names, probs, strict=True)]
        pictures = pictures_of(dataset, row["key"]) if dataset is not None else []
        page.mistakes.append(
            {
                "key": row["key"],
                "true": row["emotion"],
                "predicted": row["predicted"],
                "bars": bars,
                "pictures": pictures,
            }
        )


def add_settings(page: Page, record: dict[str, Any]) -> None:
    """Add the exact configuration and the command that repeats it."""
    versions = ", ".join(
        f"{name} {version}" for name, version in record["versions"].items() if version
    )
    page.settings = [
        *((name, str(value)) for name, value in record["options"].items()),
        ("precision used", record["precision"]),
        ("hardware", f"{record['device_name']}, {record['world_size']} rank(s)"),
        (
            "dataset",
            f"{record['dataset']['path']}, manifest {record['dataset']['manifest_sha256'][:16]}",
        ),
        ("split sha256", record["split"]["sha256"][:16]),
        ("git revision", str(record["git_revision"])),
        ("versions", versions),
    ]
    page.commands = [record["command"]]
