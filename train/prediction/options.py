"""How inputs are predicted, and by what; the command line is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shard_builder.checks import check_choice, option
from shard_builder.lock import TAKE_OVER
from shard_builder.sources.options import OnError

BEST, DEVICES = "best was chosen on the validation part.", "auto, cpu, cuda or cuda:N."
"""Help of options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """Options of a prediction; the help text of each field says what it is.

    Raises:
        InputError: If a value cannot be; the message quotes it.
    """

    overlay: Path | None = option(None, "Also write the video with the label drawn in (.mp4).")
    stride: int = option(5, "Frames from one window to the next; the last frame ends one too.")
    fps: float | None = option(None, "Frame rate in place of the input's own.")
    explain: bool = option(False, "Also write explain.png: Grad-CAM of some windows.")
    checkpoint: Literal["last", "best"] = option("last", BEST)
    device: str = option("auto", DEVICES)
    face_model: Path | None = option(
        None, "YuNet model (.onnx) for nets of face crops; else OpenCV's own, cached."
    )
    on_error: OnError = option("raise", "skip: go on after a video of a folder with a fault.")
    take_over: bool = option(False, TAKE_OVER)

    def __post_init__(self) -> None:
        check_choice("on_error", self.on_error, OnError)
        check_choice("checkpoint", self.checkpoint, ("last", "best"))


DEFAULTS = PredictOptions()
