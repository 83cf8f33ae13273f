"""What a build can be asked for; defaults in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shard_builder.building.flow import FlowMethod
from shard_builder.checks import check_choice, check_integer, check_number
from shard_builder.errors import InputError
from shard_builder.format.codecs import Codec
from shard_builder.format.streams import STREAMS, FrameChoice, StreamName
from shard_builder.sources.options import OnError

Crop = Literal["none", "landmarks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Everything that decides the bytes of a dataset, besides its source.

    Args:
        streams: ``rgb``, ``flow`` or both.
        codec: ``jpg``, ``png`` or ``raw``.
        quality: JPEG quality, 1..100.
        frames: Which frames the rgb stream keeps.
        width: Width of planes and frames, in pixels.
        height: Height, in pixels; a multiple of 8, so that no JPEG block mixes x and y.
        shard_bytes: Expected size at which the larger stream's shard is cut. 0 cuts into
            ``NUM_SHARDS``, of 8 MiB to 1 GiB: many enough to build in parallel, few enough to map.
        flow_method: ``farneback`` (the original's parameters) or ``dis``.
        bound_px: Displacement at which flow saturates, in pixels per frame of the source.
        crop: ``landmarks`` cuts one face box a sequence from CK+'s 68-point files; ``none`` keeps
            the frame.
        crop_margin: Part of the box's size added on each side.
        seed: Seed of the global order.
        on_error: ``raise`` or ``skip``.

    Raises:
        InputError: If a value is out of range; the message quotes it.
    """

    streams: tuple[StreamName, ...] = STREAMS
    codec: Codec = "jpg"
    quality: int = 95
    frames: FrameChoice = "all"
    width: int = 340
    height: int = 256
    shard_bytes: int = 0
    flow_method: FlowMethod = "farneback"
    bound_px: float = 10.0
    crop: Crop = "none"
    crop_margin: float = 0.2
    seed: int = 0
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if not self.streams or not set(self.streams) <= set(STREAMS):
            raise InputError(f"streams={self.streams!r}, expected rgb, flow or both")
        # One order, whatever order they were asked for in: the bytes depend on it.
        in_order = tuple(stream for stream in STREAMS if stream in self.streams)
        object.__setattr__(self, "streams", in_order)
        check_choice("codec", self.codec, Codec)
        check_choice("frames", self.frames, FrameChoice)
        check_choice("flow_method", self.flow_method, FlowMethod)
        check_choice("crop", self.crop, Crop)
        check_choice("on_error", self.on_error, OnError)
        check_integer("quality", self.quality, low=1, high=100)
        check_integer("width", self.width, low=8, high=8192)
        check_integer("height", self.height, low=8, high=4096)
        check_number("bound_px", self.bound_px, low=1e-3, high=1e4)
        check_number("crop_margin", self.crop_margin, low=0, high=2)
        if self.shard_bytes:
            check_integer("shard_bytes", self.shard_bytes, low=1 << 12, high=1 << 40)
        check_integer("seed", self.seed, low=0, high=(1 << 63) - 1)
        if self.height % 8:
            raise InputError(
                f"height={self.height}, expected a multiple of 8: a JPEG block may not mix x and y"
                " flow"
            )


def parse_size(text: str) -> tuple[int, int]:
    """Parse ``340x256`` (width x height).

    Raises:
        InputError: If it is anything else.
    """
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdigit() and height.isdigit()):
        raise InputError(f"size={text!r}, expected WIDTHxHEIGHT in pixels, such as 340x256")
    return int(width), int(height)
