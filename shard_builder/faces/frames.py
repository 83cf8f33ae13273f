"""Image and video files to frames: any bit depth, gray or colour, to 8-bit RGB."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from shard_builder.errors import SourceError
from shard_builder.images import Image
from shard_builder.videos import is_video, open_video

MOST_PIXELS = 1 << 26
MOST_FILE_BYTES = 1 << 29
CAMERA_BITS = (8, 10, 12, 14, 16)
"""Bits a camera delivers; what has more than eight is stored in files of sixteen."""


def read_image(path: Path, *, gray: bool = False) -> Image:
    """Decode an image file; of 16-bit files see :func:`iter_images`.

    Args:
        path: The file.
        gray: Whether to return one channel.

    Returns:
        ``uint8`` RGB of shape (H, W, 3); a gray file has three equal channels. With ``gray``, shape
        (H, W).

    Raises:
        SourceError: If the file cannot be read or decoded.
    """
    pixels = _decode(path, gray=gray)
    return _to_8_bits(pixels, _bits_in_use(pixels))


def iter_images(paths: tuple[Path, ...]) -> Iterator[Image]:
    """Yield the images of a sequence in order, as RGB (H, W, 3) ``uint8``.

    16-bit files are scaled by the depth in use, 10, 12, 14 or 16 bits: the fewest that hold the
    largest value of the whole sequence, so that no frame is brighter than it was.

    Raises:
        SourceError: If an image cannot be decoded, or its size differs from the first one's.
    """
    bits = 0
    size: tuple[int, ...] | None = None
    for path in paths:
        pixels = _decode(path)
        if size is None:
            size = pixels.shape
        elif size != pixels.shape:
            raise SourceError(
                f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, expected {size[1]}x{size[0]}"
                f" as in {paths[0].name}"
            )
        if pixels.dtype == np.uint16 and not bits:
            bits = max(_bits_in_use(_decode(other)) for other in paths)
        yield _to_8_bits(pixels, bits)


def iter_frames(paths: tuple[Path, ...], *, kept: slice = slice(None)) -> Iterator[Image]:
    """Yield the frames of a sequence in order, as RGB (H, W, 3) ``uint8``.

    Args:
        paths: Image files, or a single video file.
        kept: Which frames; a slice without a step.

    Raises:
        SourceError: If a frame cannot be decoded, or its size differs from the first frame's.
    """
    if len(paths) == 1 and is_video(paths[0]):
        yield from islice(iter_video(paths[0]), kept.start, kept.stop)
    else:
        yield from iter_images(paths[kept])


def iter_video(path: Path) -> Iterator[Image]:
    """Yield the frames of a video in order, as RGB (H, W, 3) ``uint8``, without reading ahead.

    Raises:
        SourceError: If no frame can be decoded, or the frames change size.
    """
    size: tuple[int, ...] | None = None
    with open_video(path) as capture:
        while True:
            read, frame = capture.read()
            if not read:
                break
            if size is None:
                size = frame.shape
            elif size != frame.shape:
                raise SourceError(f"{path}: the frames change size, from {size} to {frame.shape}")
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    if size is None:
        raise SourceError(
            f"{path}: no frame can be decoded, expected a video\n  Convert it: ffmpeg -i"
            f" {path.name} video.mp4"
        )


def _decode(path: Path, *, gray: bool = False) -> npt.NDArray[Any]:
    """Decode to ``uint8`` or, where the file has 16 bits, ``uint16``."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise SourceError(f"{path}: no such file, expected an image")
        if path.stat().st_size > MOST_FILE_BYTES:
            raise SourceError(f"{path}: has more than {MOST_FILE_BYTES} bytes, expected an image")
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    check_claimed_size(path, data)
    flags = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB
    try:
        pixels = cv2.imdecode(data, flags | cv2.IMREAD_ANYDEPTH) if data.size else None
        if pixels is not None and pixels.dtype not in (np.uint8, np.uint16):
            pixels = cv2.imdecode(data, flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise SourceError(
            f"{path}: cannot be decoded, expected a whole image ({data.size} bytes found)\n"
            "  Copy the file from the release again."
        )
    return pixels


def check_claimed_size(path: Path, data: npt.NDArray[np.uint8]) -> None:
    """Make sure that an image does not claim more pixels than a picture of a face has.

    A decoder allocates what the header claims. What Pillow cannot name is left to OpenCV, which
    reads far fewer formats here than it could: see ``IMAGE_SUFFIXES``.

    Raises:
        SourceError: If it does.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(io.BytesIO(data.data)) as image:
                width, height = image.size
    except PIL.Image.DecompressionBombError:
        raise SourceError(f"{path}: claims more than {MOST_PIXELS} pixels") from None
    except Exception:  # noqa: BLE001 - no image by its header, in any of Pillow's ways to say so
        return
    if width * height > MOST_PIXELS:
        raise SourceError(
            f"{path}: claims {width}x{height} pixels, expected at most {MOST_PIXELS} in all"
        )


def _bits_in_use(pixels: npt.NDArray[Any]) -> int:
    largest = int(pixels.max(initial=0)) if pixels.dtype == np.uint16 else 0
    return next(bits for bits in CAMERA_BITS if largest < 1 << bits)


def _to_8_bits(pixels: npt.NDArray[Any], bits: int) -> Image:
    if pixels.dtype == np.uint16:
        pixels = pixels >> (bits - 8)
    return pixels.astype(np.uint8, copy=False)
