"""What a build can be asked for; defaults in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shard_builder.errors import InputError
from shard_builder.format.streams import FrameChoice

CODEC_NAMES = ("jpg", "png", "raw")
FLOW_METHOD_NAMES = ("farneback", "dis")
STREAM_NAMES = ("rgb", "flow")
CROPS = ("none", "landmarks")


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

    streams: tuple[str, ...] = STREAM_NAMES
    codec: str = "jpg"
    quality: int = 95
    frames: FrameChoice = "all"
    width: int = 340
    height: int = 256
    shard_bytes: int = 0
    flow_method: str = "farneback"
    bound_px: float = 10.0
    crop: str = "none"
    crop_margin: float = 0.2
    seed: int = 0
    on_error: Literal["raise", "skip"] = "raise"

    def __post_init__(self) -> None:
        known = bool(self.streams) and set(self.streams) <= set(STREAM_NAMES)
        _choice("--streams", ",".join(self.streams), ("rgb", "flow", "rgb,flow"), known)
        object.__setattr__(
            self, "streams", tuple(name for name in STREAM_NAMES if name in self.streams)
        )
        _choice("--codec", self.codec, CODEC_NAMES, self.codec in CODEC_NAMES)
        _choice(
            "--frames",
            self.frames,
            ("all", "last", "last3"),
            self.frames in ("all", "last", "last3"),
        )
        _choice(
            "--flow-method",
            self.flow_method,
            FLOW_METHOD_NAMES,
            self.flow_method in FLOW_METHOD_NAMES,
        )
        _choice("--crop", self.crop, CROPS, self.crop in CROPS)
        _range("--quality", self.quality, 1, 100)
        _range("--size (width)", self.width, 8, 8192)
        _range("--size (height)", self.height, 8, 4096)
        _range("--bound-px", self.bound_px, 1e-3, 1e4)
        _range("--crop-margin", self.crop_margin, 0, 2)
        if self.shard_bytes:
            _range("--shard-bytes", self.shard_bytes, 1 << 12, 1 << 40)
        _range("--seed", self.seed, 0, (1 << 63) - 1)
        if self.height % 8:
            raise InputError(
                f"--size: height {self.height} is not a multiple of 8, so that a JPEG block would"
                " mix x and y flow"
            )


def parse_size(text: str) -> tuple[int, int]:
    """Parse ``340x256`` (width x height).

    Raises:
        InputError: If it is anything else.
    """
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdigit() and height.isdigit()):
        raise InputError(f"--size {text!r}, expected WIDTHxHEIGHT in pixels, such as 340x256")
    return int(width), int(height)


def _choice(flag: str, value: object, choices: tuple[str, ...], valid: bool) -> None:
    if not valid:
        raise InputError(f"{flag} {value!r}, expected one of {', '.join(choices)}")


def _range(flag: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{flag} {value}, expected {low} to {high}")
