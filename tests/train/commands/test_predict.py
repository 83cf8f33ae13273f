"""``cktrain predict`` through the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.carphone import carphone_video
from tests.train.tiny_net import Cktrain
from train.prediction.own_folder import own_folder


@pytest.fixture
def sequence(tiny_release: Path) -> Path:
    """The folder of a CK+ sequence."""
    folders = sorted(tiny_release.rglob("S*/0*"))
    return next(folder for folder in folders if list(folder.glob("*.png")))


def test_windows_are_printed_as_they_come_and_the_clip_at_the_end(
    cktrain: Cktrain, runs: dict[str, Path], sequence: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("--out", out, "--stride", 3, "--fps", 10, "--device", "cpu")
    code, text, _ = cktrain("predict", runs["rgb"], runs["flow"], sequence, *words)
    assert code == 0
    windows = [line for line in text.splitlines() if " s  frames " in line]
    assert len(windows) == len((out / "predictions.jsonl").read_text().splitlines()) - 1
    last = json.loads((out / "predictions.jsonl").read_text().splitlines()[-1])
    key = "_".join(next(sequence.glob("*.png")).name.split("_")[:2])
    assert f"{key}: {last['predicted']}" in text and last["input"] == key
    assert windows[0].startswith("   0.50 s  frames 1 to 6: ")
    frames = len(list(sequence.glob("*.png")))
    assert f"{frames} frames ({frames / 10:.1f} s)" in text and "fused" in text


def test_ctrl_c_ends_it_and_leaves_no_half_video(
    cktrain: Cktrain,
    runs: dict[str, Path],
    sequence: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("train.prediction.predict._clip_record", interrupt)
    words = (runs["flow"], sequence, "--out", tmp_path / "out", "--overlay", tmp_path / "a.mp4")
    code, _, error = cktrain("predict", *words)
    assert code == 130 and "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == []
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--stride=0", "--stride 0, expected at least 1 frame"),
        ("--overlay=video.avi", "--overlay video.avi, expected a file name that ends in .mp4"),
    ],
)
def test_bad_options_are_named_before_anything_is_written(
    cktrain: Cktrain, runs: dict[str, Path], sequence: Path, tmp_path: Path, option: str, words: str
) -> None:
    out = tmp_path / "out"
    code, _, error = cktrain("predict", runs["flow"], sequence, "--out", out, option)
    assert code == 2 and error.startswith(f"cktrain: error: {words}")
    assert not out.exists()


def test_no_input_replaces_the_prediction_of_another(
    cktrain: Cktrain,
    runs: dict[str, Path],
    sequence: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = sorted(sequence.glob("*.png"))
    for place in ("a/frames", "b/frames"):
        (tmp_path / place).mkdir(parents=True)
        for number, frame in enumerate(frames[:4]):
            shutil.copy(frame, tmp_path / place / f"{number}.png")
    for place in ("one/videos", "two/videos"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(carphone_video(), tmp_path / place)
    key = "_".join(frames[0].name.split("_")[:2])
    for source, name, results in (
        (sequence, key, {"predictions.jsonl", "bars.png", "timeline.png"}),
        ("a/frames", "frames", {"predictions.jsonl", "bars.png", "timeline.png"}),
        ("one/videos", "videos", {"summary.csv", carphone_video().name}),
    ):
        for line in (("--stride", 40), ("--stride", 50)):  # the same input again
            code, text, error = cktrain("predict", runs["rgb"], source, *line)
            assert code == 0 and f"prediction/{name}: " in text, error
        assert {path.name for path in (tmp_path / "prediction" / name).iterdir()} == results
    written = {path: path.read_bytes() for path in Path("prediction").rglob("*") if path.is_file()}
    for mine, other in (("b/frames", "a/frames"), ("two/videos", "one/videos")):
        code, _, error = cktrain("predict", runs["rgb"], mine)
        assert code == 2 and "--out" in error, error
        assert f"holds the prediction of {tmp_path / other}" in error
        assert cktrain("predict", runs["rgb"], mine, "--out", "here", "--stride", 40)[0] == 0
    assert written == {path: path.read_bytes() for path in written}


@pytest.mark.parametrize("line", [b"[" * 100_000, b'["path"]', b"\xff", b""])
def test_a_strangers_predictions_are_none_of_another_input(
    line: bytes, sequence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own_folder(sequence).mkdir(parents=True)
    (own_folder(sequence) / "predictions.jsonl").write_bytes(line + b"\n")
    assert own_folder(sequence).is_dir()
