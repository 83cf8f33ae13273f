"""Frames of image files: any bit depth becomes 8 bits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from shard_builder.faces.frames import iter_frames


def write_gray(path: Path, level: int, dtype: type) -> Path:
    pixels = np.full((8, 8), level, dtype)
    pixels[0, 0] = 0
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize(("bits", "brightest"), [(8, 200), (10, 900), (12, 3000), (16, 60000)])
def test_16_bit_images_are_scaled_by_the_depth_in_use(
    suffix: str, bits: int, brightest: int, tmp_path: Path
) -> None:
    """The whole sequence decides: its dark first frame stays as dark as it was."""
    values = [brightest // 4, brightest // 2, brightest]
    paths = tuple(
        write_gray(tmp_path / f"{number}{suffix}", value, np.uint16)
        for number, value in enumerate(values)
    )
    assert [int(frame.max()) for frame in iter_frames(paths)] == [v >> (bits - 8) for v in values]


def test_8_bit_images_stay_as_they_are(tmp_path: Path) -> None:
    paths = tuple(write_gray(tmp_path / f"{n}.png", n, np.uint8) for n in (1, 30, 255))
    assert [int(frame.max()) for frame in iter_frames(paths)] == [1, 30, 255]
