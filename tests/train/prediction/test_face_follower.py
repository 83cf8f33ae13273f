"""Nets of face crops see the face in new frames: found, followed, counted where it is missing."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shard_builder.building.flow import make_flow_estimator
from shard_builder.faces.crop import crop_image, detected_box
from shard_builder.faces.detector import FaceDetector
from shard_builder.faces.frames import iter_video
from shard_builder.faces.model import FaceModel, load_face_model
from shard_builder.faces.track import Boxes
from shard_builder.format.crop import parse_crop
from shard_builder.format.levels import quantize_flow
from shard_builder.images import resize_image, to_gray
from tests.carphone import carphone_video, read_video
from tests.conftest import BuildDataset
from tests.train.tiny_net import SHORT, Cktrain, make_tiny_net
from train.config import TrainConfig
from train.prediction.face_follower import FaceFollower
from train.prediction.figures import FACE_COLOUR, draw_label
from train.prediction.stream_model import load_stream_model
from train.prediction.window_predictor import WindowPredictor
from train.running.train_run import run_train

NO_FACE = np.empty((0, 4))


class Scripted:
    """A detector that says what it was told to say."""

    def __init__(self, answers: list[Boxes]) -> None:
        self._answers = iter(answers)

    def detect(self, image: np.ndarray) -> Boxes:
        return next(self._answers)


def followed(answers: list[Boxes], monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], int]:
    """Where a follower of windows of five frames says that the face is, after each frame."""
    monkeypatch.setattr(
        "train.prediction.face_follower.FaceDetector", lambda model: Scripted(answers)
    )
    follower = FaceFollower(FaceModel(path="", sha256="", data=b""), num_frames=5)
    places = []
    for _ in answers:
        follower.add(np.zeros((240, 320, 3), np.uint8))
        places.append(follower.locate())
    assert follower.num_frames == len(answers)
    return places, follower.num_faceless


def face_at(x: float) -> Boxes:
    return np.array([[x, 50.0, x + 100, 150.0]])


def test_the_box_is_steadier_than_detections_and_a_wrong_face_is_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    answers = [face_at(100) + rng.uniform(-3, 3, (1, 4)) for _ in range(40)]
    answers[20] = np.vstack([answers[20], [0, 0, 200, 200]])
    answers[30] = np.array([[200.0, 60, 320, 180]])
    places, num_faceless = followed(answers, monkeypatch)
    assert num_faceless == 0
    moves = np.abs(np.diff(np.array(places[5:]), axis=0)).max(axis=1)
    assert np.abs(np.array(places[5:]) - face_at(100)[0]).max() < 3 and np.median(moves) < 1.5


def test_a_face_that_moves_is_followed_and_one_that_is_hidden_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [NO_FACE] * 3 + [face_at(50 + 4 * n) for n in range(20)] + [NO_FACE] * 8
    places, num_faceless = followed(answers, monkeypatch)
    assert num_faceless == 11 and places[:3] == [None] * 3
    for number in range(8, 23):
        middle = face_at(50 + 4 * (number - 3 - 2))[0]
        assert np.abs(places[number] - middle).max() <= 5, number
    assert np.abs(places[-1] - face_at(126)[0]).max() <= 5


def test_the_overlay_shows_the_box_also_in_an_enlarged_frame() -> None:
    frame = np.full((100, 100, 3), 200, np.uint8)
    drawn = draw_label(frame, None, class_names=(), face=np.array([20.0, 30, 60, 80]))
    scale = drawn.shape[0] / 100
    rows, columns = np.nonzero((drawn == FACE_COLOUR).all(-1))
    edges = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / scale
    assert np.abs(edges - [20, 30, 60, 80]).max() < 1.5


@pytest.fixture(scope="module")
def crop_runs(
    face_model: Path, build_tiny: BuildDataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """An rgb run of face crops and a flow run of landmark crops, on one split."""
    folder = tmp_path_factory.mktemp("crop-runs")
    settings = {
        "rgb": {"crop": "faces", "face_model": str(face_model)},
        "flow": {"crop": "landmarks"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.build._torchvision_model", make_tiny_net)
        for stream, crop in settings.items():
            dataset = build_tiny(streams=(stream,), codec="jpg", **crop)
            config = TrainConfig(stream=stream, folds=3, **SHORT)  # type: ignore[arg-type]
            assert run_train(config, dataset, folder / stream, resume=False) == 0
    return {stream: folder / stream for stream in settings}


def test_a_real_face_is_followed_within_its_own_frames(
    crop_runs: dict[str, Path], face_model: Path, tmp_path: Path, cktrain: Cktrain
) -> None:
    out = tmp_path / "out"
    words = ("predict", crop_runs["rgb"], crop_runs["flow"], carphone_video(), "--out", out)
    code, printed, err = cktrain(
        *words, "--face-model", face_model, "--overlay", out / "overlay.mp4"
    )
    assert code == 0, err
    assert "a face was found in 120 of 120 frames" in printed and "notice" not in printed
    detector = FaceDetector(load_face_model(face_model))
    boxes = np.array([detector.detect(frame)[0] for frame in iter_video(carphone_video())])
    *windows, clip = map(json.loads, (out / "predictions.jsonl").read_text().splitlines())
    assert len(windows) == 24 and clip["num_faceless"] == 0
    for window in windows:
        median = np.median(boxes[window["first_frame"] : window["last_frame"] + 1], axis=0)
        assert np.abs(median - window["face"]).max() < 4, window
    assert len(read_video(out / "overlay.mp4")) == 120


@pytest.mark.parametrize("stride", [2, 7])
def test_nets_see_what_a_build_would_cut(
    stride: int, crop_runs: dict[str, Path], face_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow twin: each window's frames are cut by its box, flow is computed of the cut ones."""
    models = {stream: load_stream_model(run) for stream, run in crop_runs.items()}
    seen: dict[str, list[Any]] = {"rgb": [], "flow": []}
    for stream, model in models.items():

        def record(planes: Any, own: Any = seen[stream], answer: Any = model.logits_of) -> Any:
            own.append(planes)
            return answer(planes)

        monkeypatch.setattr(model, "logits_of", record)
    frames = list(iter_video(carphone_video()))[:40]
    predictor = WindowPredictor(
        list(models.values()), stride=stride, face_model=load_face_model(face_model)
    )
    windows = [window for _, window in predictor.iter_windows(frames) if window]
    places = {str(window.face) for window in windows}
    assert len(windows) == len(seen["rgb"]) == len(seen["flow"]) and len(places) > 1
    estimate = make_flow_estimator("dis")
    size = {"width": 340, "height": 256}
    for number, window in enumerate(windows):
        assert window.face is not None
        crops = [parse_crop(models[stream].crop, place="") for stream in ("rgb", "flow")]
        assert crops[0] and crops[1]
        box = detected_box(window.face, crops[0])
        cut = crop_image(frames[window.last_frame], box)
        assert np.array_equal(seen["rgb"][number][0], resize_image(cut, **size))
        box = detected_box(window.face, crops[1])
        shown = frames[window.first_frame : window.last_frame + 1]
        planes = iter(seen["flow"][number])
        for pair in pairwise(to_gray(crop_image(frame, box)) for frame in shown):
            levels = quantize_flow(estimate(*pair), bound_px=models["flow"].bound_px)
            for axis in (0, 1):
                assert np.array_equal(next(planes), resize_image(levels[..., axis].copy(), **size))


def test_landmark_crops_are_met_by_the_detector(
    crop_runs: dict[str, Path], face_model: Path, tiny_release: Path
) -> None:
    from shard_builder.faces.crop import landmark_box
    from shard_builder.faces.frames import iter_frames
    from shard_builder.faces.track import find_face
    from shard_builder.sources.ckplus import scan_ckplus

    detector, crop = (
        FaceDetector(load_face_model(face_model)),
        parse_crop("landmarks, margin 0.2", place=""),
    )
    assert crop
    for sequence in scan_ckplus(tiny_release).sequences[::5]:
        frames = list(iter_frames(sequence.frames))
        height, width = frames[0].shape[:2]
        face = find_face([detector.detect(f) for f in frames], width=width, height=height)
        assert face is not None
        box, true = detected_box(face, crop), landmark_box(sequence, margin=0.2)
        side = true.right - true.left
        for edge in ("left", "top", "right", "bottom"):
            assert abs(getattr(box, edge) - getattr(true, edge)) < 0.15 * side, sequence.key


def write_clip(path: Path, frames: list[np.ndarray]) -> None:
    size = (frames[0].shape[1], frames[0].shape[0])
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, size)
    for frame in frames:
        video.write(frame)
    video.release()


def test_a_face_that_comes_late_or_never(
    crop_runs: dict[str, Path], face_model: Path, tmp_path: Path, cktrain: Cktrain
) -> None:
    empty = [np.full((144, 176, 3), 90, np.uint8)] * 22
    write_clip(tmp_path / "late.mp4", empty + read_video(carphone_video())[:18])
    write_clip(tmp_path / "never.mp4", empty)
    out = tmp_path / "out"
    words = ("--out", out, "--face-model", face_model, "--overlay", out / "overlay.mp4")
    code, printed, err = cktrain("predict", crop_runs["flow"], tmp_path / "late.mp4", *words)
    assert code == 0, err
    assert "a face was found in 18 of 40 frames" in printed
    assert "no face was found in 22 of 40 frames" in printed
    first = json.loads((out / "predictions.jsonl").read_text().splitlines()[0])
    assert first["last_frame"] == 25 and len(read_video(out / "overlay.mp4")) == 40
    code, _, err = cktrain("predict", crop_runs["flow"], tmp_path / "never.mp4", *words)
    assert code == 2 and "never.mp4: no face found in any of 22 frames" in err


def test_several_faces_are_said(
    crop_runs: dict[str, Path], face_model: Path, tmp_path: Path, cktrain: Cktrain
) -> None:
    two = [np.hstack([frame, frame[:, ::-1]]) for frame in read_video(carphone_video())[:8]]
    write_clip(tmp_path / "two.mp4", two)
    words = ("--out", tmp_path / "out", "--face-model", face_model)
    code, printed, err = cktrain("predict", crop_runs["rgb"], tmp_path / "two.mp4", *words)
    assert code == 0 and "notice: several faces were found in 8 of 8 frames" in printed, err
