"""Splits: the standard folds, subjects apart, the original's leak, list files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_builder.errors import InputError
from shard_builder.split import (
    Split,
    leaking_subjects,
    read_split,
    split_from_list,
    split_leave_one_subject_out,
    split_original_random,
    split_subject_kfold,
    subject_folds,
    write_split,
)
from tests.programs import ckshard

SUBJECTS = st.lists(st.integers(1, 999).map(lambda n: f"S{n:03d}"), min_size=12, max_size=80)


def sequences(subjects: list[str]) -> tuple[list[str], list[str]]:
    count: Counter[str] = Counter()
    keys = []
    for subject in subjects:
        count[subject] += 1
        keys.append(f"{subject}_{count[subject]:03d}")
    return keys, subjects


@given(subjects=SUBJECTS, folds=st.integers(2, 4))
@settings(deadline=None, max_examples=60)
def test_subject_folds_keep_subjects_apart_and_cover_every_sequence_once(
    subjects: list[str], folds: int
) -> None:
    keys, subjects = sequences(subjects)
    if len(set(subjects)) < folds:
        return
    subject_of = dict(zip(keys, subjects, strict=True))
    seen: list[str] = []
    for fold in range(folds):
        split = split_subject_kfold(keys, subjects, num_folds=folds, fold=fold)
        assert not leaking_subjects(split, subject_of)
        assert sorted(split.train + split.val) == sorted(keys)
        seen += split.val
    assert sorted(seen) == sorted(keys)


def test_the_fields_ten_folds_are_sorted_ids_by_index_mod_ten() -> None:
    subjects = [f"S{n:03d}" for n in range(5, 123)]
    folds = subject_folds(reversed(subjects), num_folds=10)
    assert [folds[s] for s in subjects[:12]] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert sorted(Counter(folds.values()).values()) == [11, 11] + [12] * 8


def test_leave_one_subject_out() -> None:
    keys, subjects = sequences(["S001", "S001", "S002", "S003"])
    split = split_leave_one_subject_out(keys, subjects, subject="S001")
    assert split.val == ("S001_001", "S001_002") and split.train == ("S002_001", "S003_001")
    with pytest.raises(InputError, match="subject='S009' is not in the dataset"):
        split_leave_one_subject_out(keys, subjects, subject="S009")


def test_the_originals_split_takes_a_tenth_of_each_class_rounded_down() -> None:
    """45, 18, 59, 25, 69, 28 and 83 sequences give 4, 1, 5, 2, 6, 2 and 8: 28 for validation."""
    labels = [
        label for label, count in enumerate((45, 18, 59, 25, 69, 28, 83)) for _ in range(count)
    ]
    keys = [f"S{n % 118:03d}_{n:03d}" for n in range(len(labels))]
    split = split_original_random(keys, labels, seed=1)
    label_of = dict(zip(keys, labels, strict=True))
    assert [Counter(label_of[k] for k in split.val)[label] for label in range(7)] == [
        4,
        1,
        5,
        2,
        6,
        2,
        8,
    ]
    assert split == split_original_random(keys[::-1], labels[::-1], seed=1), (
        "the order of the dataset does not matter"
    )
    assert split.val != split_original_random(keys, labels, seed=2).val
    assert leaking_subjects(split, {key: key[:4] for key in keys})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_in_the_originals_form_names_the_validation_part(
    encoding: str, tmp_path: Path
) -> None:
    keys = ["S005_001", "S010_004", "S011_002"]
    path = tmp_path / "list.txt"

    def split_by(text: str) -> Split:
        path.write_text(text, encoding=encoding)
        return split_from_list(keys, path)

    split = split_by("/data/flow/3/S010_004/x_flow 16 3\n\n")
    assert split.val == ("S010_004",) and split.train == ("S005_001", "S011_002")
    assert split_by("S010_004").val == ("S010_004",)
    with pytest.raises(InputError, match=r"list\.txt, line 2: .*S099_001.*names no sequence"):
        split_by("S010_004 16 3\nrgb/3/S099_001 17 3")
    with pytest.raises(InputError, match="0 of 3 sequences"):
        split_by("")


def test_a_split_refuses_an_overlap_and_survives_its_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 sequence is in train and in val"):
        Split(kind="list", train=("a", "b"), val=("b",))
    split = Split(
        kind="subject-kfold", parameters={"num_folds": 3, "fold": 1}, train=("b", "a"), val=("c",)
    )
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json") == split
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(InputError, match=r"split\.json: is not a split"):
        read_split(tmp_path / "split.json")


def test_the_command_writes_json_and_the_originals_four_lists_and_warns(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    lists = tmp_path / "lists"
    words = ("--folds", "3", "--fold", "1", "--out", tmp_path / "split.json")
    done = ckshard("split", tiny_dataset, *words, "--original-format", lists)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout
    val = json.loads((tmp_path / "split.json").read_text())["val"]
    lines = (lists / "val_flow_split.txt").read_text().splitlines()
    assert len(lines) == len(val) == 14
    path, count, label = lines[0].split()
    assert path.split("/")[-1] == "x_flow" and path.split("/")[-2] in val
    assert int(count) > 4 and label in "1234567"
    assert len(list(lists.iterdir())) == 4
    listed = ckshard("split", tiny_dataset, "--kind", lists / "val_rgb_split.txt")
    assert listed.returncode == 0 and "14" in listed.stdout
    drawn = ckshard("split", tiny_dataset, "--kind", "original-random")
    assert drawn.returncode == 2 and "no class has 10 sequences" in drawn.stderr
