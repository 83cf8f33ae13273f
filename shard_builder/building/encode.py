"""One sequence to the bytes of its members: read, flow, quantise, resize, encode."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from shard_builder.building.apex import MotionFromFirst, check_apex, named_apex
from shard_builder.building.flow import make_flow_estimator
from shard_builder.building.flow_levels import LevelStatistics
from shard_builder.building.kept_frames import KeptFrames
from shard_builder.building.options import BuildOptions
from shard_builder.errors import SourceError, counted
from shard_builder.faces.crop import Box, crop_image, landmark_box, square_box
from shard_builder.faces.detector import FaceDetector
from shard_builder.faces.frames import faults_of, iter_frames, read_image
from shard_builder.faces.model import FaceModel
from shard_builder.faces.sampler import FrameSampler
from shard_builder.faces.track import find_face
from shard_builder.format.codecs import encode_image, encode_lz4, encode_raw
from shard_builder.format.levels import quantize_flow
from shard_builder.format.streams import StreamName, member_extensions
from shard_builder.images import Image, resize_image, to_gray
from shard_builder.sources.sequence import FaceSequence

RETURN_STEP = 4
"""Of so many frames one is compared with the first, to see whether the motion returns."""


@dataclass(slots=True, kw_only=True)
class EncodedSequence:
    """The image members of one sequence, per stream by extension, in order.

    Args:
        num_frames: Frames of the sequence.
        apex: Its strongest frame, from 0.
        returns: Whether its motion returns although the last frame is taken for its apex.
        members: The members.
    """

    num_frames: int
    apex: int
    returns: bool
    members: dict[StreamName, dict[str, bytes]]


class SequenceEncoder:
    """Encodes sequences with one set of options; holds one sequence's planes at a time.

    Attributes:
        levels: Statistics of all flow levels so far.
        seconds: Where the time went: ``read``, ``flow``, ``encode``, ``pack`` (the shard's).
    """

    def __init__(self, options: BuildOptions, face_model: FaceModel | None = None) -> None:
        self.options = options
        self.levels = LevelStatistics()
        self.seconds = {"read": 0.0, "flow": 0.0, "encode": 0.0, "pack": 0.0}
        self._estimate = make_flow_estimator(options.flow_method, size=options.flow_geometry)
        self._detector = FaceDetector(face_model) if face_model else None

    def encode(self, sequence: FaceSequence) -> EncodedSequence:
        """Read a sequence and return its members.

        Raises:
            SourceError: If an image of it cannot be decoded or has another size, or a library fails
                on it.
        """
        with faults_of(sequence.frames[0], what=f"sequence {sequence.key}"):
            return self._encode(sequence)

    def _encode(self, sequence: FaceSequence) -> EncodedSequence:
        has_rgb, has_flow = "rgb" in self.options.streams, "flow" in self.options.streams
        options = self.options
        rgb = KeptFrames(sequence, options)
        planes: list[Image | bytes] = []
        rule = options.apex if named_apex(sequence, options.apex) is None else ""
        motion = MotionFromFirst() if rule in ("last", "motion") else None
        num_frames = 0
        gray: Image | None = None
        sampler = self._sampler()
        with self.timer("read"):
            box = self._box(sequence)
        for frame in self._timed_reading(self._frames(sequence, box, sampler)):
            if has_rgb and rgb.takes(num_frames):
                image = self._resize(frame)
                rgb.add(image if rgb.is_sliding else self._stored("rgb", image))
            previous, gray = gray, to_gray(frame)
            if motion and (rule == "motion" or num_frames % RETURN_STEP == 0):
                with self.timer("flow"):
                    motion.add(gray)
            num_frames += 1
            if has_flow and previous is not None and not sequence.pairs:
                plane = self._plane(self._flow_levels(previous, gray))
                planes.append(self._stored("flow", plane))
        _check_length(sequence, sampler.num_seen)
        if sampler.slow_rate is not None:
            raise SourceError(
                f"{sequence.frames[0]}: {sampler.slow_rate:.1f} frames a second, expected at least"
                f" fps={options.fps:g}"
            )
        if has_flow and sequence.pairs:
            pairs = self._timed_reading(self._pairs(sequence, box))
            for levels in pairs:
                self.levels.add(levels)
                planes.append(self._stored("flow", self._plane(levels)))
        least = 2 if has_flow else 1
        if num_frames < least:
            raise SourceError(
                f"{sequence.frames[0]}: {counted(num_frames, 'frame')} in sequence {sequence.key},"
                f" expected at least {least}"
            )
        if rule == "last" and motion and gray is not None:
            motion.add(gray)  # whatever the step, the last frame tells whether the motion returns
        apex = self._apex(sequence, sampler, motion)
        images = {"rgb": rgb.kept(num_frames, apex) if has_rgb else [], "flow": planes}
        members = {
            stream: self._members(stream, images[stream], num_frames, apex)
            for stream in self.options.streams
        }
        returns = rule == "last" and motion is not None and motion.returns
        return EncodedSequence(num_frames=num_frames, apex=apex, returns=returns, members=members)

    def _apex(
        self, sequence: FaceSequence, sampler: FrameSampler, motion: MotionFromFirst | None
    ) -> int:
        apex, num_frames = named_apex(sequence, self.options.apex), len(sampler.positions)
        if apex is not None:
            check_apex(sequence, apex, sampler.num_seen)
            return sampler.nearest(apex)
        if self.options.apex == "motion" and motion:
            return motion.apex
        return num_frames // 2 if self.options.apex == "middle" else num_frames - 1

    def _frames(
        self, sequence: FaceSequence, box: Box | None, sampler: FrameSampler
    ) -> Iterator[Image]:
        for frame in iter_frames(sequence.frames, kept=sequence.kept, sampler=sampler):
            yield crop_image(frame, box) if box else frame

    def _sampler(self) -> FrameSampler:
        return FrameSampler(frame_step=self.options.frame_step, fps=self.options.fps)

    def _box(self, sequence: FaceSequence) -> Box | None:
        """Return where the face is in the frames of a sequence; None without a crop."""
        if self.options.crop == "landmarks":
            return landmark_box(sequence, margin=self.options.crop_margin)
        if self._detector is None:
            return None
        detections, height, width = [], 0, 0
        # The frames are read twice, so that a long video is never held.
        for frame in iter_frames(sequence.frames, kept=sequence.kept, sampler=self._sampler()):
            detections.append(self._detector.detect(frame))
            height, width = frame.shape[:2]
        face = find_face(detections, width=width, height=height)
        if face is None:
            num_found = sum(len(faces) > 0 for faces in detections)
            raise SourceError(
                f"{sequence.frames[0]}: no face persists in sequence {sequence.key} (one was found"
                f" in {num_found} of {counted(len(detections), 'frame')}), expected by"
                " crop='faces'\n"
                "  Look at the frames, or use crop='none'."
            )
        return square_box(face, margin=self.options.crop_margin)

    def _pairs(self, sequence: FaceSequence, box: Box | None) -> Iterator[Image]:
        """Yield the stored flow of a prepared tree as (2H, W) levels at the source's resolution."""
        size = read_image(sequence.frames[0]).shape[:2] if box else None
        for x_path, y_path in sequence.pairs:
            x, y = read_image(x_path, gray=True), read_image(y_path, gray=True)
            if size and x.shape != size:
                raise SourceError(
                    f"{x_path}: {x.shape[1]}x{x.shape[0]} pixels, expected {size[1]}x{size[0]} as"
                    f" in {sequence.frames[0]}: they are cut by one box"
                )
            if x.shape != y.shape:
                raise SourceError(
                    f"{y_path}: {y.shape[1]}x{y.shape[0]} pixels, expected"
                    f" {x.shape[1]}x{x.shape[0]} as in {x_path}"
                )
            yield np.concatenate([crop_image(x, box), crop_image(y, box)] if box else [x, y])

    def _flow_levels(self, previous: Image, following: Image) -> Image:
        """Return the flow between two frames, quantised: (2h, w)."""
        with self.timer("flow"):
            flow = self._estimate(previous, following)
            levels = quantize_flow(flow, bound_px=self.options.bound_px)
        self.levels.add(levels, flow)
        return np.concatenate([levels[..., 0], levels[..., 1]])

    def _plane(self, levels: Image) -> Image:
        """Resize x and y apart, (2h, w) levels -> (2H, W)."""
        return np.concatenate([self._resize(axis) for axis in np.split(levels, 2)])

    def _resize(self, image: Image) -> Image:
        return resize_image(image, width=self.options.width, height=self.options.height)

    def _stored(self, stream: StreamName, image: Image) -> Image | bytes:
        """Encode at once what is a member of its own: long clips are not held as pixels."""
        codec = self.options.codec_of(stream)
        if codec == "raw":
            return image
        with self.timer("encode"):
            if codec == "lz4":
                return encode_lz4(image)
            return encode_image(image, codec=codec, quality=self.options.quality)

    def _members(
        self, stream: StreamName, images: list[Image | bytes], num_frames: int, apex: int
    ) -> dict[str, bytes]:
        """Encode the frames or planes of a sequence; one npy of them all with codec raw."""
        codec, frames = self.options.codec_of(stream), self.options.frames
        if codec == "raw":
            stack = np.stack([image for image in images if not isinstance(image, bytes)])
            if stream == "flow":  # x above y in one plane becomes two channels
                stack = stack.reshape(-1, self.options.height, self.options.width)
            with self.timer("encode"):
                data = [encode_raw(stack)]
        else:
            stored = (
                image if isinstance(image, bytes) else self._stored(stream, image)
                for image in images
            )
            data = [item for item in stored if isinstance(item, bytes)]
        names = member_extensions(
            stream, codec=codec, num_frames=num_frames, apex=apex, frames=frames
        )
        return dict(zip(names, data, strict=True))

    @contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Add the time inside to ``seconds[name]``."""
        begin = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - begin

    def _timed_reading(self, images: Iterator[Image]) -> Iterator[Image]:
        while True:
            with self.timer("read"):
                image = next(images, None)
            if image is None:
                return
            yield image


def _check_length(sequence: FaceSequence, num_frames: int) -> None:
    """Raise where a video ended before its offset: its header may promise more than it holds."""
    first, last = sequence.onset or 0, sequence.offset
    if last is not None and num_frames < last + 1 - first:
        raise SourceError(
            f"{sequence.place or sequence.source}: offset {last}, but the video ends after"
            f" {counted(first + num_frames, 'frame')}, expected an offset of at most"
            f" {first + num_frames - 1}"
        )
