"""Image and video files to frames: any bit depth, gray or colour, to 8-bit RGB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from shard_builder.errors import SourceError
from shard_builder.images import Image, decode_gray, decode_rgb

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def read_image(path: Path, *, gray: bool = False) -> Image:
    """Decode an image file.

    Args:
        path: The file.
        gray: Whether to return one channel.

    Returns:
        ``uint8`` RGB of shape (H, W, 3); a gray file has three equal channels. With ``gray``, shape
        (H, W).

    Raises:
        SourceError: If the file cannot be read or decoded.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    image = decode_gray(data) if gray else decode_rgb(data)
    if image is None:
        raise SourceError(
            f"{path}: cannot be decoded, expected a whole image ({data.size} bytes found)\n"
            "  Copy the file from the release again."
        )
    return image


def iter_frames(paths: tuple[Path, ...]) -> Iterator[Image]:
    """Yield the frames of a sequence, or of its single video, as RGB (H, W, 3) ``uint8``.

    Raises:
        SourceError: If a frame cannot be decoded, or its size differs from the first frame's.
    """
    if len(paths) == 1 and paths[0].suffix.lower() in VIDEO_SUFFIXES:
        yield from iter_video(paths[0])
        return
    size: tuple[int, ...] | None = None
    for path in paths:
        image = read_image(path)
        if size is None:
            size = image.shape
        elif image.shape != size:
            raise SourceError(
                f"{path}: {image.shape[1]}x{image.shape[0]} pixels, expected {size[1]}x{size[0]} as"
                f" in {paths[0].name}"
            )
        yield image


def iter_video(path: Path) -> Iterator[Image]:
    """Yield the frames of a video in order, as RGB (H, W, 3) ``uint8``, without reading ahead.

    Raises:
        SourceError: If no frame can be decoded, or the frames change size.
    """
    capture = cv2.VideoCapture(str(path))
    size: tuple[int, ...] | None = None
    try:
        while True:
            read, frame = capture.read()
            if not read:
                break
            if size not in (None, frame.shape):
                raise SourceError(f"{path}: the frames change size, from {size} to {frame.shape}")
            size = frame.shape
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    finally:
        capture.release()
    if size is None:
        raise SourceError(
            f"{path}: no frame can be decoded, expected a video\n"
            f"  Convert it: ffmpeg -i {path.name} video.mp4"
        )
