"""The page of a report: what its template shows, from the files of a run."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from models.fusion import deciding
from pipelines.dataset import Dataset
from shard_builder.errors import InputError, counted
from shard_builder.format.decoding import decode_item
from shard_builder.format.manifest import MOST_CLASSES
from shard_builder.format.streams import item_shape
from shard_builder.images import Image
from shard_builder.inspection.flow_picture import flow_to_rgb
from shard_builder.inspection.page import jpeg_address, png_address
from shard_builder.untrusted.records import read_lines
from shard_builder.untrusted.text import clean
from train.evaluation.statistics import ClassMetrics, Metrics, Share
from train.evaluation.table_cells import metric_cells
from train.figures import draw_curves, png_of
from train.prediction.explain import check_explainable, overlays
from train.prediction.stream_model import center_windows, load_stream_model
from train.running.run_folder import RunRecord, read_metrics, torn_notice
from train.running.stall import bound_by

NUM_MISTAKES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A line of a test's predictions.jsonl: what the nets say of one sequence."""

    key: str
    subject: str
    label: Annotated[int, Meta(ge=0, lt=MOST_CLASSES)]
    emotion: str
    predicted: str
    probs: Annotated[Mapping[str, tuple[Share, ...]], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if self.label >= len(self.decision):
            raise ValueError(f"label {self.label} of {len(self.decision)} probabilities")

    @property
    def decision(self) -> tuple[float, ...]:
        """The probabilities that decide."""
        return deciding(self.probs)

    @property
    def is_right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.emotion

    @property
    def margin(self) -> float:
        """How much likelier the likeliest class seemed than the true one."""
        return max(self.decision) - self.decision[self.label]


def read_answers(path: Path) -> list[Answer]:
    """Read the predictions.jsonl of a test.

    Raises:
        InputError: If a line is not as it should be; the message names file, line and field.
    """
    return read_lines(path, Answer)


@dataclass(slots=True, kw_only=True)
class Page:
    """What the template shows; every part but the title may be empty.

    Args:
        title: Heading.
        subtitle: What was trained on what.
        notices: What a reader must know before believing the numbers.
        cards: (name, value, remark) at the top.
        columns: Header of the results table.
        rows: Its rows.
        figures: (caption, data address of a PNG).
        classes: Metrics of each class.
        subjects: Rows of subject, right, sequences.
        mistakes: The most confident wrong predictions.
        throughput: Sentences about speed and data wait.
        settings: Options as (name, value).
        command: How to reproduce it.
    """

    title: str
    subtitle: str
    notices: list[str] = field(default_factory=list)
    cards: list[tuple[str, str, str]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    classes: Sequence[ClassMetrics] = ()
    subjects: list[tuple[str, int, int]] = field(default_factory=list)
    mistakes: list[dict[str, Any]] = field(default_factory=list)
    throughput: list[str] = field(default_factory=list)
    settings: list[tuple[str, str]] = field(default_factory=list)
    command: str = ""

    def add_training(self, run: Path) -> None:
        """Add the curves of a run, and what the data cost."""
        if notice := torn_notice(run):
            self.notices.append(notice)
        rows = read_metrics(run, keep=lambda row: row["kind"] == "epoch")
        if not rows:
            return
        title = f"Training of {run.name}"
        self.figures.insert(0, (title, png_address(png_of(draw_curves(rows, title=title)))))
        wait, speed, alone = (
            statistics.fmean(row[name] for row in rows)
            for name in ("data_wait_pct", "samples_per_s", "compute_samples_per_s")
        )
        worst = max(row["data_wait_pct"] for row in rows)
        between, start = (
            sum(row.get(name, 0.0) for row in rows) for name in ("between_s", "start_s")
        )
        self.throughput = [
            f"{speed:.1f} samples/s on average over {counted(len(rows), 'epoch')}, {alone:.1f} if"
            " data were free.",
            f"Data wait: {wait:.2f} % on average, {worst:.2f} % in the worst epoch."
            f" The run is bound by {bound_by(wait)}.",
            f"Until the first batch: {start:.1f} s; between epochs (validation, checkpoints):"
            f" {between:.1f} s in all; in none of these figures.",
        ]
        self.cards.append(("data wait", f"{wait:.2f} %", f"{speed:.1f} samples/s"))

    def add_metrics(self, metrics: Metrics, *, remark: str) -> None:
        """Add the headline numbers, first of all cards, and the table of classes."""
        accuracy, interval, uar, f1 = metric_cells(metrics)
        self.cards[:0] = [
            ("accuracy", accuracy, f"95 %: {interval}"),
            ("UAR", uar, f"macro-F1 {f1}"),
            ("tested", str(metrics.num_sequences), remark),
        ]
        self.classes = metrics.per_class

    def add_predictions(
        self, files: Iterable[Path], class_names: Sequence[str], dataset: Dataset | None
    ) -> None:
        """Add results by subject, and the most confident mistakes with their pictures."""
        rows = [row for file in files if os.path.lexists(file) for row in read_answers(file)]
        right: dict[str, list[bool]] = {}
        for row in rows:
            right.setdefault(row.subject, []).append(row.is_right)
        self.subjects += [(name, sum(right[name]), len(right[name])) for name in sorted(right)]
        wrong = [row for row in rows if not row.is_right]
        wrong.sort(key=lambda row: (-row.margin, row.key))
        for row in wrong[:NUM_MISTAKES]:
            if len(row.decision) != len(class_names):
                raise InputError(
                    f"{clean(row.key)}: {len(row.decision)} probabilities, expected"
                    f" {len(class_names)}"
                )
            percent = (round(100 * p, 1) for p in row.decision)
            self.mistakes.append(
                {
                    "key": row.key,
                    "true": row.emotion,
                    "predicted": row.predicted,
                    "bars": list(zip(class_names, percent, strict=True)),
                    "pictures": pictures_of(dataset, row.key) if dataset is not None else [],
                    "explained": [],
                }
            )

    def explain_mistakes(
        self,
        runs: Sequence[Path],
        checkpoint: str,
        class_names: Sequence[str],
        dataset: Dataset | None,
    ) -> None:
        """Show what spoke for the wrong class, and for the true one, in the nets of some runs.

        Where that cannot be, the page says why.
        """
        if dataset is None:
            return
        names = set(class_names)
        try:
            check_explainable([])
            models = [load_stream_model(run, checkpoint=checkpoint, device="cpu") for run in runs]
            keys = {key for model in models for key in (*model.val_keys, *model.test_keys)}
            mistakes = [
                mistake
                for mistake in self.mistakes
                if mistake["key"] in keys and {mistake["true"], mistake["predicted"]} <= names
            ]
            for model in models if mistakes else ():
                images = center_windows(dataset, model, [mistake["key"] for mistake in mistakes])
                for kind in ("predicted", "true"):
                    labels = [class_names.index(mistake[kind]) for mistake in mistakes]
                    pictures = overlays(model, images, labels)
                    for mistake, picture in zip(mistakes, pictures, strict=True):
                        caption = f"{model.stream}: for {mistake[kind]} ({kind})"
                        mistake["explained"].append((caption, jpeg_address(picture)))
        except InputError as error:
            notice = f"No Grad-CAM: {' '.join(str(error).split())}"
            if notice not in self.notices:
                self.notices.append(notice)

    def add_settings(self, record: RunRecord) -> None:
        """Add the exact configuration and the command that repeats it, from config.json."""
        self.settings = settings_of(record)
        self.command = record.command


def settings_of(record: RunRecord) -> list[tuple[str, str]]:
    """Return the options of a run and its circumstances as (name, value)."""
    dataset, versions = record.dataset, record.versions
    return [
        *((name, str(value)) for name, value in record.options.to_record().items()),
        ("precision used", record.precision),
        ("hardware", f"{record.device_name}, {record.world_size} rank(s)"),
        ("dataset", f"{dataset.path}, manifest {dataset.manifest_sha256[:16]}"),
        ("split sha256", record.split.sha256[:16]),
        ("git revision", str(record.git_revision)),
        ("versions", ", ".join(f"{name} {v}" for name, v in versions.items() if v)),
    ]


def pictures_of(dataset: Dataset, key: str) -> list[tuple[str, str]]:
    """Return the apex and the flow half-way through a sequence: captions and data addresses.

    A stream whose members hold a whole sequence each, codec raw, has none.
    """
    row = int(dataset.rows_of([key])[0])
    pictures: list[tuple[str, Image]] = []
    streams, flow = dataset.manifest.streams, dataset.manifest.flow
    if "rgb" in streams and streams["rgb"].codec != "raw":
        apex = _decode_member(dataset, "rgb", row, int(dataset.num_usable("rgb")[row]) - 1)
        pictures += [] if apex is None else [("apex", apex)]
    if "flow" in streams and flow is not None and streams["flow"].codec != "raw":
        levels = _decode_member(dataset, "flow", row, int(dataset.num_pairs[row]) // 2)
        if levels is not None:
            picture, full_px = flow_to_rgb(levels, bound_px=flow.bound_px)
            pictures.append((f"flow half-way, bright: {full_px:.2g} px a frame", picture))
    return [(caption, jpeg_address(picture)) for caption, picture in pictures]


def _decode_member(dataset: Dataset, stream: str, row: int, number: int) -> Image | None:
    geometry, data = dataset.manifest.geometry, dataset.read_member(stream, row, number)
    shape = item_shape(stream, geometry.height, geometry.width)
    try:
        return decode_item(data, codec=dataset.stream(stream).codec, shape=shape)
    except ValueError:  # a page without it is better than none
        return None
