"""Inputs of a prediction: real video, folders of frames, CK+ sequences, and what is none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from shard_builder.errors import InputError, SourceError
from tests.carphone import carphone_video
from train.prediction.frame_source import open_frames


def write_frames(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for level, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((24, 32), 10 * level, np.uint8))


def test_video_is_read_lazily_in_colour() -> None:
    source = open_frames(carphone_video())
    assert (source.kind, source.num_frames, round(source.fps, 2)) == ("video", 120, 29.97)
    frames = iter(source)
    first = next(frames)
    assert first.shape == (144, 176, 3) and first.dtype == np.uint8
    reference = cv2.VideoCapture(str(carphone_video())).read()[1]
    assert (first == reference[..., ::-1]).all()
    assert sum(1 for _ in frames) == 119


def test_folder_is_sorted_by_number_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    write_frames(tmp_path, ["frame1.png", "frame2.png", "frame10.png"])
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "._frame3.png").write_bytes(b"x")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    source = open_frames(tmp_path)
    assert source.kind == "folder" and source.num_frames == 3 and source.fps == 30.0
    assert [int(frame[0, 0, 0]) for frame in source] == [0, 10, 20]


def test_ckplus_sequence_is_recognised(tmp_path: Path) -> None:
    write_frames(tmp_path / "S005" / "001", [f"S005_001_{n:08d}.png" for n in (1, 2, 3)])
    assert open_frames(tmp_path / "S005" / "001").kind == "ckplus"
    with pytest.raises(InputError, match="pass one sequence, such as cohn-kanade-images/S005/001"):
        open_frames(tmp_path)


def test_what_is_no_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_frames(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(InputError, match="cannot be opened as a video"):
        open_frames(tmp_path / "text.mp4")
    (tmp_path / "none.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"none\.mp4: is empty"):
        open_frames(tmp_path / "none.mp4")


def test_a_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    write_frames(tmp_path, ["0.png", "happy.png"])
    source = open_frames(tmp_path / "happy.png")
    assert (source.kind, source.num_frames, source.name) == ("image", 1, "happy.png")
    assert [int(frame[0, 0, 0]) for frame in source] == [10]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["f1.png", "f2.png", "f3.png"], []),
        (["f1.png", "f3.png", "f5.png"], []),  # each second one
        (
            ["f8.png", "f9.png", "f10.png", "f14.png", "f16.png"],
            ["4 frames are missing", "f10.png"],
        ),
        (["a.png", "b.png", "c.png"], ["3 kinds of image names (a.png, b.png, ...)"]),
    ],
)
def test_names_that_tell_no_whole_sequence_are_said(
    names: list[str], words: list[str], tmp_path: Path
) -> None:
    write_frames(tmp_path, names)
    notices = open_frames(tmp_path).notices
    assert len(notices) == bool(words) and all(word in notices[0] for word in words), notices


def test_a_frame_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write_frames(tmp_path, ["1.png", "2.png", "2.jpg", "3.png"])
    with pytest.raises(SourceError, match=r"2\.png: the same frame as 2\.jpg"):
        open_frames(tmp_path)


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path, ["1.png", "2.png"])
    (tmp_path / "3.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    with pytest.raises(SourceError, match=r"3\.png: cannot be decoded"):
        list(open_frames(tmp_path))
