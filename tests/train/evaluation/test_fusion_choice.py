"""Fusion weights: the default, given, or searched on other subjects."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.dataset import open_dataset
from shard_builder.errors import InputError
from train.evaluation.evaluate import evaluate_runs
from train.evaluation.fusion_choice import choose_weights


def class_names(folder: Path) -> tuple[str, ...]:
    with open_dataset(folder) as dataset:
        return dataset.class_names


def test_fusion_weights_are_given_or_searched_on_other_subjects(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    both = [runs["rgb"], runs["flow"]]
    given = evaluate_runs(both, tiny_dataset, out=tmp_path / "given", fusion="1:3").weights
    assert given is not None and (given.rgb, given.flow, given.origin) == (1.0, 3.0, "given")
    with pytest.raises(InputError, match=r"2 of its subjects are tested now \(S\d{3}"):
        evaluate_runs(both, tiny_dataset, out=tmp_path / "again", fusion=str(tmp_path / "given"))
    searched = choose_weights(
        str(tmp_path / "given"), tested_subjects={"S999"}, class_names=class_names(tiny_dataset)
    )
    assert searched.origin == "validation" and searched.rgb + searched.flow == pytest.approx(1)
    single = evaluate_runs([runs["flow"]], tiny_dataset, out=tmp_path / "single")
    assert single.weights is None
    with pytest.raises(InputError, match="fusion='1:2', but there is one run, expected an rgb and"):
        evaluate_runs([runs["flow"]], tiny_dataset, out=tmp_path / "x", fusion="1:2")
    for text, words in (
        ("1;2", "no colon"),
        ("0:0", "one positive"),
        (str(tmp_path / "single"), "a test of one stream"),
    ):
        with pytest.raises(InputError, match=words):
            choose_weights(text, tested_subjects={"S999"}, class_names=class_names(tiny_dataset))
    shutil.copyfile(tmp_path / "single" / "scores.parquet", tmp_path / "given" / "scores.parquet")
    with pytest.raises(InputError, match=r"scores\.parquet: its SHA-256 is not the one in test"):
        choose_weights(str(tmp_path / "given"), tested_subjects=set(), class_names=())
    (tmp_path / "given" / "test.json").unlink()
    with pytest.raises(InputError, match=r"given/test\.json: is missing"):
        choose_weights(str(tmp_path / "given"), tested_subjects=set(), class_names=())
