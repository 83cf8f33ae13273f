"""Official folds and parts become splits, from the index or from lists, through the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shard_builder.errors import InputError
from shard_builder.parts.official import numbered_folds, sides_of_folds
from shard_builder.split import Split, leak_warning, make_split, read_split, write_split
from tests.face_sets import write_video

CKSHARD = str(Path(sys.executable).with_name("ckshard"))


@dataclass
class Rows:
    folds: list[str]
    keys: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = [f"k{number}" for number in range(len(self.folds))]
        self.subjects = [f"s{number}" for number in range(len(self.folds))]
        self.labels = [0] * len(self.folds)
        self.sources = [f"clips/k{number}.mp4" for number in range(len(self.folds))]


@pytest.mark.parametrize(
    ("folds", "fold", "sides"),
    [
        ("train val test train", 0, "train val test train"),
        ("Train_AFEW Val_AFEW . .", 0, "train val . ."),
        ("train test train test", 0, "train val train val"),
        ("1 2 3 3", 3, "train train val val"),
        ("1 2 test 3", 2, "train val test train"),
        ("set_10 set_2 . set_2", 10, "val train . train"),
        ("a b c b", 1, "train val train val"),
        ("1 2 train 2", 1, "val train train train"),
    ],
)
def test_parts_are_called_and_folds_are_numbered(folds: str, fold: int, sides: str) -> None:
    rows = Rows([name.strip(".") for name in folds.split()])
    split = make_split(rows, "fold", fold=fold)
    on = {"train": split.train, "val": split.val, "test": split.test}
    named = [next((s for s in on if key in on[s]), ".") for key in rows.keys]
    assert named == sides.split()
    assert sides_of_folds(rows.folds, fold=fold) == [side.strip(".") for side in sides.split()]


@pytest.mark.parametrize(
    ("folds", "fold", "words"),
    [
        (["", ""], 0, r"kind='fold', but the dataset names no official parts"),
        (["1", "2"], 0, r"fold=0, expected one of the official folds 1, 2"),
        (["train", "train"], 0, r"the official parts are train, expected one to train on and one"),
        (["val", "test"], 0, r"the official parts are test, val, expected one to train"),
        (["1", "1"], 1, r"the official parts are 1, expected one to train"),
    ],
)
def test_parts_that_make_no_split_are_named(folds: list[str], fold: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_split(Rows(folds), "fold", fold=fold)


def test_the_number_of_a_fold_is_the_one_in_its_name() -> None:
    assert numbered_folds(["set_10", "set_2", "test", "", "set_2"]) == {2: "set_2", 10: "set_10"}
    assert numbered_folds(["b", "a"]) == {0: "a", 1: "b"}
    assert numbered_folds(["x1", "y1"]) == {0: "x1", 1: "y1"}


def test_lists_of_parts_name_sequences_as_the_source_did(tmp_path: Path) -> None:
    rows = Rows([""] * 4)
    (tmp_path / "train_list.txt").write_text("k0 3\nclips/k1.mp4 4\n")
    (tmp_path / "test_list.csv").write_bytes("video_name;label\nk3;1\n".encode("utf-16"))
    (tmp_path / "val_list.txt").write_text("/data/clips/k2 9 1\n")
    split = make_split(rows, str(tmp_path / "{fold}_list.*"))
    assert (split.train, split.val, split.test) == (("k0", "k1"), ("k2",), ("k3",))
    (tmp_path / "val_list.txt").write_text("k9 1\n")
    with pytest.raises(InputError, match=r"val_list\.txt, line 1: 'k9' names no sequence"):
        make_split(rows, str(tmp_path / "{fold}_list.*"))
    (tmp_path / "val_list.txt").write_text("k0 1\n")
    with pytest.raises(InputError, match=r"val_list\.txt, line 1: 'k0' is in 'val' and in 'train'"):
        make_split(rows, str(tmp_path / "{fold}_list.*"))


def test_a_third_part_survives_its_file_and_changes_the_hash(tmp_path: Path) -> None:
    split = Split(kind="fold", train=("b",), val=("a",), test=("d", "c"))
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json") == split and split.test == ("c", "d")
    two = Split(kind="fold", train=("b",), val=("a",))
    assert split.sha256() != two.sha256()
    record = json.loads(two.to_json())
    del record["test"]  # as splits were written before
    (tmp_path / "split.json").write_text(json.dumps(record))
    assert read_split(tmp_path / "split.json") == two
    for sides in ({"test": ("b",)}, {"test": ("a",)}):
        with pytest.raises(InputError, match=r"1 sequence is in .* and in test"):
            Split(kind="fold", train=("b",), val=("a",), **sides)  # type: ignore[arg-type]


def test_leaks_into_the_third_part_are_warned_of() -> None:
    split = Split(kind="fold", train=("a",), val=("b",), test=("c",))
    assert not leak_warning(split, {"a": "A", "b": "B", "c": "C"})
    assert "1 subject is" in leak_warning(split, {"a": "A", "b": "B", "c": "A"})
    unknown = leak_warning(split, {"a": "a", "b": "b", "c": "c"}, has_subjects=False)
    assert "names no subjects" in unknown


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("official")
    for part in ("train", "val", "test"):
        for label in ("joy", "sad"):
            for number in range(2):
                write_video(root / "clips" / part / label / f"{part[0]}{number}_1.avi")
    words = ["--layout", "{fold}/{label}/{subject}_*.avi", "--size", "64x48"]
    done = subprocess.run(
        [CKSHARD, "build", str(root / "clips"), str(root / "dataset"), *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root / "dataset"


def test_the_command_splits_by_the_official_parts(dataset: Path, tmp_path: Path) -> None:
    words = ["--kind", "fold", "--out", str(tmp_path / "split.json")]
    words += ["--original-format", str(tmp_path / "lists")]
    done = subprocess.run([CKSHARD, "split", str(dataset), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    split = read_split(tmp_path / "split.json")
    assert [len(side) for side in (split.train, split.val, split.test)] == [4, 4, 4]
    assert all(key.startswith("test_") for key in split.test)
    assert "test" in done.stdout and len(list((tmp_path / "lists").iterdir())) == 6


def test_faults_of_official_folds_end_the_command_with_exit_2(
    dataset: Path, tiny_dataset: Path
) -> None:
    done = subprocess.run(
        [CKSHARD, "split", str(tiny_dataset), "--kind", "fold"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "--kind fold, but the dataset names no" in done.stderr
