"""What predictions are worth: accuracy, UAR, macro-F1, intervals, and McNemar's test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from shard_builder.untrusted.records import Count

Share = Annotated[float, Meta(ge=0, le=1)]
Labels = npt.NDArray[np.int64]
Z_95 = 1.959963984540054
"""Quantile of the normal distribution for a two-sided 95 % interval."""
NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetrics:
    """One class: precision, recall and F1, 0..1, and ``support``: sequences that truly have it.

    None is what would divide by nothing: precision of a class that is never predicted, recall of
    one that never occurs, F1 of one that neither is nor does. In a ``test.json`` of version 3 they
    are 0.
    """

    name: str
    precision: Share | None
    recall: Share | None
    f1: Share | None
    support: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """All that is reported of one classifier on one set of sequences.

    Args:
        accuracy: Fraction of sequences classified correctly (weighted average recall).
        interval: 95 % Wilson interval of the accuracy; it takes the sequences as independent.
        subject_interval: 95 % bootstrap interval of the accuracy, resampling whole subjects.
        uar: Unweighted average recall over the classes that occur.
        uar_interval: 95 % bootstrap interval of the UAR, resampling whole subjects.
        macro_f1: Mean F1 over the classes that occur or are predicted.
        confusion: Counts, row = true class, column = predicted class.
    """

    num_sequences: Count
    num_correct: Count
    accuracy: Share
    interval: tuple[Share, Share]
    subject_interval: tuple[Share, Share]
    uar: Share
    uar_interval: tuple[Share, Share]
    macro_f1: Share
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[Count, ...], ...]

    def __post_init__(self) -> None:
        if self.num_sequences < 1 or not 0 <= self.num_correct <= self.num_sequences:
            raise ValueError(f"{self.num_correct} correct of {self.num_sequences} sequences")


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """Exact McNemar test of two classifiers on the same sequences.

    Args:
        only_first: Sequences that only the first classifies correctly.
        only_second: Sequences that only the second classifies correctly.
        p_value: Two-sided probability of a split at least as uneven if both were equally good.
    """

    only_first: Count
    only_second: Count
    p_value: Share


def compute_metrics(
    labels: Sequence[int] | Labels,
    predicted: Sequence[int] | Labels,
    *,
    subjects: Sequence[str],
    class_names: Sequence[str],
    seed: int = 0,
) -> Metrics:
    """Compute every metric of one classifier.

    Args:
        labels: True class of each sequence, ``int64`` (n,), 0..C-1.
        predicted: Predicted class of each sequence, same shape.
        subjects: Whose face each sequence shows; the unit of the bootstrap.
        class_names: The C names.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If the lengths differ, there is no sequence, or a class is outside 0..C-1.
    """
    true, guess = _checked(labels, predicted, subjects, len(class_names))
    count = len(class_names)
    confusion = multiclass_confusion_matrix(guess, true, num_classes=count)
    precision, recall, f1 = (
        metric(guess, true, num_classes=count, average="none", zero_division=0.0)
        for metric in (multiclass_precision, multiclass_recall, multiclass_f1_score)
    )
    support, num_predicted = confusion.sum(1), confusion.sum(0)
    columns = [
        [value if count else None for value, count in zip(share.tolist(), of.tolist(), strict=True)]
        for share, of in (
            (precision, num_predicted),
            (recall, support),
            (f1, support + num_predicted),
        )
    ]
    num_correct = int(confusion.diagonal().sum())
    accuracy_interval, uar_interval = bootstrap_subjects(
        true.numpy(), guess.numpy(), subjects=subjects, num_classes=count, seed=seed
    )
    return Metrics(
        num_sequences=len(true),
        num_correct=num_correct,
        accuracy=num_correct / len(true),
        interval=wilson_interval(num_correct, len(true)),
        subject_interval=accuracy_interval,
        uar=float(recall[support > 0].double().mean()),
        uar_interval=uar_interval,
        macro_f1=float(multiclass_f1_score(guess, true, num_classes=count, average="macro")),
        per_class=tuple(
            ClassMetrics(name=name, precision=p, recall=r, f1=f, support=n)
            for name, p, r, f, n in zip(class_names, *columns, support.tolist(), strict=True)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _checked(
    labels: Any, predicted: Any, subjects: Sequence[str], num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    true, guess = (torch.as_tensor(np.asarray(values, np.int64)) for values in (labels, predicted))
    if not (true.shape == guess.shape == (len(subjects),)):
        raise ValueError(
            f"{len(true)} labels, {len(guess)} predictions and {len(subjects)} subjects,"
            " expected equally many"
        )
    if not len(true):
        raise ValueError("no sequence to compute metrics of")
    for name, values in (("label", true), ("prediction", guess)):
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= num_classes:
            raise ValueError(f"{name}s run from {low} to {high}, expected 0..{num_classes - 1}")
    return true, guess


def wilson_interval(num_correct: int, num_sequences: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion; inside 0..1, not empty at 100 %.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA
        22 (1927).

    >>> [round(100 * bound, 1) for bound in wilson_interval(27, 29)]
    [78.0, 98.1]
    """
    if num_sequences < 1 or not 0 <= num_correct <= num_sequences:
        raise ValueError(f"{num_correct} correct of {num_sequences} sequences")
    share = num_correct / num_sequences
    spread = Z_95 * Z_95 / num_sequences
    centre = (share + spread / 2) / (1 + spread)
    variance = share * (1 - share) / num_sequences + spread / (4 * num_sequences)
    half = Z_95 * math.sqrt(variance) / (1 + spread)
    low = 0.0 if num_correct == 0 else centre - half
    high = 1.0 if num_correct == num_sequences else centre + half
    return low, high


def bootstrap_subjects(
    labels: Labels,
    predicted: Labels,
    *,
    subjects: Sequence[str],
    num_classes: int,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Bootstrap accuracy and UAR by drawing subjects, whose sequences resemble each other.

    Returns:
        The 95 % percentile intervals of the accuracy and of the UAR.
    """
    names, owner = np.unique(np.asarray(subjects), return_inverse=True)
    counts = np.zeros((len(names), num_classes, num_classes))
    np.add.at(counts, (owner, labels, predicted), 1)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=num_resamples
    )
    confusion = np.tensordot(draws.astype(np.float64), counts, axes=1)
    correct, support = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(2)
    accuracy = correct.sum(1) / support.sum(1)
    recall = np.divide(correct, support, out=np.zeros_like(correct), where=support > 0)
    uar = recall.sum(1) / (support > 0).sum(1)
    low, high = np.percentile([accuracy, uar], (2.5, 97.5), axis=1)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def mcnemar_exact(labels: Labels, first: Labels, second: Labels) -> McNemar:
    """Test whether two classifiers differ; exactly (binomial), as fits a few dozen sequences.

    Args:
        labels: True classes, ``int64`` (n,).
        first: Classes predicted by one classifier, same shape.
        second: Classes predicted by the other, same shape.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions
        or percentages, Psychometrika 12 (1947).

    >>> mcnemar_exact(np.zeros(8, int), np.array([0] * 7 + [1]), np.array([1] * 6 + [0, 0])).p_value
    0.125
    """
    first_right, second_right = first == labels, second == labels
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
    p_value = min(1.0, 2 * tail / 2**discordant)
    return McNemar(only_first=only_first, only_second=only_second, p_value=p_value)
