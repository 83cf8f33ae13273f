"""A net sees of an input what it was trained on: as many frames a second, flow of that size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.dataset import open_dataset
from shard_builder.images import Image, decode_gray, decode_rgb
from tests.face_sets import write_frames, write_video
from tests.programs import ckshard
from tests.train.tiny_net import SHORT, Cktrain
from train.prediction.stream_model import StreamModel

SMALL = ("--size", "64x48", "--codec", "png", "--flow-method", "dis", "--flow-size", "40x32")
SMALL = (*SMALL, "--workers", "1")
OPTIONS = [f"--{n.replace('_', '-')}={value}" for n, value in SHORT.items()]
OPTIONS += ["--batch-size=2", "--loader=cpu", "--folds=2", "--stack-length=2"]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for label in ("joy", "sad"):
        for subject in ("p1", "p2"):
            write_video(tmp_path / "clips" / label / f"{subject}_1.avi", num_frames=13)
    return tmp_path / "clips"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[Image]]]:
    """The planes that nets are shown, by stream."""
    planes_of: dict[str, list[list[Image]]] = {"rgb": [], "flow": []}
    logits_of = StreamModel.logits_of

    def spy(model: StreamModel, planes: list[Image]) -> np.ndarray:
        planes_of[model.stream].append(planes)
        return logits_of(model, planes)

    monkeypatch.setattr(StreamModel, "logits_of", spy)
    return planes_of


@pytest.mark.parametrize("words", [("--frame-step", "3"), ("--fps", "8.34")])
def test_a_net_is_shown_what_the_dataset_holds_of_the_same_clip(
    words: tuple[str, str],
    clips: Path,
    seen: dict[str, list[list[Image]]],
    cktrain: Cktrain,
    tmp_path: Path,
) -> None:
    dataset, runs = tmp_path / "dataset", [tmp_path / "rgb", tmp_path / "flow"]
    layout = ("--layout", "{label}/{subject}_*")
    done = ckshard("build", clips, dataset, *layout, *SMALL, *words)
    assert done.returncode == 0, done.stderr
    for run in runs:
        code, _, errors = cktrain(run.name, dataset, "--out", run, *OPTIONS)
        assert code == 0, errors
    code, _, errors = cktrain("predict", *runs, clips / "joy/p1_1.avi", "--out", tmp_path / "out")
    assert code == 0, errors
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    windows = [json.loads(line) for line in lines[:-1]]
    assert [(w["first_frame"], w["last_frame"]) for w in windows] == [(0, 6), (6, 12)]
    assert windows[-1]["end_s"] == pytest.approx(12 / 25, abs=0.001)
    with open_dataset(dataset) as opened:
        row = next(row for row, key in enumerate(opened.keys) if key.startswith("joy_p1"))
        pairs = [decode_gray(opened.read_member("flow", row, number)) for number in range(4)]
        frame = decode_rgb(opened.read_member("rgb", row, 4))
        assert opened.num_frames[row] == 5 and frame is not None
    assert np.array_equal(seen["rgb"][-1][0], frame)
    for window, first in zip(seen["flow"], (0, 2), strict=True):
        for axis_planes, pair in zip((window[:2], window[2:]), pairs[first:], strict=False):
            assert pair is not None and np.array_equal(np.concatenate(axis_planes), pair)
    done = ckshard("build", clips, tmp_path / "all", *layout, *SMALL)
    assert done.returncode == 0, done.stderr
    code, _, errors = cktrain("test", *runs, tmp_path / "all")
    assert code == 2 and "frames taken all, but" in errors


def test_a_rate_needs_times_and_what_is_slower_is_said(
    clips: Path, cktrain: Cktrain, tmp_path: Path
) -> None:
    dataset, run = tmp_path / "dataset", tmp_path / "rgb"
    layout = ("--layout", "{label}/{subject}_*")
    done = ckshard("build", clips, dataset, *layout, *SMALL, "--fps", "12.5")
    assert done.returncode == 0, done.stderr
    code, _, errors = cktrain("rgb", dataset, "--out", run, *OPTIONS[:-1])
    assert code == 0, errors
    write_frames(tmp_path / "frames", "{}.png", num_frames=8)
    predict = ("predict", run, tmp_path / "frames", "--out", tmp_path / "out")
    code, _, errors = cktrain(*predict)
    assert code == 2 and "trained on 12.5 frames a second" in errors and "--fps" in errors
    code, printed, errors = cktrain(*predict, "--fps", "25")
    assert code == 0 and "4 frames" in printed, errors
    write_video(tmp_path / "slow.avi", num_frames=8, fps=5)
    code, printed, errors = cktrain("predict", run, tmp_path / "slow.avi", "--out", tmp_path / "o")
    assert code == 0, errors
    assert "5.0 frames a second, fewer than the net" in printed
