"""Frames to predict on, one by one: a video, a picture, a folder of images, a CK+ sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from shard_builder.checks import check_number
from shard_builder.errors import InputError, SourceError
from shard_builder.faces.frames import iter_images, iter_timed_video
from shard_builder.faces.sampler import FrameSampler
from shard_builder.format.frames import ALL_FRAMES, FrameSampling
from shard_builder.images import Image
from shard_builder.sources.ckplus import IMAGE_NAME
from shard_builder.sources.clips import numbered_images
from shard_builder.sources.walk import IMAGE_SUFFIXES, is_image, natural_key
from shard_builder.videos import open_video

MIN_FPS, MAX_FPS = 1e-3, 1e4
CKPLUS_FPS = 30.0
"""Frame rate taken for folders of images; CK+ was recorded at 30 frames per second."""


UNEVEN_FRACTION = 0.1
"""Where two steps in time differ by more from the usual one, the rate is said to vary."""
CLOCK_S = 0.0015


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSource:
    """Where frames come from; iterating reads them lazily, as RGB (H, W, 3) ``uint8``.

    Args:
        path: The video file or the folder.
        kind: ``video``, ``folder``, ``ckplus`` (a folder of ``S005_001_00000001.png`` files:
            neutral to peak) or ``image``, a single one.
        fps: Frames per second.
        num_frames: How many there are; for a video what its header says, None if it says nothing.
        files: The images of a folder, in order.
        has_own_times: Whether the container's times count, and not a rate that was given.
        sampler: Which frames are taken: as for the dataset that a net was trained on.
        times_s: Times of the frames read so far, where the container gives them.
        notices: What reading found out.
    """

    path: Path
    kind: Literal["video", "folder", "ckplus", "image"]
    fps: float
    num_frames: int | None
    files: tuple[Path, ...] = ()
    has_own_times: bool = False
    sampler: FrameSampler = field(default_factory=FrameSampler)
    times_s: list[float] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not MIN_FPS <= self.fps <= MAX_FPS:
            raise ValueError(
                f"{self.path}: {self.fps} frames per second, expected a positive number"
            )

    def __iter__(self) -> Iterator[Image]:
        """Read the frames in order.

        Raises:
            SourceError: If a frame cannot be decoded or has another size than the first.
        """
        yield from self.sampler.choose(self._timed_frames())
        if self.sampler.slow_rate is not None:
            self.notices.append(
                f"{self.sampler.slow_rate:.1f} frames a second, fewer than the net was trained on:"
                " motion from one to the next is larger"
            )

    def _timed_frames(self) -> Iterator[tuple[Image, float]]:
        if self.files:
            for number, frame in enumerate(iter_images(self.files)):
                yield frame, number / self.fps
            return
        for number, (frame, time_s) in enumerate(
            iter_timed_video(self.path, on_cut=self.notices.append)
        ):
            self.times_s.append(time_s)
            yield frame, time_s if self.has_own_times else number / self.fps
        steps = np.diff(self.times_s)
        if self.has_own_times and len(steps) and self._is_uneven(steps):
            self.notices.append(
                f"the frame rate varies ({1 / steps.max():.1f} to {1 / steps.min():.1f} a second);"
                " times are the container's, flow is taken from frame to frame"
            )

    @staticmethod
    def _is_uneven(steps: npt.NDArray[np.float64]) -> bool:
        middle = float(np.median(steps))
        # The last frame may stand longer; and clocks of milliseconds round.
        wrong = np.abs(steps - middle) > np.maximum(UNEVEN_FRACTION * middle, CLOCK_S)
        return bool(steps.min() > 0 and wrong.sum() > 1)

    @property
    def name(self) -> str:
        """The key of a CK+ sequence, else the name of the file or folder."""
        match = IMAGE_NAME.fullmatch(self.files[0].name) if self.kind == "ckplus" else None
        return f"{match[1]}_{match[2]}" if match else self.path.resolve().name

    def time_of(self, number: int) -> float:
        """Return when a frame that has been taken is shown, in seconds from the first one."""
        times, number = self.times_s, self.position_of(number)
        if not self.has_own_times or len(times) <= number or not _is_rising(times[: number + 1]):
            return number / self.fps
        return times[number] - times[0]

    def position_of(self, number: int) -> int:
        """Return which frame of the input one that has been taken is, from 0."""
        return self.sampler.positions[number]


def open_frames(
    path: Path, *, fps: float | None = None, sampling: FrameSampling = ALL_FRAMES
) -> FrameSource:
    """Look at an input without reading its frames.

    Args:
        path: A video file, a picture, or a folder whose images are sorted by the numbers in their
            names; hidden files are left out.
        fps: Frame rate to use in place of the video's own, or of 30 for a folder.
        sampling: Which frames to take.

    Raises:
        InputError: If there is nothing to read, two images are one frame, or there is no rate to
            take a number of frames a second by.
    """
    if fps is not None:
        check_number("fps", fps, low=MIN_FPS, high=MAX_FPS)
    if path.is_dir():
        return _open_folder(path, fps, sampling)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file or folder,"
            " expected a video, a picture, a folder of frames or a CK+ sequence"
        )
    if is_image(path):
        return FrameSource(
            path=path, kind="image", fps=fps or CKPLUS_FPS, num_frames=1, files=(path,)
        )
    with open_video(path) as capture:
        own_fps = capture.get(cv2.CAP_PROP_FPS)
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    rate = fps or (own_fps if MIN_FPS <= own_fps <= MAX_FPS else CKPLUS_FPS)
    return FrameSource(
        path=path,
        kind="video",
        fps=rate,
        num_frames=int(count) if 0 < count < 1 << 31 else None,
        has_own_times=fps is None,
        sampler=FrameSampler(frame_step=sampling.frame_step, fps=sampling.fps),
    )


def _is_rising(times_s: list[float]) -> bool:
    return len(times_s) < 2 or times_s[-1] > times_s[-2] >= times_s[0]


def _open_folder(path: Path, fps: float | None, sampling: FrameSampling) -> FrameSource:
    images = [file for file in path.iterdir() if is_image(file) and file.is_file()]
    if not images:
        raise InputError(
            f"{path}: no images in it, expected frames named in order"
            f" ({', '.join(IMAGE_SUFFIXES)})\n"
            "  For a CK+ release pass one sequence, such as cohn-kanade-images/S005/001."
        )
    images.sort(key=lambda image: natural_key(image.name))
    is_ckplus = all(IMAGE_NAME.fullmatch(image.name) for image in images)
    if sampling.fps is not None and fps is None and not is_ckplus:
        raise InputError(
            f"{path}: images have no frame rate, but the net was trained on {sampling.fps:g} frames"
            " a second\n  Say how many these are by fps=..."
        )
    return FrameSource(
        path=path,
        kind="ckplus" if is_ckplus else "folder",
        fps=fps or CKPLUS_FPS,
        num_frames=len(images),
        files=tuple(images),
        sampler=FrameSampler(frame_step=sampling.frame_step, fps=sampling.fps),
        notices=list(_order_notices(path)),
    )


def _order_notices(folder: Path) -> Iterator[str]:
    """Say where the names of a folder's images do not tell one whole sequence.

    Raises:
        SourceError: If two images have one place in it: between them nothing moves.
    """
    runs = numbered_images(folder)
    if len(runs) > 1:
        first, second = (run[0][1].name for run in list(runs.values())[:2])
        yield (
            f"{len(runs)} kinds of image names ({first}, {second}, ...): all are taken for one"
            " clip, in the order of their names"
        )
    for run in runs.values():
        numbers, images = zip(*run, strict=True)
        steps = np.diff(numbers)
        if not steps.all():
            twice = int((steps == 0).argmax())
            raise SourceError(
                f"{images[twice + 1]}: the same frame as {images[twice].name} by its name, expected"
                " each one once\n  Move one kind of files to a folder of their own."
            )
        num_missing = int((steps // steps.min() - 1).sum()) if len(steps) else 0
        if num_missing:
            place = int((steps != steps.min()).argmax())
            noun = "frame is" if num_missing == 1 else "frames are"
            yield (
                f"{num_missing} {noun} missing, the first after {images[place].name}: motion over a"
                " gap is larger than it was"
            )
