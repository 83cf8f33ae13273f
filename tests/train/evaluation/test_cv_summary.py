"""Pooling folds: against numbers computed by hand from the same predictions."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest

from models.fusion import late_fusion
from shard_builder.errors import InputError
from train.evaluation.cv_summary import CvSummary, MissingFold, fuse_folds, pool
from train.evaluation.scores import SequenceScores

NAMES = ("anger", "happy", "surprise")


def make_fold(fold: int, *, skill: float, size: int = 12, seed: int = 0) -> SequenceScores:
    """Scores of a fold; ``skill`` is how far the true class is raised."""
    rng = np.random.default_rng([fold, seed])
    labels = np.arange(size) % 3
    probs = rng.uniform(size=(size, 3))
    probs[np.arange(size), labels] += skill
    subjects = tuple(f"S{fold:02d}{n // 3}" for n in range(size))
    return SequenceScores(
        keys=tuple(f"{subjects[n]}_{n % 3:03d}" for n in range(size)),
        subjects=subjects,
        labels=labels,
        probs=probs / probs.sum(axis=1, keepdims=True),
    )


def test_pooled_is_over_sequences_and_spread_over_folds() -> None:
    folds = {n: make_fold(n, skill=0.3, size=12 + 3 * n) for n in range(3)}
    series = pool("flow", "subject-kfold", folds, NAMES)
    right = [f.probs.argmax(1) == f.labels for f in folds.values()]
    assert 0 < np.concatenate(right).mean() < 1
    assert series.pooled.accuracy == pytest.approx(np.concatenate(right).mean())
    assert series.mean_accuracy == pytest.approx(statistics.mean(float(r.mean()) for r in right))
    assert series.sd_accuracy == pytest.approx(statistics.stdev(float(r.mean()) for r in right))
    assert series.fold_sizes == (12, 15, 18) and series.pooled.num_sequences == 45


def test_both_streams_are_fused_sequence_by_sequence() -> None:
    rgb = {n: make_fold(n, skill=0.2, seed=1) for n in range(3)}
    flow = {n: make_fold(n, skill=0.4, seed=2) for n in range(2)}
    fused = fuse_folds(rgb, flow)
    assert fused.keys() == {0, 1}
    for n, scores in fused.items():
        expected = late_fusion(rgb=rgb[n].probs, flow=flow[n].probs)
        np.testing.assert_array_equal(scores.probs, expected)
    other = replace(flow[0], keys=tuple(f"T{key}" for key in flow[0].keys))
    with pytest.raises(InputError, match="fold 0: rgb and flow tested other sequences"):
        fuse_folds(rgb, {0: other})


def test_leak_is_the_difference_of_the_two_splits() -> None:
    honest = pool("flow", "subject-kfold", {0: make_fold(0, skill=0.1)}, NAMES)
    leaky = pool("flow", "original-random", {0: make_fold(0, skill=1.0)}, NAMES)
    missing = MissingFold(stream="flow", split="subject-kfold", fold=1, reason="not begun")
    summary = CvSummary(class_names=NAMES, series=(honest, leaky), missing=(missing,), notices=())
    assert summary.leaks() == [("flow", leaky.pooled.accuracy - honest.pooled.accuracy)]
    assert summary.leaks()[0][1] > 0.1
    assert [summary.num_folds(entry) for entry in summary.series] == [2, 1]
    record = summary.to_record()
    assert record["missing"] == [
        {"stream": "flow", "split": "subject-kfold", "fold": 1, "reason": "not begun"}
    ]
