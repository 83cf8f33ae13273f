"""What a build can be asked for; the command line is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shard_builder.checks import (
    check_choice,
    check_integer,
    check_number,
    is_integer,
    option,
    set_plain,
)
from shard_builder.errors import InputError
from shard_builder.format.frames import FrameSampling, Geometry
from shard_builder.format.streams import (
    STREAMS,
    Codec,
    FlowCodec,
    FrameChoice,
    StoredCodec,
    StreamName,
)
from shard_builder.sources.options import OnError

Crop = Literal["none", "landmarks", "faces"]
FlowMethod = Literal["farneback", "dis"]
APEX_RULES = ("last", "middle", "motion")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Everything that decides the bytes of a dataset, besides its source.

    The help text of each field says what it is.

    Raises:
        InputError: If a value is out of range; the message quotes it.
    """

    codec: Codec = option("jpg", "jpg (small), png (lossless) or raw (lossless, fastest to read).")
    flow_codec: FlowCodec = option(
        "same", "Of flow: lz4 is lossless, a third of raw, and fast to read; same as --codec."
    )
    quality: int = option(95, "JPEG quality, 1 to 100.")
    streams: tuple[StreamName, ...] = option(STREAMS, "rgb,flow or one of them.")
    frames: FrameChoice = option(
        "all", "Frames the rgb stream keeps: all, last (the apex) or last3."
    )
    apex: str = option(
        "last",
        "Strongest frame where the source names none: last, middle, motion (farthest from the"
        " first) or a number from 0.",
    )
    width: int = option(340, "Width of planes and frames, in pixels.")
    height: int = option(256, "Height in pixels, a multiple of 8: no JPEG block mixes x and y.")
    flow_method: FlowMethod = option(
        "farneback", "farneback (the original's parameters) or dis (five times faster)."
    )
    bound_px: float = option(10.0, "Displacement at which flow saturates, pixels a frame.")
    flow_size: str = option(
        "", "Width x height of the frames that flow is computed on; else the source's own."
    )
    frame_step: int = option(1, "Take every so many frames of a clip, for rgb and flow.")
    fps: float | None = option(
        None, "Frames to take of a second of video; all unless given. Not with --frame-step."
    )
    crop: Crop = option(
        "none", "One face box a sequence, of CK+'s landmarks or by a face detector; none: frames."
    )
    crop_margin: float = option(0.2, "Part of the face box added on each side.")
    face_model: str = option("", "YuNet model (.onnx) of --crop faces; else OpenCV's own, cached.")
    # 256 shards are enough to build in parallel and few enough to map.
    shard_bytes: int = option(
        0, "Expected bytes at which a shard is cut; 0 cuts 256 shards of 8 MiB to 1 GiB."
    )
    seed: int = option(0, "Seed of the global order in the shards.")
    on_error: OnError = option("raise", "skip: leave faulty sequences out and list them.")

    def __post_init__(self) -> None:
        if not isinstance(self.streams, tuple | list) or not (
            self.streams and set(self.streams) <= set(STREAMS)
        ):
            raise InputError(f"streams={self.streams!r}, expected rgb, flow or both")
        # One order, whatever order they were asked for in: the bytes depend on it.
        in_order = tuple(stream for stream in STREAMS if stream in self.streams)
        object.__setattr__(self, "streams", in_order)
        check_choice("codec", self.codec, Codec)
        check_choice("flow_codec", self.flow_codec, FlowCodec)
        if self.flow_codec == "same":
            object.__setattr__(self, "flow_codec", self.codec)
        check_choice("frames", self.frames, FrameChoice)
        check_choice("flow_method", self.flow_method, FlowMethod)
        check_choice("crop", self.crop, Crop)
        check_apex_rule(self.apex)
        check_choice("on_error", self.on_error, OnError)
        check_integer("quality", self.quality, low=1, high=100)
        check_integer("width", self.width, low=8, high=8192)
        check_integer("height", self.height, low=8, high=4096)
        check_number("bound_px", self.bound_px, low=1e-3, high=1e4)
        check_number("crop_margin", self.crop_margin, low=0, high=2)
        check_integer("frame_step", self.frame_step, low=1, high=1000)
        if self.fps is not None:
            check_number("fps", self.fps, low=1e-3, high=1e4)
            if self.frame_step != 1:
                raise InputError(
                    f"frame_step={self.frame_step} is given with fps={self.fps:g}, expected one of"
                    " them"
                )
        size = self.flow_geometry
        if size and not (16 <= size.width <= 8192 and 16 <= size.height <= 4096):
            raise InputError(f"flow_size={self.flow_size!r}, expected 16x16 to 8192x4096")
        if self.face_model and self.crop != "faces":
            raise InputError(f"face_model={self.face_model!r}, expected it with crop='faces' only")
        if not is_integer(self.shard_bytes) or self.shard_bytes != 0:
            check_integer("shard_bytes", self.shard_bytes, low=1 << 12, high=1 << 40)
        check_integer("seed", self.seed, low=0, high=(1 << 63) - 1)
        set_plain(self, int, "quality", "width", "height", "shard_bytes", "seed")
        set_plain(self, float, "bound_px", "crop_margin")
        if self.height % 8:
            raise InputError(
                f"height={self.height}, expected a multiple of 8: a JPEG block may not mix x and y"
                " flow"
            )

    @property
    def flow_geometry(self) -> Geometry | None:
        """Size of the frames that flow is computed on; None: the source's."""
        if not self.flow_size:
            return None
        width, height = parse_size(self.flow_size, argument="flow_size")
        return Geometry(width=width, height=height)

    @property
    def sampling(self) -> FrameSampling:
        """Which frames of a clip are taken."""
        return FrameSampling(frame_step=self.frame_step, fps=self.fps)

    def codec_of(self, stream: str) -> StoredCodec:
        """Return the codec of a stream."""
        if stream == "rgb":
            return self.codec
        assert self.flow_codec != "same"
        return self.flow_codec


def check_apex_rule(text: object) -> None:
    """Make sure that a rule is ``last``, ``middle``, ``motion`` or the number of a frame.

    Raises:
        InputError: If it is not.
    """
    is_number = isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 8
    if not is_number and text not in APEX_RULES:
        raise InputError(
            f"apex={text!r}, expected {', '.join(APEX_RULES)} or the number of a frame, from 0"
        )


def parse_size(text: str, *, argument: str = "size") -> tuple[int, int]:
    """Parse ``340x256`` (width x height).

    Raises:
        InputError: If it is anything else.
    """
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdigit() and height.isdigit()):
        raise InputError(f"{argument}={text!r}, expected WIDTHxHEIGHT in pixels, such as 340x256")
    return int(width), int(height)
