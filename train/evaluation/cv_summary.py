"""What the folds of a cross-validation say together: pooled, both streams fused, and the leak."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from models.fusion import DEFAULT_WEIGHTS, late_fusion
from shard_builder.errors import InputError
from shard_builder.files import folder_inside, is_regular, read_regular, write_json
from shard_builder.format.manifest import MOST_CLASSES
from shard_builder.format.streams import STREAMS
from shard_builder.untrusted.records import MOST_BYTES, Count, check_version, parse_record
from train.evaluation.confusion import write_confusion_figure
from train.evaluation.cv_options import CV_SPLITS, CvSplit
from train.evaluation.scores import SCORES_NAME, SequenceScores, read_sequences
from train.evaluation.statistics import Metrics, Share, compute_metrics
from train.evaluation.stored_test import TEST_NAME

SUMMARY_NAME = "cv.json"
SUMMARY_FORMAT = "ckshard-cv"
SUMMARY_VERSION = 1
ResultName = Literal["rgb", "flow", "fused"]
STREAM_ORDER: tuple[ResultName, ...] = ("rgb", "flow", "fused")
Folds = dict[int, SequenceScores]
"""A stream's finished folds by their numbers, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All finished folds of one stream under one way of splitting.

    Args:
        stream: ``rgb``, ``flow`` or ``fused``.
        split: ``subject-kfold``, ``original-random`` or ``fold``.
        folds: Numbers of the folds that are in.
        fold_accuracies: Accuracy of each of them.
        fold_sizes: Tested sequences of each.
        pooled: Metrics over the predictions of all folds together; a fold may lack a class, so
            recalls are not averaged over folds.
    """

    stream: ResultName
    split: CvSplit
    folds: Annotated[tuple[Annotated[int, Meta(ge=0, lt=1 << 20)], ...], Meta(min_length=1)]
    fold_accuracies: Annotated[tuple[Share, ...], Meta(min_length=1)]
    fold_sizes: tuple[Count, ...]
    pooled: Metrics

    @property
    def mean_accuracy(self) -> float:
        """Mean of the folds' accuracies."""
        return statistics.fmean(self.fold_accuracies)

    @property
    def sd_accuracy(self) -> float:
        """Standard deviation of the folds' accuracies (n - 1); 0 for a single fold."""
        return statistics.stdev(self.fold_accuracies) if len(self.fold_accuracies) > 1 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CvSummary:
    """Everything a cross-validation folder holds so far."""

    class_names: tuple[str, ...]
    series: tuple[Series, ...]

    def find(self, stream: str, split: str) -> Series | None:
        """Return a series, if it has finished folds."""
        return next(
            (entry for entry in self.series if (entry.stream, entry.split) == (stream, split)), None
        )

    def leaks(self) -> list[tuple[ResultName, float]]:
        """List, by stream, how much more accurate the original's random split seems.

        That is its pooled accuracy minus that of subject folds, where both were run.
        """
        differences = []
        for stream in STREAM_ORDER:
            honest, leaky = (
                self.find(stream, split) for split in ("subject-kfold", "original-random")
            )
            if honest and leaky:
                differences.append((stream, leaky.pooled.accuracy - honest.pooled.accuracy))
        return differences

    def to_record(self) -> dict[str, Any]:
        """Return the content of ``cv.json``."""
        return {
            "format": SUMMARY_FORMAT,
            "version": SUMMARY_VERSION,
            "classes": list(self.class_names),
            "series": [
                asdict(entry)
                | {"mean_accuracy": entry.mean_accuracy, "sd_accuracy": entry.sd_accuracy}
                for entry in self.series
            ],
            "leak": [
                {"stream": stream, "accuracy_difference": difference}
                for stream, difference in self.leaks()
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _SummaryRecord:
    classes: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MOST_CLASSES)]
    series: Annotated[tuple[Series, ...], Meta(min_length=1)]


def read_summary(out: Path) -> CvSummary:
    """Read the ``cv.json`` of a cross-validation folder.

    Raises:
        InputError: If it is none, or a field is not as it should be; the message names it.
    """
    path = out / SUMMARY_NAME
    data, place = read_regular(path, most_bytes=MOST_BYTES), str(path)
    what = "cross-validation of cktrain"
    check_version(data, format=SUMMARY_FORMAT, versions=(SUMMARY_VERSION,), place=place, what=what)
    record = parse_record(data, _SummaryRecord, place=place)
    return CvSummary(class_names=record.classes, series=record.series)


def series_dir(out: Path, stream: str, split: str) -> Path:
    """Return the folder of a stream's folds under one way of splitting.

    Raises:
        InputError: If it is a link.
    """
    return folder_inside(out, f"{stream}-{split}")


def fold_dir(out: Path, stream: str, split: str, fold: int) -> Path:
    """Return the run folder of a fold.

    Raises:
        InputError: If a folder on the way to it, or it itself, is a link.
    """
    return folder_inside(out, f"{stream}-{split}", f"fold-{fold:02d}")


def is_finished(folder: Path) -> bool:
    """Tell whether a fold was trained and tested: ``test.json`` is written last."""
    return is_regular(folder_inside(folder, "test") / TEST_NAME)


def read_fold(folder: Path, stream: str) -> tuple[SequenceScores, tuple[str, ...]]:
    """Read what a fold's test says of its sequences, and the class names.

    Raises:
        InputError: If it is not a test of this stream.
    """
    path = folder_inside(folder, "test") / SCORES_NAME
    streams, names = read_sequences(path)
    if stream not in streams:
        raise InputError(f"{path}: has no {stream} sequence\n  Remove the fold and run it again.")
    return streams[stream], names


def summarize(out: Path, *, num_folds: int) -> CvSummary | None:
    """Pool what is finished; write ``cv.json``, and a confusion figure for each series.

    Args:
        out: The cross-validation folder.
        num_folds: How many folds there are to look for; official ones are those that are there.

    Returns:
        The summary; None if no fold has finished.
    """
    series: list[Series] = []
    names: tuple[str, ...] = ()
    for split in CV_SPLITS:
        by_stream: dict[ResultName, Folds] = {}
        for stream in STREAMS:
            for fold in _folds_to_look_for(out, stream, split, num_folds):
                folder = fold_dir(out, stream, split, fold)
                if is_finished(folder):
                    scores, names = read_fold(folder, stream)
                    by_stream.setdefault(stream, {})[fold] = scores
        if len(by_stream) == 2:
            by_stream["fused"] = fuse_folds(by_stream["rgb"], by_stream["flow"])
        series += [
            pool(stream, split, folds, names) for stream, folds in by_stream.items() if folds
        ]
    if not series:
        return None
    summary = CvSummary(class_names=names, series=tuple(series))
    for entry in series:
        folder = series_dir(out, entry.stream, entry.split)
        folder.mkdir(exist_ok=True)
        title = f"{entry.stream}, {entry.split}: {len(entry.folds)} folds pooled"
        write_confusion_figure(folder / "confusion.png", entry.pooled, title=title)
    write_json(out / SUMMARY_NAME, summary.to_record())
    return summary


def _folds_to_look_for(out: Path, stream: str, split: str, num_folds: int) -> list[int]:
    if split != "fold":
        return list(range(num_folds))
    names = (re.fullmatch(r"fold-(\d+)", p.name) for p in series_dir(out, stream, split).glob("*"))
    return sorted(int(name[1]) for name in names if name)


def fuse_folds(rgb: Folds, flow: Folds) -> Folds:
    """Fuse the folds that both streams have finished.

    The weights are the default: no searched number touches the tested sequences.

    Raises:
        InputError: If a fold's streams tested other sequences.
    """
    fused = {}
    for fold in sorted(rgb.keys() & flow.keys()):
        one, other = rgb[fold], flow[fold]
        if one.keys != other.keys:
            raise InputError(
                f"fold {fold}: rgb and flow tested other sequences,"
                " expected one dataset and one split"
            )
        probs = late_fusion(rgb=one.probs, flow=other.probs, weights=DEFAULT_WEIGHTS)
        fused[fold] = replace(one, probs=probs)
    return fused


def pool(stream: ResultName, split: CvSplit, folds: Folds, class_names: Sequence[str]) -> Series:
    """Compute a series from its folds."""
    labels = [entry.labels for entry in folds.values()]
    predicted = [entry.probs.argmax(axis=1) for entry in folds.values()]
    correct = [guess == true for guess, true in zip(predicted, labels, strict=True)]
    return Series(
        stream=stream,
        split=split,
        folds=tuple(folds),
        fold_accuracies=tuple(float(right.mean()) for right in correct),
        fold_sizes=tuple(len(right) for right in correct),
        pooled=compute_metrics(
            np.concatenate(labels),
            np.concatenate(predicted),
            subjects=[subject for entry in folds.values() for subject in entry.subjects],
            class_names=class_names,
        ),
    )
