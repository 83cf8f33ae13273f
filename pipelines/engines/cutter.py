"""The cutter of this machine: a compiled kernel, or cv2 where Halide has no wheel."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy.typing as npt
import torch

from pipelines.engines.crop_resize import Cv2Cutter
from pipelines.streams import StreamKind, UInt8

CutterName = Literal["halide", "cv2"]

try:
    from pipelines.engines.fused_cutter import FusedCutter
except ImportError:
    CUTTER: CutterName = "cv2"
else:
    CUTTER = "halide"


class Cutter(Protocol):
    """Makes a sample of a window; any number of threads may share one."""

    def cut(
        self, window: UInt8, box: tuple[int, int, int, int], mirrored: bool, out: npt.NDArray[Any]
    ) -> None:
        """Write one sample.

        Args:
            window: 2L flow planes (2L, H, W) as x1, y1, x2, y2, ..., or a frame (H, W, 3).
            box: y, x, height, width of the crop, in pixels; it is resized bilinearly to 224x224.
            mirrored: Whether to flip left to right; x flow then becomes 255 - x.
            out: (224, 224, C), C-contiguous, of the dtype's bits: see ``BIT_DTYPES``.
        """


def make_cutter(kind: StreamKind, shape: tuple[int, ...], dtype: torch.dtype) -> Cutter:
    """Return the cutter of this machine.

    Args:
        kind: The stream.
        shape: Of its windows.
        dtype: Of the samples; floats are normalised.
    """
    return (FusedCutter if CUTTER == "halide" else Cv2Cutter)(kind, shape, dtype)
