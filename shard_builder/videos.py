"""The one place that opens videos: plain local files in a known container, whatever their names."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from shard_builder.errors import SourceError

VIDEO_SUFFIXES = (
    ".mp4",
    ".avi",
    ".mov",
    ".mkv",
    ".webm",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".flv",
    ".wmv",
    ".ts",
    ".mts",
    ".m2ts",
    ".3gp",
    ".ogv",
)
CONTAINERS = {
    "mov,mp4,m4a,3gp,3g2,mj2": rb".{4}(ftyp|moov|mdat|wide|free|skip|pnot)",
    "avi": rb"RIFF.{4}AVI",
    "matroska,webm": rb"\x1a\x45\xdf\xa3",
    "flv": rb"FLV\x01",
    "mpeg,mpegvideo": rb"\x00\x00\x01[\xba\xb3]",
    "mpegts": rb"(.{4})?\x47.{187}(.{4})?\x47",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "ogg": rb"OggS",
}
"""FFmpeg's names of the containers that are read, and how such files begin. Playlists and other
texts that make FFmpeg open further files or addresses are none of them."""
MOST_PIXELS = 1 << 26
"""Of a frame: a decoder allocates what the header claims."""
MAGIC_BYTES = 400
CAPTURE_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
ERRORS_ONLY = 2
"""OpenCV's log level that leaves out its warning that a file could not be opened."""

# What FFmpeg has to say of a damaged file belongs into an error message or nowhere. OpenCV reads
# this once, when it first opens a video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_opening = threading.Lock()


def is_video(path: Path) -> bool:
    """Tell by its suffix whether a file is a video; hidden files are none."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != "."


@contextmanager
def open_video(path: Path) -> Iterator[cv2.VideoCapture]:
    """Open a video and release it at the end.

    Args:
        path: A regular file that begins like one of ``CONTAINERS``. Its name may hold anything,
            also bytes that are not UTF-8 and what looks like an address (``take:1.mkv``).

    Raises:
        SourceError: If it cannot be read, is not a video, or cannot be opened as one.
    """
    # OpenCV takes no name that is not UTF-8 and reads a colon as an address. So the file is opened
    # here, which also proves what it is, and FFmpeg gets it by its descriptor.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        container = _container_of(path, descriptor)
        capture = _open_descriptor(descriptor, container)
    finally:
        os.close(descriptor)
    try:
        if not capture.isOpened():
            raise SourceError(
                f"{path}: cannot be opened as a video\n  Is it whole? If so, convert it: ffmpeg -i"
                f" {path.name} video.mp4"
            )
        width, height = (
            capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if not width * height <= MOST_PIXELS:
            raise SourceError(
                f"{path}: claims frames of {width:.0f}x{height:.0f} pixels, expected at most"
                f" {MOST_PIXELS} in all"
            )
        yield capture
    finally:
        capture.release()


def _container_of(path: Path, descriptor: int) -> str:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise SourceError(f"{path}: is not a regular file, expected a video")
    head = os.pread(descriptor, MAGIC_BYTES, 0)
    if not head:
        raise SourceError(f"{path}: is empty, expected a video\n  Copy or download it again.")
    for container, pattern in CONTAINERS.items():
        if re.match(pattern, head, re.DOTALL):
            return container
    raise SourceError(
        f"{path}: cannot be opened as a video (it begins with {head[:8]!r}), expected"
        f" {', '.join(VIDEO_SUFFIXES)}\n  Convert it: ffmpeg -i {path.name} video.mp4"
    )


def _open_descriptor(descriptor: int, container: str) -> cv2.VideoCapture:
    options = f"protocol_whitelist;file|format_whitelist;{container}"
    with _opening:
        own_options, level = os.environ.get(CAPTURE_OPTIONS), cv2.utils.logging.getLogLevel()
        os.environ[CAPTURE_OPTIONS] = options
        cv2.utils.logging.setLogLevel(min(level, ERRORS_ONLY))
        try:
            return cv2.VideoCapture(f"/dev/fd/{descriptor}", cv2.CAP_FFMPEG)
        finally:
            cv2.utils.logging.setLogLevel(level)
            if own_options is None:
                del os.environ[CAPTURE_OPTIONS]
            else:
                os.environ[CAPTURE_OPTIONS] = own_options
