"""One sequence to the bytes of its members: read, flow, quantise, resize, encode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shard_builder.building.flow import LevelStatistics, make_flow_estimator
from shard_builder.building.options import BuildOptions
from shard_builder.errors import SourceError
from shard_builder.format.codecs import encode_image, encode_raw
from shard_builder.format.levels import Flow, quantize_flow
from shard_builder.format.streams import NUM_LAST_FRAMES
from shard_builder.images import Image, resize_image, to_gray
from shard_builder.sources.crop import crop_image, face_box
from shard_builder.sources.frames import iter_frames, read_image
from shard_builder.sources.sequence import FaceSequence


@dataclass(slots=True, kw_only=True)
class EncodedSequence:
    """The image members of one sequence, per stream by extension, in order."""

    num_frames: int
    members: dict[str, dict[str, bytes]]


@dataclass(slots=True, kw_only=True)
class EncodeStatistics:
    """What encoding saw and where its time went, in seconds."""

    levels: LevelStatistics = field(default_factory=LevelStatistics)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"read": 0.0, "flow": 0.0, "encode": 0.0}
    )


class SequenceEncoder:
    """Encodes sequences with one set of options; holds one sequence's planes at a time."""

    def __init__(self, options: BuildOptions) -> None:
        self.options = options
        self.statistics = EncodeStatistics()
        self._estimate: Callable[[Image, Image], Flow] = make_flow_estimator(options.flow_method)  # type: ignore[arg-type]

    def encode(self, sequence: FaceSequence) -> EncodedSequence:
        """Read a sequence and return its members.

        Raises:
            SourceError: If an image of it cannot be decoded or has another size.
        """
        frames = self._timed("read", self._frames(sequence))
        pairs = None if "flow" not in self.options.streams else self._pairs(sequence)
        kept: list[tuple[int, Image]] = []
        planes: list[Image] = []
        keep = NUM_LAST_FRAMES.get(self.options.frames)
        previous: Image | None = None
        number = -1
        for number, frame in enumerate(frames):
            if "rgb" in self.options.streams:
                kept.append((number, self._resize(frame)))
                kept = kept[-keep:] if keep else kept
            if pairs is not None and not sequence.pairs:
                gray = to_gray(frame)
                if previous is not None:
                    planes.append(self._plane(self._flow_levels(previous, gray)))
                previous = gray
        if pairs is not None and sequence.pairs:
            planes = [self._plane(levels) for levels in self._timed("read", pairs)]
        if number < 1:
            raise SourceError(
                f"{sequence.frames[0]}: {number + 1} frames in sequence {sequence.key}, expected at"
                " least 2"
            )
        return EncodedSequence(num_frames=number + 1, members=self._members(kept, planes))

    def _frames(self, sequence: FaceSequence) -> Iterator[Image]:
        box = (
            face_box(sequence, margin=self.options.crop_margin)
            if self.options.crop == "landmarks"
            else None
        )
        for frame in iter_frames(sequence.frames):
            yield frame if box is None else crop_image(frame, box)

    def _pairs(self, sequence: FaceSequence) -> Iterator[Image]:
        """Yield the stored flow of a prepared tree as (2H, W) levels at the source's resolution."""
        for x_path, y_path in sequence.pairs:
            x, y = read_image(x_path, gray=True), read_image(y_path, gray=True)
            if x.shape != y.shape:
                raise SourceError(
                    f"{y_path}: {y.shape[1]}x{y.shape[0]} pixels, expected"
                    f" {x.shape[1]}x{x.shape[0]} as in {x_path}"
                )
            yield np.concatenate([x, y])

    def _flow_levels(self, previous: Image, following: Image) -> Image:
        begin = time.perf_counter()
        flow = self._estimate(previous, following)
        levels = quantize_flow(flow, bound_px=self.options.bound_px)
        self.statistics.seconds["flow"] += time.perf_counter() - begin
        return np.concatenate([levels[..., 0], levels[..., 1]])

    def _plane(self, levels: Image) -> Image:
        """Resize x and y apart, (2h, w) levels -> (2H, W)."""
        self.statistics.levels.add(levels)
        middle = levels.shape[0] // 2
        return np.concatenate([self._resize(levels[:middle]), self._resize(levels[middle:])])

    def _resize(self, image: Image) -> Image:
        return resize_image(image, width=self.options.width, height=self.options.height)

    def _members(
        self, frames: list[tuple[int, Image]], planes: list[Image]
    ) -> dict[str, dict[str, bytes]]:
        begin = time.perf_counter()
        members: dict[str, dict[str, bytes]] = {}
        codec, quality = self.options.codec, self.options.quality
        if "rgb" in self.options.streams:
            if codec == "raw":
                members["rgb"] = {"rgb.npy": encode_raw(np.stack([frame for _, frame in frames]))}
            else:
                digits = max(3, len(str(frames[-1][0])))
                members["rgb"] = {
                    f"rgb-{number:0{digits}d}.{codec}": encode_image(
                        frame,
                        codec=codec,  # type: ignore[arg-type]
                        quality=quality,
                    )
                    for number, frame in frames
                }
        if "flow" in self.options.streams:
            if codec == "raw":
                stack: npt.NDArray[np.uint8] = np.stack(planes).reshape(
                    -1, self.options.height, self.options.width
                )
                members["flow"] = {"flow.npy": encode_raw(stack)}
            else:
                digits = max(3, len(str(len(planes) - 1)))
                members["flow"] = {
                    f"flow-{number:0{digits}d}.{codec}": encode_image(
                        plane,
                        codec=codec,  # type: ignore[arg-type]
                        quality=quality,
                    )
                    for number, plane in enumerate(planes)
                }
        self.statistics.seconds["encode"] += time.perf_counter() - begin
        return members

    def _timed(self, name: str, items: Iterator[Image]) -> Iterator[Image]:
        while True:
            begin = time.perf_counter()
            item = next(items, None)
            self.statistics.seconds[name] += time.perf_counter() - begin
            if item is None:
                return
            yield item
