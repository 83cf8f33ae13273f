"""Prediction on a real face and on a CK+ sequence, without any dataset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import pytest

from shard_builder.faces.sampler import FrameSampler
from shard_builder.images import Image
from tests.carphone import carphone_video, read_video
from tests.train.tiny_net import Cktrain
from train.prediction.options import PredictOptions
from train.prediction.predict import run_predict
from train.prediction.window_predictor import WindowPrediction


def test_a_real_video_is_predicted_from_the_checkpoints_alone(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows that sum to one, the first of them before the whole video is read, and figures over
    its own frames."""
    windows: list[int] = []
    read, read_at_window = [0], list[int]()
    choose = FrameSampler.choose

    def count(
        sampler: FrameSampler, frames: Iterable[tuple[Image, float | None]]
    ) -> Iterator[Image]:
        for frame in choose(sampler, frames):
            read[0] += 1
            yield frame

    def note(window: WindowPrediction, end_s: float, names: object) -> None:
        windows.append(window.last_frame)
        read_at_window.append(read[0])

    monkeypatch.setattr(FrameSampler, "choose", count)
    clip = run_predict(
        [runs["rgb"], runs["flow"]],
        carphone_video(),
        PredictOptions(overlay=tmp_path / "out" / "overlay.mp4"),
        out=tmp_path / "out",
        on_window=note,
    )
    assert clip.num_frames == 120 and clip.num_windows == len(windows) == 24
    assert windows[0] == 5 and windows[-1] == 119
    assert read_at_window[0] < 60 and clip.first_output_s < clip.seconds
    lines = [
        json.loads(line)
        for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    ]
    assert [line["kind"] for line in lines] == ["window"] * 24 + ["clip"]
    for line in lines:
        for probs in line["probs"].values():
            assert sum(probs.values()) == pytest.approx(1, abs=1e-6)
    assert len(read_video(tmp_path / "out" / "overlay.mp4")) == 120
    for name in ("bars.png", "timeline.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_a_ckplus_sequence_is_predicted_too(
    runs: dict[str, Path], tiny_release: Path, tmp_path: Path
) -> None:
    sequence = next(
        path for path in sorted(tiny_release.rglob("S*/0*")) if list(path.glob("*.png"))
    )
    clip = run_predict([runs["flow"]], sequence, out=tmp_path / "out")
    assert clip.num_frames == len(list(sequence.glob("*.png"))) and set(clip.probs) == {"flow"}


def test_a_face_model_for_nets_of_whole_frames_is_refused(
    runs: dict[str, Path], tmp_path: Path, cktrain: Cktrain
) -> None:
    words = ("--out", tmp_path / "out", "--face-model", "yu.onnx")
    code, _, err = cktrain("predict", runs["rgb"], carphone_video(), *words)
    assert code == 2 and "--face-model yu.onnx" in err and "no net here" in err


def test_a_run_of_rgb_alone_takes_a_picture_and_flow_says_that_it_does_not(
    runs: dict[str, Path], tmp_path: Path, cktrain: Cktrain
) -> None:
    picture, out = tmp_path / "a face.png", tmp_path / "out"
    cv2.imwrite(str(picture), read_video(carphone_video())[0])
    overlay = out / "overlay.mp4"
    code, printed, err = cktrain(
        "predict", runs["rgb"], picture, "--out", out, "--overlay", overlay
    )
    assert code == 0 and " s  frame 1: " in printed and "notice" not in printed, err
    window, clip = map(json.loads, (out / "predictions.jsonl").read_text().splitlines())
    assert window["probs"] == clip["probs"] and clip["notices"] == []
    assert len(read_video(overlay)) == 1 and (out / "timeline.png").exists()
    for picked in ([runs["flow"]], [runs["rgb"], runs["flow"]]):
        code, _, err = cktrain("predict", *picked, picture, "--out", tmp_path / "none")
        assert code == 2 and f"{picture}: 1 frame, expected at least 2" in err, err


def test_what_must_be_known_of_an_answer_stands_beside_it(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, frame in zip((1, 2, 4), read_video(carphone_video()), strict=False):
        cv2.imwrite(str(frames / f"{number}.png"), frame)
    clip = run_predict([runs["flow"]], frames, out=tmp_path / "out")
    gap, short = clip.notices
    assert "1 frame is missing" in gap and "3 frames are 2 pairs, fewer than the 5" in short
    last = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["notices"] == [gap, short]


def test_nothing_is_written_among_what_is_read(
    runs: dict[str, Path], tmp_path: Path, cktrain: Cktrain
) -> None:
    """Figures beside frames were the next prediction's frames."""
    frames, videos = tmp_path / "frames" / "1.png", tmp_path / "videos" / "1.mp4"
    for folder in (frames.parent, videos.parent):
        folder.mkdir()
    cv2.imwrite(str(frames), read_video(carphone_video())[0])
    videos.write_bytes(carphone_video().read_bytes())
    for folder, name in ((frames.parent, frames.name), (videos.parent, videos.name)):
        code, _, err = cktrain("predict", runs["rgb"], folder, "--out", folder)
        assert code == 2 and f"--out {folder}: is the input" in err, err
        assert [path.name for path in folder.iterdir()] == [name]
