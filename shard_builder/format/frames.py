"""Which frames of a clip a dataset takes, and the size of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Size of every plane and frame, in pixels."""

    height: Annotated[int, Meta(ge=1, le=4096)]
    width: Annotated[int, Meta(ge=1, le=8192)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSampling:
    """Which frames of a clip were taken: each ``frame_step``-th, or ``fps`` a second."""

    frame_step: Annotated[int, Meta(ge=1, le=1000)] = 1
    fps: Annotated[float, Meta(gt=0, le=1e4)] | None = None

    def __str__(self) -> str:
        if self.fps is not None:
            return f"{self.fps:g} a second"
        return "all" if self.frame_step == 1 else f"one of {self.frame_step}"


ALL_FRAMES = FrameSampling()
