"""Times of a video come from its container, and a video that ends early is told."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from tests.mp4 import cut, vary, write_mp4
from tests.train.tiny_net import Cktrain


def predicted(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_times_and_overlay_follow_a_rate_that_varies(
    runs: dict[str, Path], tmp_path: Path, cktrain: Cktrain
) -> None:
    clip, overlay = tmp_path / "clip.mp4", tmp_path / "overlay.mp4"
    write_mp4(clip, num_frames=40, fps=20)
    vary(clip)
    code, printed, err = cktrain(
        "predict", runs["rgb"], clip, "--out", tmp_path / "out", "--overlay", overlay
    )
    assert code == 0, err
    assert f"{overlay}: the video with the label in it" in printed
    windows = [row for row in predicted(tmp_path / "out") if row["kind"] == "window"]
    for row in windows:
        number = int(str(row["last_frame"]))
        true_s = 0.075 * min(number, 20) + 0.025 * max(0, number - 20)
        assert row["end_s"] == pytest.approx(true_s, abs=0.002)
    assert "the frame rate varies (13.3 to 40.0 a second)" in printed
    shown = cv2.VideoCapture(str(overlay))
    assert shown.get(cv2.CAP_PROP_FRAME_COUNT) / shown.get(cv2.CAP_PROP_FPS) == pytest.approx(
        2.0, abs=0.1
    )


def test_a_constant_rate_gives_no_notice_and_a_cut_clip_one(
    runs: dict[str, Path], tmp_path: Path, cktrain: Cktrain
) -> None:
    clip = tmp_path / "clip.mp4"
    write_mp4(clip, num_frames=60, fps=29.97)
    code, printed, err = cktrain("predict", runs["rgb"], clip, "--out", tmp_path / "whole")
    assert code == 0 and "notice" not in printed, (printed, err)
    cut(clip, 1 / 3)
    code, printed, err = cktrain("predict", runs["rgb"], clip, "--out", tmp_path / "cut")
    assert code == 0, err
    assert "notice: cut short:" in printed and "60 in its header" in printed
