"""Metrics against hand-counted tables and against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from train.evaluation.statistics import (
    bootstrap_subjects,
    compute_metrics,
    mcnemar_exact,
    wilson_interval,
)

NAMES = ("anger", "happy", "surprise")


def test_metrics_of_a_hand_counted_table() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    guess = [0, 0, 0, 1, 1, 2, 2, 2, 2, 0]
    metrics = compute_metrics(
        labels, guess, subjects=[f"S{n:03}" for n in range(10)], class_names=NAMES
    )
    assert metrics.confusion == ((3, 1, 0), (0, 1, 1), (1, 0, 3))
    assert metrics.num_correct == 7 and metrics.accuracy == 0.7
    assert metrics.uar == pytest.approx((3 / 4 + 1 / 2 + 3 / 4) / 3)
    assert [c.precision for c in metrics.per_class] == pytest.approx([3 / 4, 1 / 2, 3 / 4])
    assert [c.support for c in metrics.per_class] == [4, 2, 4]
    assert metrics.macro_f1 == pytest.approx((3 / 4 + 1 / 2 + 3 / 4) / 3)
    assert metrics.interval == wilson_interval(7, 10)


def test_a_class_that_never_occurs_does_not_lower_the_uar() -> None:
    # CK+'s tenth fold has no fear sequence: its recall is undefined, not 0, even when fear is
    # predicted.
    metrics = compute_metrics([0, 0, 2, 2], [0, 1, 2, 2], subjects=list("abcd"), class_names=NAMES)
    assert metrics.uar == pytest.approx((1 / 2 + 1) / 2)
    assert metrics.per_class[1].support == 0 and metrics.per_class[1].precision == 0.0


def test_what_would_divide_by_nothing_is_none() -> None:
    metrics = compute_metrics([0, 0, 0], [0, 1, 1], subjects=list("abc"), class_names=NAMES)
    anger, happy, surprise = metrics.per_class
    assert (anger.precision, anger.recall, anger.f1) == pytest.approx((1, 1 / 3, 1 / 2))
    assert (happy.precision, happy.recall, happy.f1) == (0, None, 0), "predicted, never there"
    assert (surprise.precision, surprise.recall, surprise.f1) == (None, None, None)
    missed = compute_metrics([0, 1], [0, 0], subjects=list("ab"), class_names=NAMES).per_class[1]
    assert (missed.precision, missed.recall, missed.f1) == (None, 0, 0), "there, never predicted"
    assert metrics.macro_f1 == pytest.approx(1 / 4), "over what is there or predicted"


def test_wilson_interval_of_the_published_numbers() -> None:
    assert wilson_interval(27, 29) == pytest.approx((0.7804, 0.9809), abs=1e-4)
    assert wilson_interval(26, 28) == pytest.approx((0.7735, 0.9802), abs=1e-4)
    low, high = wilson_interval(10, 10)
    assert 0.7 < low < 0.73 and high == 1.0
    assert wilson_interval(0, 10)[0] == 0.0


@pytest.mark.parametrize(("correct", "total"), [(3, 2), (-1, 2), (0, 0)])
def test_wilson_interval_refuses_impossible_counts(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"{correct} correct of {total} sequences"):
        wilson_interval(correct, total)


def test_bootstrap_draws_whole_subjects() -> None:
    # 4 subjects of 25 sequences, each all right or all wrong: as uncertain as 4 throws, not as 100.
    labels = np.zeros(100, np.int64)
    clustered = np.repeat([0, 0, 1, 1], 25)
    subjects = [f"S{n // 25}" for n in range(100)]
    (low, high), _ = bootstrap_subjects(labels, clustered, subjects=subjects, num_classes=2, seed=0)
    assert low <= 0.05 and high >= 0.95
    single = [f"S{n}" for n in range(100)]
    (low, high), _ = bootstrap_subjects(labels, clustered, subjects=single, num_classes=2, seed=0)
    assert 0.38 < low < 0.45 and 0.55 < high < 0.62


def test_bootstrap_is_seeded() -> None:
    rng = np.random.default_rng(1)
    labels, guess = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    subjects = [f"S{n % 7}" for n in range(40)]
    first, again, other = (
        bootstrap_subjects(labels, guess, subjects=subjects, num_classes=3, seed=seed)
        for seed in (5, 5, 6)
    )
    assert first == again != other


def test_mcnemar_equals_the_sum_over_all_outcomes() -> None:
    for only_first, only_second in [(0, 0), (1, 0), (5, 0), (7, 2), (3, 3), (10, 4)]:
        n = only_first + only_second
        extreme = max(only_first, only_second)
        outcomes = [sum(bits) for bits in itertools.product((0, 1), repeat=n)]
        expected = sum(max(k, n - k) >= extreme for k in outcomes) / 2**n
        labels = np.zeros(n + 5, np.int64)
        first, second = labels.copy(), labels.copy()
        second[:only_first] = 1
        first[only_first:n] = 1
        test = mcnemar_exact(labels, first, second)
        assert (test.only_first, test.only_second) == (only_first, only_second)
        assert test.p_value == pytest.approx(expected)


def test_compute_metrics_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 labels, 1 predictions and 2 subjects"):
        compute_metrics([0, 1], [0], subjects=["a", "b"], class_names=NAMES)
    with pytest.raises(ValueError, match=r"predictions run from 0 to 3, expected 0\.\.2"):
        compute_metrics([0, 1], [0, 3], subjects=["a", "b"], class_names=NAMES)
    with pytest.raises(ValueError, match="no sequence"):
        compute_metrics([], [], subjects=[], class_names=NAMES)
