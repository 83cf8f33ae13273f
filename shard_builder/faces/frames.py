"""Image and video files to frames: any bit depth, gray or colour, to 8-bit RGB."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from shard_builder.errors import SourceError, counted
from shard_builder.faces.sampler import FrameSampler
from shard_builder.images import Image
from shard_builder.videos import MOST_PIXELS, is_video, open_video

MOST_FILE_BYTES = 1 << 29
MISSING_FRAMES, WHOLE_FRACTION = 2, 0.95
"""What a header may promise more than whole files hold: frames at the end, part of all."""
CAMERA_BITS = (8, 10, 12, 14, 16)
"""Bits a camera delivers; what has more than eight is stored in files of sixteen."""


@contextmanager
def faults_of(path: Path, *, what: str) -> Iterator[None]:
    """Make every error of a library that works on one item a fault of that item.

    Args:
        path: Its file, which the message begins with.
        what: What it is, ``sequence S005_001``.

    Raises:
        SourceError: In the place of what OpenCV or NumPy raise; one that names no file gets one.
    """
    try:
        yield
    except SourceError as error:
        if str(path.parent) in str(error):
            raise
        raise SourceError(f"{path}: {error}") from None
    except (cv2.error, ValueError, ArithmeticError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise SourceError(f"{path}: {what} cannot be used ({reason})") from error


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


def iter_frames(
    paths: tuple[Path, ...], *, kept: slice = slice(None), sampler: FrameSampler | None = None
) -> Iterator[Image]:
    """Yield the frames of a sequence in order, as RGB (H, W, 3) ``uint8``.

    Args:
        paths: Image files, or a single video file.
        kept: Which frames; a slice without a step.
        sampler: Which of these; None takes all.

    Raises:
        SourceError: If a frame cannot be decoded, or its size differs from the first frame's, or
            the sampler has no times to go by.
    """
    frames: Iterator[tuple[Image, float | None]]
    if len(paths) == 1 and is_video(paths[0]):
        timed = iter_timed_video(paths[0], on_cut=_refuser(paths[0]))
        frames = islice(timed, kept.start, kept.stop)
    else:
        frames = ((image, None) for image in iter_images(paths[kept]))
    return (sampler or FrameSampler()).choose(frames)


def iter_video(path: Path) -> Iterator[Image]:
    """Yield the frames of a video in order, as RGB (H, W, 3) ``uint8``, without reading ahead.

    Raises:
        SourceError: If no frame can be decoded, the frames change size, or the file ends before its
            header says.
    """
    return (frame for frame, _ in iter_timed_video(path, on_cut=_refuser(path)))


def _refuser(path: Path) -> Callable[[str], None]:
    def refuse(what: str) -> None:
        raise SourceError(f"{path}: {what}\n  Copy the file again, or convert it with ffmpeg.")

    return refuse


def iter_timed_video(path: Path, *, on_cut: Callable[[str], None]) -> Iterator[tuple[Image, float]]:
    """Yield frames as :func:`iter_video` does, each with its time in the container, in seconds.

    Args:
        path: The video.
        on_cut: Called at the end with a sentence if the file ends before its header says.

    Raises:
        SourceError: If no frame can be decoded, or the frames change size.
    """
    size: tuple[int, ...] | None = None
    num_frames, time_s = 0, 0.0
    with open_video(path) as capture:
        expected, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        while True:
            read, frame = capture.read()
            if not read:
                break
            if size is None:
                size = frame.shape
            elif size != frame.shape:
                raise SourceError(f"{path}: the frames change size, from {size} to {frame.shape}")
            num_frames, time_s = num_frames + 1, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), time_s
    if size is None:
        raise SourceError(
            f"{path}: no frame can be decoded, expected a video\n  Convert it: ffmpeg -i"
            f" {path.name} video.mp4"
        )
    # Where the rate varies the number in the header is an estimate: the times must end early too.
    is_short = num_frames < min(expected - MISSING_FRAMES, WHOLE_FRACTION * expected)
    if is_short and fps > 0 and time_s < WHOLE_FRACTION * (expected - MISSING_FRAMES) / fps:
        on_cut(
            f"cut short: {counted(num_frames, 'frame')} can be decoded, {int(expected)} in its"
            " header"
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
