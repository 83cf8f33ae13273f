"""Prediction on a real face and on a CK+ sequence, without any dataset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

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
