"""What the folds of a cross-validation say together: pooled, both streams fused, and the leak."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.fusion import DEFAULT_WEIGHTS, late_fusion
from shard_builder.errors import InputError
from shard_builder.files import folder_inside, write_json
from shard_builder.lock import lock_path, locked, read_holder
from train.evaluation.confusion import write_confusion_figure
from train.evaluation.cv_options import CV_SPLITS, CvSplit
from train.evaluation.cv_proof import FoldResult, read_result
from train.evaluation.cv_protocol import WAIT_S, Protocol, find_protocols, fold_dir, same_folds
from train.evaluation.scores import SequenceScores
from train.evaluation.statistics import Metrics, compute_metrics

SUMMARY_NAME = "cv.json"
SUMMARY_FORMAT = "ckshard-cv"
SUMMARY_VERSION = 3
ResultName = Literal["rgb", "flow", "fused"]
STREAMS = ("rgb", "flow")
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
    folds: tuple[int, ...]
    fold_accuracies: tuple[float, ...]
    fold_sizes: tuple[int, ...]
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
class MissingFold:
    """A fold that was to be run and has no result, and why."""

    stream: str
    split: CvSplit
    fold: int
    reason: str

    def __str__(self) -> str:
        return f"{self.stream}, {self.split}, fold {self.fold}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CvSummary:
    """Everything a cross-validation folder holds so far.

    Args:
        class_names: Names in label order; empty if no fold is finished.
        series: What is finished.
        missing: What is not.
        notices: What could not be done with it.
    """

    class_names: tuple[str, ...]
    series: tuple[Series, ...]
    missing: tuple[MissingFold, ...]
    notices: tuple[str, ...]

    def num_folds(self, entry: Series) -> int:
        """Return how many folds a series has when all are finished."""
        streams = STREAMS if entry.stream == "fused" else (entry.stream,)
        missing = {m.fold for m in self.missing if m.split == entry.split and m.stream in streams}
        return len({*entry.folds, *missing})

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
            "missing": [asdict(entry) for entry in self.missing],
            "notices": list(self.notices),
            "leak": [
                {"stream": stream, "accuracy_difference": difference}
                for stream, difference in self.leaks()
            ],
        }


def summarize(out: Path, *, take_over: bool = False) -> CvSummary:
    """Pool what is finished; write ``cv.json``, and a confusion figure for each series.

    Args:
        out: The cross-validation folder.
        take_over: See :func:`shard_builder.lock.locked`.
    """
    with locked(out / SUMMARY_NAME, take_over=take_over, wait_s=WAIT_S):
        summary = read_folds(out)
        for entry in summary.series:
            folder = folder_inside(out, f"{entry.stream}-{entry.split}", make=True)
            write_confusion_figure(folder / "confusion.png", entry.pooled, title=title_of(entry))
        write_json(out / SUMMARY_NAME, summary.to_record())
        return summary


def title_of(entry: Series) -> str:
    """Return the title of a series' confusion figure."""
    num_folds = len(entry.folds)
    return f"{entry.stream}, {entry.split}: {num_folds} fold{'s' * (num_folds > 1)} pooled"


def read_folds(out: Path) -> CvSummary:
    """Pool the folds that are proven to belong to the cross-validation; nothing is written.

    Args:
        out: The cross-validation folder.

    Raises:
        InputError: If a protocol in it is not as it should be.
    """
    series, notices, missing = list[Series](), list[str](), list[MissingFold]()
    names: tuple[str, ...] = ()
    protocols = find_protocols(out)
    for split in CV_SPLITS:
        own = {entry.stream: entry for entry in protocols if entry.split == split}
        by_stream: dict[ResultName, Folds] = {}
        for stream in sorted(own, reverse=True):  # rgb first
            finished, rest = results_of(out, own[stream])
            missing += rest
            if finished:
                by_stream[stream] = {fold: result.scores for fold, result in finished.items()}
                names = next(iter(finished.values())).class_names
        if len(by_stream) == 2 and not same_folds(own["rgb"], own["flow"]):
            notices.append(
                f"{split}: rgb and flow are not fused: their datasets, folds or views differ"
            )
        elif len(by_stream) == 2:
            by_stream["fused"] = fuse_folds(by_stream["rgb"], by_stream["flow"])
        series += [
            pool(stream, split, folds, names) for stream, folds in by_stream.items() if folds
        ]
    return CvSummary(
        class_names=names, series=tuple(series), missing=tuple(missing), notices=tuple(notices)
    )


def results_of(out: Path, protocol: Protocol) -> tuple[dict[int, FoldResult], list[MissingFold]]:
    """Return the results of a protocol's folds, and the folds that have none."""
    finished, missing = dict[int, FoldResult](), list[MissingFold]()
    stream, split = protocol.stream, protocol.split
    for fold in protocol.folds:
        folder = fold_dir(out, stream, split, fold)
        result = read_result(folder, protocol, fold)
        if isinstance(result, FoldResult):
            finished[fold] = result
        else:
            holder = read_holder(lock_path(folder))
            if holder is not None and not holder.is_gone:
                result = f"{result}, {holder} is at it"
            missing.append(MissingFold(stream=stream, split=split, fold=fold, reason=result))
    return finished, missing


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
