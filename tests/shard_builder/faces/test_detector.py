"""``--crop faces`` on a real face: videos, folders, gray and large frames; clips without a face."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.dataset import open_dataset
from shard_builder.faces.crop import crop_image, square_box
from shard_builder.faces.detector import FaceDetector
from shard_builder.faces.frames import iter_video
from shard_builder.faces.model import load_face_model
from shard_builder.faces.track import find_face
from shard_builder.files import digest_file
from shard_builder.images import Image, resize_image
from tests.carphone import carphone_video, read_video
from tests.programs import assert_refused, ckshard

NUM_FRAMES, HEIGHT, WIDTH = 8, 144, 176
PLACE = (520, 300)
"""Left and top of the face's frames in large ones."""
SMALL = ("--crop", "faces", "--size", "64x48", "--flow-method", "dis", "--codec", "png")


@pytest.fixture(scope="session")
def per_frame_boxes(face_model: Path) -> np.ndarray:
    """What OpenCV's detector itself finds in every frame of the video: left, top, right, bottom."""
    net = cv2.FaceDetectorYN.create(str(face_model), "", (WIDTH, HEIGHT), 0.6)
    boxes = [net.detect(frame)[1][0, :4] for frame in read_video(carphone_video())]
    return np.array([[x, y, x + width, y + height] for x, y, width, height in boxes])


def enlarged(frame: Image) -> Image:
    """A frame in the corner of a large, dull one."""
    canvas = np.full((720, 1280, 3), 90, np.uint8)
    left, top = PLACE
    canvas[top : top + HEIGHT, left : left + WIDTH] = frame
    return canvas


def gray(frame: Image) -> Image:
    return cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def test_one_box_lies_where_each_frame_has_its_face(
    face_model: Path, per_frame_boxes: np.ndarray
) -> None:
    """In colour, in gray, and in large frames, which are looked at in a bounded size."""
    detector = FaceDetector(load_face_model(face_model))
    frames = list(iter_video(carphone_video()))
    expected = np.median(per_frame_boxes, axis=0)
    for look in (lambda frame: frame, gray, enlarged):
        detections = [
            detector.detect(look(frame)) for frame in frames[:: 1 + 3 * (look is enlarged)]
        ]
        height, width = look(frames[0]).shape[:2]
        box = find_face(detections, width=width, height=height)
        assert box is not None
        if look is enlarged:
            box = box - np.array(PLACE * 2)
        assert np.abs(box - expected).max() < 4


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of a video, folders of colour, gray and large frames, and one without a face."""
    root = tmp_path_factory.mktemp("clips")
    frames = read_video(carphone_video())[:NUM_FRAMES]
    (root / "video.mp4").write_bytes(carphone_video().read_bytes())
    noise = np.random.default_rng(0).integers(0, 255, (NUM_FRAMES, 96, 96, 3), np.uint8)
    kinds = {
        "colour": frames,
        "gray": [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames],
        "large": [enlarged(frame) for frame in frames],
        "faceless": [cv2.GaussianBlur(image, (0, 0), 3) for image in noise],
    }
    for kind, images in kinds.items():
        (root / kind).mkdir()
        for number, image in enumerate(images):
            assert cv2.imwrite(str(root / kind / f"{number:03d}.png"), image)
    rows = ("video.mp4,happy,p1", "colour,sad,p1", "gray,happy,p2", "large,sad,p2")
    (root / "clips.csv").write_text("\n".join(["path,label,subject", *rows, "faceless,sad,p3"]))
    return root


def test_build_cuts_the_face_and_says_how(face_model: Path, clips: Path, tmp_path: Path) -> None:
    table, dataset = clips / "clips.csv", tmp_path / "dataset"
    words = ("build", table, dataset, *SMALL, "--crop-margin", "0.3", "--face-model", face_model)
    assert_refused(
        ckshard(*words), "faceless", "no face persists", "0 of 8 frames", "--on-error skip"
    )
    done = ckshard(*words, "--on-error", "skip")
    assert done.returncode == 0, done.stderr
    assert "1 sequence skipped" in done.stdout and done.stderr == ""
    assert "no face persists" in (dataset / "skipped.jsonl").read_text()
    said = f"faces, margin 0.3, face model sha256 {digest_file(face_model).sha256}"
    assert json.loads((dataset / "manifest.json").read_text())["crop"] == said
    for command in ("verify", "inspect"):
        shown = "".join(ckshard(command, dataset).stdout.replace("│", "").split())
        assert "".join(said.split()) in shown, command
    detector = FaceDetector(load_face_model(face_model))
    frames = list(iter_video(carphone_video()))
    with open_dataset(dataset) as opened:
        assert opened.manifest.num_sequences == 4
        for key, first, look in (("video", 0, None), ("large", 0, enlarged), ("gray", 0, gray)):
            shown_frames = frames if key == "video" else frames[:NUM_FRAMES]
            images = [look(frame) if look else frame for frame in shown_frames]
            height, width = images[0].shape[:2]
            face = find_face(
                [detector.detect(image) for image in images], width=width, height=height
            )
            assert face is not None
            cut = crop_image(images[first], square_box(face, margin=0.3))
            row = next(n for n in range(4) if key in opened.keys[n])
            stored = cv2.imdecode(opened.read_member("rgb", row, 0), cv2.IMREAD_COLOR_RGB)
            assert np.array_equal(stored, resize_image(cut, width=64, height=48)), key


def test_a_model_that_is_none_is_told_before_anything_is_written(
    clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "yu.onnx").write_text("hello")
    words = ("build", clips / "clips.csv", tmp_path / "dataset", "--yes")
    done = ckshard(*words, "--crop", "faces", "--face-model", tmp_path / "yu.onnx")
    assert_refused(done, "yu.onnx", "cannot use it as a face detector")
    assert not (tmp_path / "dataset").exists()
    assert_refused(ckshard(*words, "--face-model", "yu.onnx"), "--face-model", "--crop faces")
