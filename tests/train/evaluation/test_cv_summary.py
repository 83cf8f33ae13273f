"""Pooling folds: against numbers computed by hand from the same predictions."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from models.fusion import late_fusion
from shard_builder.errors import InputError
from train.evaluation.cv_summary import fold_dir, read_fold, summarize
from train.evaluation.scores import StreamScores, write_scores

NAMES = ("anger", "happy", "surprise")


def write_fold(
    out: Path,
    stream: str,
    split: str,
    fold: int,
    *,
    skill: float,
    size: int = 12,
    prefix: str = "S",
) -> StreamScores:
    """Write the test folder of a fold; ``skill`` is how far the true class's logit is raised."""
    rng = np.random.default_rng([fold, ord(stream[0]), ord(split[1])])
    labels = np.arange(size) % 3
    logits = rng.normal(size=(size, 2, 3)).astype(np.float32)
    logits[np.arange(size), :, labels] += np.float32(skill)
    order = np.random.default_rng(len(stream)).permutation(
        size
    )  # the streams' rows need not be in the same order
    subjects = [f"{prefix}{fold:02d}{n // 3}" for n in range(size)]
    scores = StreamScores(
        stream=stream,
        keys=tuple(f"{subjects[n]}_{n % 3:03d}" for n in order),
        subjects=tuple(subjects[n] for n in order),
        labels=labels[order],
        logits=logits[order],
    )
    folder = fold_dir(out, stream, split, fold) / "test"
    folder.mkdir(parents=True)
    write_scores(folder / "scores.parquet", [scores], class_names=NAMES)
    (folder / "test.json").write_text("{}")
    return scores


def test_pooled_is_over_sequences_and_spread_over_folds(tmp_path: Path) -> None:
    folds = [
        write_fold(tmp_path, "flow", "subject-kfold", n, skill=1.0, size=12 + 3 * n)
        for n in range(3)
    ]
    summary = summarize(tmp_path, num_folds=3)
    assert summary
    (series,) = summary.series
    right = [(f.probs.argmax(1) == f.labels) for f in folds]
    assert series.pooled.accuracy == pytest.approx(np.concatenate(right).mean())
    assert series.mean_accuracy == pytest.approx(statistics.mean(float(r.mean()) for r in right))
    assert series.sd_accuracy == pytest.approx(statistics.stdev(float(r.mean()) for r in right))
    assert series.fold_sizes == (12, 15, 18) and series.pooled.num_sequences == 45
    assert (tmp_path / "flow-subject-kfold" / "confusion.png").stat().st_size > 5000
    record = json.loads((tmp_path / "cv.json").read_text())
    assert record["series"][0]["mean_accuracy"] == series.mean_accuracy and record["leak"] == []


def test_both_streams_are_fused_sequence_by_sequence(tmp_path: Path) -> None:
    rgb = [write_fold(tmp_path, "rgb", "subject-kfold", n, skill=0.6) for n in range(2)]
    flow = [write_fold(tmp_path, "flow", "subject-kfold", n, skill=1.2) for n in range(2)]
    summary = summarize(tmp_path, num_folds=2)
    assert summary
    fused = summary.find("fused", "subject-kfold")
    assert fused
    right = []
    for a, b in zip(rgb, flow, strict=True):
        order = [b.keys.index(key) for key in a.keys]
        right += (late_fusion(rgb=a.probs, flow=b.probs[order]).argmax(1) == a.labels).tolist()
    assert fused.pooled.num_correct == sum(right) and fused.pooled.num_sequences == 24


def test_leak_is_the_difference_of_the_two_splits(tmp_path: Path) -> None:
    for n in range(2):
        write_fold(tmp_path, "flow", "subject-kfold", n, skill=0.5)
        write_fold(tmp_path, "flow", "original-random", n, skill=4.0)
    summary = summarize(tmp_path, num_folds=2)
    assert summary
    honest, leaky = (summary.find("flow", split) for split in ("subject-kfold", "original-random"))
    assert honest and leaky
    assert summary.leaks() == [("flow", leaky.pooled.accuracy - honest.pooled.accuracy)]
    assert summary.leaks()[0][1] > 0.1


def test_an_unfinished_fold_does_not_count(tmp_path: Path) -> None:
    write_fold(tmp_path, "flow", "subject-kfold", 0, skill=1.0)
    write_fold(tmp_path, "flow", "subject-kfold", 1, skill=1.0)
    (fold_dir(tmp_path, "flow", "subject-kfold", 1) / "test" / "test.json").unlink()
    summary = summarize(tmp_path, num_folds=2)
    assert summary and summary.series[0].folds == (0,)
    assert summarize(tmp_path / "empty", num_folds=2) is None


def test_streams_that_tested_other_sequences_are_not_fused(tmp_path: Path) -> None:
    write_fold(tmp_path, "flow", "subject-kfold", 0, skill=1.0)
    write_fold(tmp_path, "rgb", "subject-kfold", 0, skill=1.0, prefix="T")
    with pytest.raises(InputError, match="fold 0: rgb and flow tested other sequences"):
        summarize(tmp_path, num_folds=1)


def test_a_damaged_fold_is_named(tmp_path: Path) -> None:
    write_fold(tmp_path, "flow", "subject-kfold", 0, skill=1.0)
    folder = fold_dir(tmp_path, "flow", "subject-kfold", 0)
    (folder / "test" / "scores.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match=r"fold-00/test/scores\.parquet: is not a scores table"):
        read_fold(folder, "flow")
