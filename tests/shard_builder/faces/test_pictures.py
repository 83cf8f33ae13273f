"""Pictures and clips as cameras and editors leave them: turned, transparent, of four inks, odd."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from shard_builder import BuildOptions, ScanOptions, build_dataset, scan_source, verify_dataset
from shard_builder.faces.frames import iter_frames, iter_video
from tests.face_sets import write_images
from tests.mp4 import changed, write_mp4
from tests.shard_builder.test_videos import levels, write_video

COLOURS = np.zeros((32, 48, 3), np.uint8)
COLOURS[:, :24] = (200, 30, 20)
COLOURS[:16, 24:] = (20, 160, 40)
COLOURS[16:, 24:] = (10, 60, 220)
QUARTER_TURN = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
"""The matrix of an mp4's track that shows it turned to the right."""


def read(path: Path) -> np.ndarray:
    return next(iter_frames((path,))).astype(int)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_orientation_of_exif_is_followed(orientation: int, tmp_path: Path) -> None:
    picture, exif = PIL.Image.fromarray(COLOURS), PIL.Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=98, subsampling=0)
    with PIL.Image.open(tmp_path / "turned.jpg") as stored:
        expected = np.asarray(PIL.ImageOps.exif_transpose(stored).convert("RGB"), int)
    found = read(tmp_path / "turned.jpg")
    assert found.shape == expected.shape and np.abs(found - expected).max() <= 4


def test_an_alpha_channel_is_left_out(tmp_path: Path) -> None:
    alpha = np.full((32, 48, 1), 7, np.uint8)
    PIL.Image.fromarray(np.concatenate([COLOURS, alpha], axis=2)).save(tmp_path / "clear.png")
    assert (read(tmp_path / "clear.png") == COLOURS).all()


def test_four_inks_become_three_colours(tmp_path: Path) -> None:
    PIL.Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "ink.jpg", quality=98)
    found = read(tmp_path / "ink.jpg")
    for place in ((8, 8), (8, 40), (28, 40)):  # inside of each field
        assert np.abs(found[place] - COLOURS[place]).max() <= 12, place


def test_a_video_that_was_filmed_upright_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, num_frames=6, size=(128, 96))
    plain = next(iter(iter_video(path)))

    def turn(kind: bytes, content: bytes) -> bytes:
        return content[:40] + QUARTER_TURN + content[76:] if kind == b"tkhd" else content

    path.write_bytes(changed(path.read_bytes(), turn))
    turned = next(iter(iter_video(path)))
    assert turned.shape == (128, 96, 3)
    assert np.array_equal(turned, cv2.rotate(plain, cv2.ROTATE_90_CLOCKWISE))


def test_a_webm_without_duration_is_read_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.webm")
    data = path.read_bytes()
    duration = re.search(rb"\x44\x89\x88.{8}", data, re.DOTALL)
    assert duration, "a duration that can be taken out"
    path.write_bytes(data.replace(duration[0], b"\xec\x89" + bytes(9)))  # an empty element
    assert levels(path) == list(range(12))


def test_frames_of_odd_sizes_are_built(tmp_path: Path) -> None:
    for label, (height, width) in {"happy": (47, 63), "sad": (99, 51)}.items():
        for subject in ("a", "b"):
            paths = [tmp_path / "set" / label / f"{subject}_1" / f"{n}.png" for n in range(4)]
            write_images(paths)
            for path in paths:
                picture = cv2.imread(str(path))
                assert picture is not None
                cv2.imwrite(str(path), cv2.resize(picture, (width, height)))
    options = BuildOptions(flow_method="dis", width=72, height=56, codec="png")
    scan = ScanOptions(layout="{label}/{subject}_1/{frame}.png")
    source = scan_source(tmp_path / "set", scan)
    build_dataset(source, tmp_path / "set", tmp_path / "dataset", options)
    report = verify_dataset(tmp_path / "dataset")
    assert not report.faults and len(source.sequences) == 4
