"""What the folds of a cross-validation say together: pooled metrics, mean and deviation, both
streams fused, and the leak.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from models.fusion import DEFAULT_WEIGHTS, late_fusion
from shard_builder.errors import InputError
from shard_builder.files import write_atomically
from train.evaluation.confusion import write_confusion_figure
from train.evaluation.scores import SCORES_NAME, read_scores
from train.evaluation.statistics import Metrics, compute_metrics

SUMMARY_NAME = "cv.json"
SUMMARY_FORMAT = "ckshard-cv"
SUMMARY_VERSION = 1
CvSplit = Literal["subject-kfold", "original-random"]
CV_SPLITS: tuple[CvSplit, ...] = get_args(CvSplit)
STREAM_ORDER = ("rgb", "flow", "fused")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldScores:
    """The tested sequences of one fold, sorted by key.

    Args:
        fold: Number of the fold, from 0.
        keys: The sequences.
        subjects: Whose face each shows.
        labels: True classes, ``int64`` (n,).
        probs: Probabilities (n, classes).
    """

    fold: int
    keys: tuple[str, ...]
    subjects: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    probs: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All finished folds of one stream under one way of splitting.

    Args:
        stream: ``rgb``, ``flow`` or ``fused``.
        split: ``subject-kfold`` or ``original-random``.
        folds: Numbers of the folds that are in.
        fold_accuracies: Accuracy of each of them.
        fold_sizes: Tested sequences of each.
        pooled: Metrics over the predictions of all folds together; a fold may lack a class, so
            recalls are not averaged over folds.
    """

    stream: str
    split: str
    folds: tuple[int, ...]
    fold_accuracies: tuple[float, ...]
    fold_sizes: tuple[int, ...]
    pooled: Metrics

    @property
    def mean_accuracy(self) -> float:
        """Mean of the folds' accuracies."""
        return math.fsum(self.fold_accuracies) / len(self.fold_accuracies)

    @property
    def sd_accuracy(self) -> float:
        """Standard deviation of the folds' accuracies (n - 1); 0 for a single fold."""
        count = len(self.fold_accuracies)
        spread = math.fsum(
            (accuracy - self.mean_accuracy) ** 2 for accuracy in self.fold_accuracies
        )
        return math.sqrt(spread / (count - 1)) if count > 1 else 0.0


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

    def leaks(self) -> list[tuple[str, float]]:
        """List (stream, pooled accuracy of the original's random split minus that of subject folds)
        where both were run.
        """
        found = []
        for stream in STREAM_ORDER:
            honest, leaky = (self.find(stream, split) for split in CV_SPLITS)
            if honest and leaky:
                found.append((stream, leaky.pooled.accuracy - honest.pooled.accuracy))
        return found

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


def series_dir(out: Path, stream: str, split: str) -> Path:
    """Return the folder of a stream's folds under one way of splitting."""
    return out / f"{stream}-{split}"


def fold_dir(out: Path, stream: str, split: str, fold: int) -> Path:
    """Return the run folder of a fold."""
    return series_dir(out, stream, split) / f"fold-{fold:02d}"


def read_fold(folder: Path, fold: int) -> tuple[FoldScores, tuple[str, ...]]:
    """Read the sequence rows of a fold's ``scores.parquet``.

    Returns:
        The scores and the class names.

    Raises:
        InputError: If the file is not a scores table.
    """
    table, names = read_scores(folder / "test" / SCORES_NAME)
    rows = sorted(
        (row for row in table.to_pylist() if row["view"] is None), key=lambda row: str(row["key"])
    )
    if not rows:
        raise InputError(
            f"{folder / 'test' / SCORES_NAME}: has no sequence\n  Remove the fold and run it again."
        )
    scores = FoldScores(
        fold=fold,
        keys=tuple(row["key"] for row in rows),
        subjects=tuple(row["subject"] for row in rows),
        labels=np.array([row["label"] for row in rows], np.int64),
        probs=np.array([row["probs"] for row in rows], np.float64),
    )
    return scores, names


def summarize(out: Path, *, num_folds: int) -> CvSummary | None:
    """Pool what is finished in a cross-validation folder, and write ``cv.json`` and a confusion
    figure a series.

    Args:
        out: The cross-validation folder.
        num_folds: How many folds there are to look for.

    Returns:
        The summary; None if no fold has finished.
    """
    series: list[Series] = []
    names: tuple[str, ...] = ()
    for split in CV_SPLITS:
        by_stream: dict[str, list[FoldScores]] = {}
        for stream in ("rgb", "flow"):
            for fold in range(num_folds):
                folder = fold_dir(out, stream, split, fold)
                if is_finished(folder):
                    scores, names = read_fold(folder, fold)
                    by_stream.setdefault(stream, []).append(scores)
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
    write_atomically(
        out / SUMMARY_NAME, (json.dumps(summary.to_record(), indent=1) + "\n").encode()
    )
    return summary


def is_finished(folder: Path) -> bool:
    """Tell whether a fold was trained and tested: ``test.json`` is written last."""
    return (folder / "test" / "test.json").is_file()


def fuse_folds(rgb: Sequence[FoldScores], flow: Sequence[FoldScores]) -> list[FoldScores]:
    """Fuse the folds that both streams have finished, at the default weights: no searched number
    touches the tested sequences.

    Raises:
        InputError: If a fold's streams tested other sequences.
    """
    flow_by_fold = {entry.fold: entry for entry in flow}
    fused = []
    for entry in rgb:
        other = flow_by_fold.get(entry.fold)
        if other is None:
            continue
        if entry.keys != other.keys:
            raise InputError(
                f"fold {entry.fold}: rgb and flow tested other sequences, expected one dataset and"
                " one split"
            )
        probs = late_fusion(rgb=entry.probs, flow=other.probs, weights=DEFAULT_WEIGHTS)
        fused.append(
            FoldScores(
                fold=entry.fold,
                keys=entry.keys,
                subjects=entry.subjects,
                labels=entry.labels,
                probs=probs,
            )
        )
    return fused


def pool(
    stream: str, split: str, folds: Sequence[FoldScores], class_names: Sequence[str]
) -> Series:
    """Compute a series from its folds."""
    correct = [entry.probs.argmax(axis=1) == entry.labels for entry in folds]
    return Series(
        stream=stream,
        split=split,
        folds=tuple(entry.fold for entry in folds),
        fold_accuracies=tuple(float(right.mean()) for right in correct),
        fold_sizes=tuple(len(right) for right in correct),
        pooled=compute_metrics(
            np.concatenate([entry.labels for entry in folds]),
            np.concatenate([entry.probs.argmax(axis=1) for entry in folds]),
            subjects=[subject for entry in folds for subject in entry.subjects],
            class_names=class_names,
        ),
    )
