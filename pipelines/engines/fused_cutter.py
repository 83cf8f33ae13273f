"""Crop, resize, flip and normalise with one call of a compiled kernel a sample."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import halide as hl
import numpy as np
import numpy.typing as npt
import torch

from pipelines.engines.halide_kernel import COLUMN_ONE, ROW_ONE, TILE, CutTables, Kernel, KernelKind
from pipelines.engines.normalize import BIT_DTYPES, channel_scale_shift
from pipelines.plan.crops import INPUT_SIZE
from pipelines.streams import StreamKind, UInt8

ROOM = 256
"""Kernels are made for planes of up to some multiple of this width, so that datasets share them."""

_idle_kernels: defaultdict[KernelKind, deque[Kernel]] = defaultdict(deque)
"""Compiled kernels that no thread uses now, of all cutters: of a kind a process compiles as many as
ever work at once."""


class FusedCutter:
    """Cuts windows into (224, 224, C) arrays; any number of threads may share one.

    Args:
        kind: The stream.
        shape: Of a window: 2L flow planes (2L, H, W) as x1, y1, x2, y2, ..., or a frame (H, W, 3).
        dtype: ``uint8`` levels, or a float type: normalised.
        target: A Halide target; empty for this processor.
    """

    def __init__(
        self, kind: StreamKind, shape: tuple[int, ...], dtype: torch.dtype, *, target: str = ""
    ) -> None:
        num_channels, height, width = shape if kind.has_pairs else (shape[2], *shape[:2])
        self._stream, self._shape, self._size = kind, shape, (height, width)
        self._kernel_kind = KernelKind(
            is_planar=kind.has_pairs,
            num_channels=num_channels,
            max_width=_round_up(width, ROOM),
            dtype=str(dtype).removeprefix("torch."),  # type: ignore[arg-type]
            target=target,
        )
        self._out_shape = (INPUT_SIZE, INPUT_SIZE, num_channels)
        self._out_dtype = np.dtype(str(BIT_DTYPES[dtype]).removeprefix("torch."))

    def cut(
        self, window: UInt8, box: tuple[int, int, int, int], mirrored: bool, out: npt.NDArray[Any]
    ) -> None:
        """Write one sample.

        Args:
            window: ``uint8``, of the shape above; it may be read-only.
            box: y, x, height, width of the crop, in pixels; it is resized bilinearly to 224x224.
            mirrored: Whether to flip left to right; x flow then becomes 255 - x.
            out: (224, 224, C), C-contiguous, of the dtype's bits: see ``BIT_DTYPES``.

        Raises:
            ValueError: If an array is not as said, or the box does not lie in the planes.
        """
        if window.shape != self._shape or window.dtype != np.uint8:
            raise ValueError(
                f"a window of {window.dtype} {window.shape}, expected uint8 {self._shape}"
            )
        if out.shape != self._out_shape or out.dtype != self._out_dtype:
            raise ValueError(
                f"out is {out.dtype} {out.shape}, expected {self._out_dtype} {self._out_shape}"
            )
        if not out.flags.c_contiguous:
            raise ValueError(f"out has strides {out.strides}, expected a C-contiguous array")
        view = _find_view(box, self._size, mirrored, self._kernel_kind)
        kernel = self._take_kernel()
        kernel.set_tables(view.tables)
        kernel.cut(_take_source(window, view), out, turned=mirrored)
        _idle_kernels[self._kernel_kind].append(kernel)

    def _take_kernel(self) -> Kernel:
        try:
            return _idle_kernels[self._kernel_kind].pop()
        except IndexError:
            kernel = Kernel(self._kernel_kind)
            if self._kernel_kind.dtype != "uint8":
                scale, shift = channel_scale_shift(self._stream, self._out_shape[2])
                kernel.set_normalisation(np.array(scale, np.float32), np.array(shift, np.float32))
            return kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """The part of a window that a kernel reads.

    Args:
        index: Takes it from the window.
        padded_shape: Of the array that it is copied into, where the planes have no room around the
            crop; else None.
        tables: Which of its pixels make which output pixel.
    """

    index: tuple[slice, ...]
    padded_shape: tuple[int, ...] | None
    tables: CutTables


class _Writable:
    """Passes memory on as writable: Halide's buffers take no other, though sources stay as they
    are.
    """

    def __init__(self, array: UInt8) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}
        self._array = array


def _take_source(window: UInt8, view: _View) -> UInt8:
    source = window[view.index]
    if view.padded_shape is not None:
        part, source = source, np.zeros(view.padded_shape, np.uint8)
        source[tuple(slice(length) for length in part.shape)] = part
    return source if source.flags.writeable else np.asarray(_Writable(source))


@lru_cache(maxsize=4096)
def _find_view(
    box: tuple[int, int, int, int], size: tuple[int, int], mirrored: bool, kind: KernelKind
) -> _View:
    """Place a view around a box: two rows at least, whole tiles wide.

    Raises:
        ValueError: If the box does not lie in a plane of that size.
    """
    y, x, height, width = box
    if not (0 <= y < y + height <= size[0] and 0 <= x < x + width <= size[1]):
        raise ValueError(
            f"box y {y}, x {x}, height {height}, width {width}, expected one within a plane of"
            f" {size[0]} rows and {size[1]} columns"
        )
    num_rows, num_columns = max(2, height), _round_up(width, TILE)
    channels = kind.num_channels
    if num_rows <= size[0] and num_columns <= size[1]:
        top, left = min(y, size[0] - num_rows), min(x, size[1] - num_columns)
        places = slice(top, top + num_rows), slice(left, left + num_columns)
        padded_shape = None
    else:
        top, left = y, x
        places = slice(y, y + height), slice(x, x + width)
        shape = num_rows, num_columns
        padded_shape = (channels, *shape) if kind.is_planar else (*shape, channels)
    return _View(
        index=(slice(None), *places) if kind.is_planar else places,
        padded_shape=padded_shape,
        tables=CutTables(
            *_column_tables(width, x - left, num_columns, mirrored, channels, kind.num_lanes),
            *_row_tables(height, y - top, num_rows),
        ),
    )


# Kept by size, not by box: a crop table has 91 boxes or more, but three sizes or four, and what is
# shared stays in the processor's cache.
@lru_cache(maxsize=1024)
def _column_tables(
    length: int, offset: int, extent: int, mirrored: bool, num_channels: int, num_lanes: int
) -> tuple[hl.Buffer, hl.Buffer]:
    lower, weights = _blend_axis(length, offset, extent)
    if mirrored:
        lower, weights = lower[::-1], weights[::-1]
    rounded = np.rint(weights * COLUMN_ONE).astype(np.uint16)
    return (
        hl.Buffer((lower * num_channels).astype(np.int32)),
        hl.Buffer(np.repeat(rounded[:, None], num_lanes, axis=1)),
    )


@lru_cache(maxsize=1024)
def _row_tables(length: int, offset: int, extent: int) -> tuple[hl.Buffer, hl.Buffer]:
    lower, weights = _blend_axis(length, offset, extent)
    return (
        hl.Buffer(lower.astype(np.int32)),
        hl.Buffer(np.rint(weights * ROW_ONE).astype(np.uint16)),
    )


def _blend_axis(
    length: int, offset: int, extent: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return of each of 224 outputs the lower of its two source pixels, and the upper one's weight.

    Args:
        length: Of the crop, pixels; output pixel centres lie evenly between its edges, as in cv2.
        offset: Of the crop in the view, pixels.
        extent: Of the view, pixels, >= 2; both pixels lie in it.
    """
    places = (np.arange(INPUT_SIZE) + 0.5) * (length / INPUT_SIZE) - 0.5
    places = np.clip(places, 0, length - 1)
    lower = np.floor(places).astype(np.int64)
    weights = places - lower
    # The view's last pixel has none above it: it is the upper one of the pair below, entirely.
    is_last = lower + offset == extent - 1
    return lower + offset - is_last, np.where(is_last, 1.0, weights)


def _round_up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple
