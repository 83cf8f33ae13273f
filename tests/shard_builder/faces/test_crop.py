"""The face crop: one box a sequence from the landmarks of all frames, the same for frames and
flow."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.dataset import open_dataset
from shard_builder.building.build import build_dataset
from shard_builder.building.flow import make_flow_estimator
from shard_builder.building.options import BuildOptions
from shard_builder.errors import SourceError
from shard_builder.faces.crop import Box, crop_image, landmark_box, read_landmarks
from shard_builder.faces.frames import read_image
from shard_builder.format.levels import quantize_flow
from shard_builder.images import resize_image, to_gray
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.sources.sequence import FaceSequence


def sequence_with(points: list[np.ndarray], folder: Path) -> FaceSequence:
    marks, frames = [], []
    for number, values in enumerate(points, start=1):
        path = folder / f"S001_001_{number:08d}_landmarks.txt"
        path.write_text("".join(f"   {x:.7e}   {y:.7e}\n" for x, y in values))
        marks.append(path)
        frames.append(folder / f"S001_001_{number:08d}.png")
    return FaceSequence(
        key="S001_001",
        subject="S001",
        session="001",
        emotion="happy",
        code=5,
        source="S001/001",
        frames=tuple(frames),
        landmarks=tuple(marks),
    )


def test_one_square_box_holds_the_landmarks_of_all_frames(tmp_path: Path) -> None:
    one = np.full((68, 2), 100.0)
    two = one.copy()
    two[0], two[1] = (60.0, 120.0), (180.0, 90.0)
    box = landmark_box(sequence_with([one, two], tmp_path), margin=0.0)
    assert box == Box(left=60, top=45, right=180, bottom=165)
    wider = landmark_box(sequence_with([one, two], tmp_path), margin=0.25)
    assert wider == Box(left=30, top=15, right=210, bottom=195)


def test_outside_the_image_the_border_is_repeated() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    cut = crop_image(image, Box(left=-2, top=1, right=3, bottom=6))
    assert cut.shape == (5, 5, 3)
    assert np.array_equal(cut[0, 2:], image[1, :3]) and np.array_equal(cut[0, 0], image[1, 0])
    assert np.array_equal(cut[4], cut[2])


def test_frames_and_flow_are_cut_by_the_same_box(tiny_release: Path, tmp_path: Path) -> None:
    options = BuildOptions(codec="png", crop="landmarks", flow_method="dis", shard_bytes=64 << 20)
    source = scan_ckplus(tiny_release)
    build_dataset(source, tiny_release, tmp_path / "dataset", options, workers=2)
    sequence = source.sequences[3]
    box = landmark_box(sequence, margin=options.crop_margin)
    frames = [crop_image(read_image(path), box) for path in sequence.frames]
    with open_dataset(tmp_path / "dataset") as dataset:
        assert dataset.manifest.crop == "landmarks, margin 0.2"
        row = int(dataset.rows_of([sequence.key])[0])
        stored = cv2.imdecode(dataset.read_member("rgb", row, -1), cv2.IMREAD_COLOR_RGB)
        assert np.array_equal(stored, resize_image(frames[-1], width=340, height=256))
        levels = quantize_flow(
            make_flow_estimator("dis")(to_gray(frames[0]), to_gray(frames[1])), bound_px=10
        )
        pair = cv2.imdecode(dataset.read_member("flow", row, 0), cv2.IMREAD_GRAYSCALE)
        for axis, plane in enumerate((pair[:256], pair[256:])):
            assert np.array_equal(
                plane, resize_image(levels[..., axis].copy(), width=340, height=256)
            )


@pytest.mark.parametrize(
    "text", ["1 2\n" * 67, "1 2\n" * 67 + "nan 1\n", "1 2 3\n" * 68, "hello\n"]
)
def test_landmark_files_that_are_none_are_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "S001_001_00000001_landmarks.txt"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"S001_001_00000001_landmarks\.txt"):
        read_landmarks(path)


def test_a_release_without_landmarks_says_what_is_missing(tmp_path: Path) -> None:
    sequence = FaceSequence(
        key="S001_001",
        subject="S001",
        session="001",
        emotion="happy",
        code=5,
        source="S001/001",
        frames=(tmp_path / "a.png",),
    )
    with pytest.raises(
        SourceError, match=r"(?s)no landmark file for each frame of S001_001.*Landmarks\.zip"
    ):
        landmark_box(sequence, margin=0.2)
