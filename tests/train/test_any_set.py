"""Sets with the names of real releases, from their folders to a tested run, and official parts."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.dataset import open_dataset
from shard_builder.images import decode_rgb
from shard_builder.sources.known import KNOWN_SETS
from tests.face_sets import NUM_FRAMES, SETS, write_video
from tests.train.tiny_net import SHORT, Cktrain

CKSHARD = str(Path(sys.executable).with_name("ckshard"))
SMALL = ("--size", "64x48", "--codec", "png", "--flow-method", "dis")
BY_SUBJECT = "--folds 2 --fold 1"
SPLITS = {
    "RAVDESS": BY_SUBJECT,
    "CREMA-D": BY_SUBJECT,
    "Oulu-CASIA": BY_SUBJECT,
    "CASME II": "--split loso --subject 1",
    "DFEW": "--split fold --fold 2",
    "mmaction2 rawframes": "--split fold",
    "AFEW": "--split fold",
    "CK+48": BY_SUBJECT,
}
OPTIONS = [f"--{n.replace('_', '-')}={value}" for n, value in SHORT.items() if n != "batch_size"]
OPTIONS += ["--batch-size=2", "--loader=cpu"]


def ckshard(*words: object) -> str:
    done = subprocess.run([CKSHARD, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def recipe(name: str) -> list[str]:
    options = next(known.options for known in KNOWN_SETS if known.name == name)
    options = options.replace(".../", "data_affine/single_label/label/")
    words = shlex.split(options)
    return [*words, "--no-subjects"] if name.startswith("mmaction2") else words


def levels(dataset: Path) -> dict[str, list[int]]:
    """Read each sequence's frames back: a frame's level is ten times its number and ten."""
    numbers = {}
    with open_dataset(dataset) as opened:
        for row, source in enumerate(opened.sources):
            frames = [
                decode_rgb(opened.read_member("rgb", row, number))
                for number in range(opened.num_frames[row])
            ]
            middle = [float(np.median(frame[:, 50:])) for frame in frames if frame is not None]
            numbers[source] = [round((level - 10) / 10) for level in middle]
    return numbers


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SPLITS))
def test_a_set_is_built_trained_on_and_tested(name: str, cktrain: Cktrain, tmp_path: Path) -> None:
    expected = SETS[name](tmp_path / "set")
    dataset = tmp_path / "dataset"
    ckshard("build", tmp_path / "set", dataset, *recipe(name), *SMALL)
    with open_dataset(dataset) as opened:
        classes = opened.class_names
        found = {
            (source, classes[label], subject if opened.manifest.has_subjects else "", fold)
            for source, label, subject, fold in zip(
                opened.sources, opened.labels, opened.subjects, opened.folds, strict=True
            )
        }
        assert found == expected
        if name == "CASME II":
            apex = dict(zip(opened.sources, opened.apex.tolist(), strict=True))
            assert apex["Cropped/sub01/EP02_01f"] == 2 and apex["Cropped/sub01/EP03_02"] == 5
    order = levels(dataset)
    if name != "CK+48":
        assert all(numbers == list(range(NUM_FRAMES)) for numbers in order.values()), order
    for stream in ("rgb",) if name == "CK+48" else ("rgb", "flow"):
        split = shlex.split(SPLITS[name])
        code, _, errors = cktrain(stream, dataset, "--out", tmp_path / stream, *OPTIONS, *split)
        assert code == 0, errors
        code, printed, errors = cktrain("test", tmp_path / stream, dataset)
        assert code == 0, errors
        assert "sequences" in printed


def test_clips_that_return_show_their_apex_in_the_table(cktrain: Cktrain, tmp_path: Path) -> None:
    """The table names what the frames do not tell: the rgb stream's frame is in the index."""
    lines = ["path;Label;SUBJECT;apex"]
    for label in ("joy", "sad"):
        for subject in ("p1", "p2"):
            write_video(tmp_path / label / f"{subject}_1.avi", num_frames=9)
            lines.append(f"{label}/{subject}_1.avi;{label};{subject};4")
    (tmp_path / "table.csv").write_bytes("\n".join(lines).encode("utf-16"))
    ckshard("build", tmp_path / "table.csv", tmp_path / "dataset", *SMALL)
    with open_dataset(tmp_path / "dataset") as opened:
        assert opened.apex.tolist() == [4] * 4 and opened.num_frames.tolist() == [9] * 4
    assert set(map(tuple, levels(tmp_path / "dataset").values())) == {tuple(range(9))}


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    for part in ("train", "val", "test"):
        for label in ("joy", "sad"):
            for number in range(2):
                write_video(tmp_path / "clips" / part / label / f"{part}{number}_1.avi")
    layout = ("--layout", "{fold}/{label}/{subject}_*.avi")
    ckshard("build", tmp_path / "clips", tmp_path / "dataset", *layout, *SMALL)
    return tmp_path / "dataset"


def test_a_third_part_is_held_out_of_everything_but_the_test(
    parted: Path, cktrain: Cktrain, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, printed, errors = cktrain(
        "flow", parted, "--out", run, *OPTIONS, "--split", "fold", "--val-every", "1"
    )
    assert code == 0, errors
    assert "held out for cktrain test: 4 sequences of 2 subjects" in printed
    record = json.loads((run / "config.json").read_text())["split"]
    assert (record["kind"], record["num_train"], record["num_val"], record["num_test"]) == (
        *("fold", 4, 4),
        4,
    )
    code, printed, errors = cktrain("test", run, parted, "--checkpoint", "best")
    assert code == 0, errors
    assert "a third part, which neither trained nor validated" in printed
    assert "optimistic" not in printed
    test = json.loads((run / "test" / "test.json").read_text())
    assert test["part"] == "test" and test["num_sequences"] == 4
    lines = (run / "test" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["subject"] for line in lines} == {"test0", "test1"}


def test_a_dataset_without_subjects_says_so_at_every_step(cktrain: Cktrain, tmp_path: Path) -> None:
    SETS["AFEW"](tmp_path / "set")
    ckshard("build", tmp_path / "set", tmp_path / "dataset", *recipe("AFEW"), *SMALL)
    dataset = tmp_path / "dataset"
    assert "the source names no subjects" in ckshard("split", dataset, "--kind", "fold")
    code, printed, errors = cktrain(
        "rgb", dataset, "--out", tmp_path / "run", "--split", "fold", *OPTIONS
    )
    assert code == 0, errors
    assert "the source names no subjects" in printed


def test_whoever_asks_for_flow_of_stills_is_sent_to_rgb(cktrain: Cktrain, tmp_path: Path) -> None:
    SETS["JAFFE"](tmp_path / "stills")
    dataset, out = tmp_path / "dataset", tmp_path / "out"
    ckshard("build", tmp_path / "stills", dataset, "--layout", "**/{subject}.{label}?.*.tiff")
    missing = "--weights=missing.pth"  # would be looked for before the second stream's members
    for line in (("flow",), ("both", missing), ("cv", "flow")):
        code, text, error = cktrain(*line, dataset, "--out", out)
        assert (code, text) == (2, "")
        assert f"{dataset}: has no flow stream" in error and "cktrain rgb" in error
        assert "no motion" in error and "ckshard build" not in error
        assert not out.exists()


def test_no_subjects_are_counted_where_the_source_names_none(
    cktrain: Cktrain, tmp_path: Path
) -> None:
    SETS["AFEW"](tmp_path / "set")
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    built = ckshard("build", tmp_path / "set", dataset, *recipe("AFEW"), *SMALL, "--yes")
    assert "no subjects" in built
    inspected, split = ckshard("inspect", dataset), ckshard("split", dataset, "--kind", "fold")
    assert " of subjects without names" in inspected
    assert "┃ sequences" in inspected and "┃ subject" not in inspected
    assert "│ sequences" in split and "│ subjects" not in split and "fold ()" not in split
    code, printed, error = cktrain("flow", dataset, "--out", run, *OPTIONS, "--split", "fold")
    assert code == 0 and re.search(r"training on \d+ sequences, validating on \d+ seq", printed), (
        error
    )
    code, printed, error = cktrain("test", run, dataset)
    assert code == 0 and re.search(r"\d+ sequences, ten views", printed), error
    assert json.loads((run / "test" / "test.json").read_text())["num_subjects"] is None
    assert cktrain("report", run)[0] == 0
