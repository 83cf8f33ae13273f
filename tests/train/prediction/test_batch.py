"""A folder of videos: a row for each, faults counted, what is no folder of videos left alone."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.carphone import carphone_video
from tests.train.tiny_net import Cktrain


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two whole videos, one below a folder, and one of noise between them."""
    folder = tmp_path / "videos"
    (folder / "s2").mkdir(parents=True)
    shutil.copy(carphone_video(), folder / "a.mp4")
    shutil.copy(carphone_video(), folder / "s2" / "a.mp4")
    (folder / "noise, torn.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 8)
    return folder


def test_a_video_with_a_fault_is_a_row_and_the_others_are_predicted(
    runs: dict[str, Path], videos: Path, tmp_path: Path, cktrain: Cktrain
) -> None:
    words = ("predict", runs["rgb"], runs["flow"], videos, "--out", tmp_path / "out")
    code, printed, err = cktrain(*words, "--on-error", "skip", "--stride", 20)
    assert code == 0, err
    assert "1 skipped" in printed and "noise, torn.mp4" in printed and "3 videos" in printed
    rows = rows_of(tmp_path / "out")
    assert [row["video"] for row in rows] == ["a.mp4", "noise, torn.mp4", "s2/a.mp4"]
    first, torn, last = rows
    probs = {name: float(p) for name, p in first.items() if name.startswith("prob_")}
    assert sum(probs.values()) == pytest.approx(1, abs=1e-4)
    assert max(probs, key=lambda name: probs[name]) == f"prob_{first['predicted']}"
    assert first["num_frames"] == "120" and not first["error"] and not first["num_faceless"]
    assert "noise, torn.mp4" in torn["error"] and not torn["predicted"]
    assert {**first, "video": "", "seconds": ""} == {**last, "video": "", "seconds": ""}
    for video in ("a.mp4", "s2/a.mp4"):
        assert (tmp_path / "out" / video / "predictions.jsonl").is_file()

    code, _, err = cktrain(*words)
    assert code == 2 and "noise, torn.mp4" in err and "--on-error skip" in err
    assert [row["video"] for row in rows_of(tmp_path / "out")] == ["a.mp4"]


def test_what_is_no_folder_of_videos_is_said(
    runs: dict[str, Path], videos: Path, tmp_path: Path, cktrain: Cktrain
) -> None:
    def refused(*words: object) -> str:
        code, _, err = cktrain("predict", runs["rgb"], *words, "--out", tmp_path / "out")
        assert code == 2
        return err

    assert "one video" in refused(videos, "--overlay", tmp_path / "overlay.mp4")
    assert "--on-error skip" in refused(carphone_video(), "--on-error", "skip")
    assert "--on-error later" in refused(videos, "--on-error", "later")
    cv2.imwrite(str(videos / "1.png"), np.zeros((8, 8, 3), np.uint8))
    assert "1 image and 3 videos" in refused(videos)
    only_torn = tmp_path / "torn"
    only_torn.mkdir()
    shutil.copy(videos / "noise, torn.mp4", only_torn)
    assert "none of its 1 video" in refused(only_torn, "--on-error", "skip")
