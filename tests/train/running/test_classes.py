"""Classes: their weights in the loss, and a split that leaves one out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.dataset import open_dataset
from shard_builder.errors import InputError
from shard_builder.split import Split, write_split
from tests.train.tiny_net import Train
from train.running.classes import weights_of_classes


def test_balanced_class_weights_have_mean_one_over_the_training_part(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset:
        split = Split(kind="list", train=tuple(dataset.keys[:17]), val=tuple(dataset.keys[17:]))
        balanced = weights_of_classes(dataset, split, "balanced")
        labels = dataset.labels[dataset.rows_of(split.train)]
        assert sum(balanced[label] for label in labels) == pytest.approx(17)
        counts = {label: (labels == label).sum() for label in set(labels.tolist())}
        assert len({round(balanced[label] * count, 9) for label, count in counts.items()}) == 1
        assert weights_of_classes(dataset, split, "none") == [1.0] * 7


def test_a_class_that_is_never_trained_is_refused(
    train: Train, tiny_dataset: Path, tmp_path: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset:
        fear = {key for key, label in zip(dataset.keys, dataset.labels, strict=True) if label == 3}
        split = Split(kind="list", train=tuple(set(dataset.keys) - fear), val=tuple(fear))
    write_split(tmp_path / "split.json", split)
    with pytest.raises(
        InputError, match="class fear: 6 sequences in validation and none in training"
    ):
        train(split=str(tmp_path / "split.json"))
