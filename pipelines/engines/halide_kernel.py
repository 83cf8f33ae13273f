"""One sample in one call: a kernel that Halide compiles for this processor as the program runs.

Crop, bilinear resize, mirror, turned x flow, channels_last and normalisation happen row by row, so
that nothing leaves the processor's cache between them:

1. Flow: the planes' rows are interleaved to channels_last; the strided stores of a tile become one
   interleave in registers. Turned x flow is an XOR here. An image is channels_last as it comes.
2. The two source rows of an output row are blended, 16 bits a value, 8 of them a fraction.
3. For each output pixel its two source pixels are blended, all channels in one vector: two loads at
   an index from a table, two high multiplications, one store. A mirrored table mirrors.

Levels are integer arithmetic; normalisation is one multiplication and one addition in float32,
never fused. So every processor, thread and batch gives the same bits. A level is at most 1.02 off
exact bilinear interpolation: half a level by the 8 bits of a row's weight, half by rounding.

Halide: Ragan-Kelley et al., "Halide", PLDI 2013.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import halide as hl
import numpy as np
import numpy.typing as npt

from pipelines.plan.crops import INPUT_SIZE

KernelDtype = Literal["uint8", "float32", "float16", "bfloat16"]

TILE = 16
"""Pixels that are interleaved at once; the width of a source is a multiple, so there is no tail."""

ROW_ONE, COLUMN_ONE = 256, 65535
"""The weight of one, of a row and of a column."""

HALF_LEVEL = 129  # and a 256th of a level for what the two high multiplications cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelKind:
    """What a kernel is compiled for.

    Args:
        is_planar: Whether a source is flow planes (C, h, w), else an image (h, w, C).
        num_channels: Channels of a sample; even if planar.
        max_width: Width of the widest source, pixels.
        dtype: Of the samples; floats are normalised.
        target: A Halide target, such as ``x86-64-linux-avx-avx2``; empty for this processor.
    """

    is_planar: bool
    num_channels: int
    max_width: int
    dtype: KernelDtype
    target: str = ""

    @property
    def num_lanes(self) -> int:
        """16-bit lanes of a vector that holds a pixel's channels; a power of two."""
        return max(4, 1 << (self.num_channels - 1).bit_length())


@dataclass(frozen=True, slots=True)
class CutTables:
    """Which source pixels are blended into which output pixel; any thread may read them.

    The kernel believes them: an index past the source reads past the source.

    Args:
        columns: Of each output column the left of its two source columns, times the number of
            channels, ``int32`` (224,).
        column_weights: Of the right one, of ``COLUMN_ONE``, once for each lane, ``uint16`` (224,
            lanes).
        rows: Of each output row the upper of its two source rows, ``int32`` (224,).
        row_weights: Of the lower one, of ``ROW_ONE``, ``uint16`` (224,).
    """

    columns: hl.Buffer
    column_weights: hl.Buffer
    rows: hl.Buffer
    row_weights: hl.Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """The arguments of a kernel, as Halide sees them (innermost dimension first)."""

    source: hl.ImageParam
    turn: hl.Param
    columns: hl.ImageParam
    column_weights: hl.ImageParam
    rows: hl.ImageParam
    row_weights: hl.ImageParam
    scale: hl.ImageParam
    shift: hl.ImageParam


class Kernel:
    """A compiled kernel with its arguments: each thread needs its own.

    The first call compiles it, in 0.7 s for the first kernel of a process and 0.3 s for the next.
    Calls let go of the interpreter lock; Halide's ``Callable``, which could be shared, does not.
    """

    def __init__(self, kind: KernelKind) -> None:
        target = hl.Target(kind.target) if kind.target else hl.get_jit_target_from_environment()
        is_wide = target.has_feature(hl.TargetFeature.AVX512_Skylake)
        num_lanes = 32 if is_wide else 16
        self._target, self._kind = target, kind
        self._inputs = _declare_inputs(kind)
        # A masked store costs as much as a plain one, so few channels are better off without.
        self._is_masked = is_wide and kind.num_channels > 4
        store = _store_masked if self._is_masked else _store_through_row
        self._output = store(kind, self._inputs, num_lanes)

    def set_normalisation(
        self, scale: npt.NDArray[np.float32], shift: npt.NDArray[np.float32]
    ) -> None:
        """Say how levels become floats, ``level * scale + shift``, for each channel: (C,) each."""
        kind = self._kind
        num = kind.num_lanes if self._is_masked else INPUT_SIZE * kind.num_channels
        self._normalisation = hl.Buffer(np.resize(scale, num)), hl.Buffer(np.resize(shift, num))
        self._inputs.scale.set(self._normalisation[0])
        self._inputs.shift.set(self._normalisation[1])

    def set_tables(self, tables: CutTables) -> None:
        """Say which pixels are blended into which, until the next tables."""
        # Halide's arguments point to the arrays; only the buffers in Python keep these alive.
        self._tables = tables
        self._inputs.columns.set(tables.columns)
        self._inputs.column_weights.set(tables.column_weights)
        self._inputs.rows.set(tables.rows)
        self._inputs.row_weights.set(tables.row_weights)

    def cut(self, source: npt.NDArray[np.uint8], out: npt.NDArray[Any], *, turned: bool) -> None:
        """Write a sample.

        Args:
            source: Planes (C, h, w) or an image (h, w, C), a view; h >= 2, w a multiple of ``TILE``
                up to ``max_width``. It must be writable, because Halide's buffers are; it stays as
                it is.
            out: (224, 224, C), C-contiguous; halves as ``int16``, their bits.
            turned: Whether x flow becomes 255 - x.
        """
        inputs = self._inputs
        if self._kind.is_planar:
            inputs.turn.set(255 if turned else 0)
        else:
            source = source.reshape(len(source), -1)
        inputs.source.set(hl.Buffer(source))
        if not self._is_masked:
            out = out.reshape(INPUT_SIZE, -1)
        self._output.realize(hl.Buffer(out), self._target)


def _declare_inputs(kind: KernelKind) -> _Inputs:
    source = hl.ImageParam(hl.UInt(8), 3 if kind.is_planar else 2, "source")
    pitch = TILE if kind.is_planar else TILE * kind.num_channels
    source.dim(0).set_bounds(0, source.dim(0).extent() // pitch * pitch)
    source.dim(1).set_min(0)
    if kind.is_planar:
        source.dim(2).set_bounds(0, kind.num_channels)
    tables = {
        name: hl.ImageParam(type_, 1, name)
        for name, type_ in (
            ("columns", hl.Int(32)),
            ("rows", hl.Int(32)),
            ("row_weights", hl.UInt(16)),
        )
    }
    for table in tables.values():
        table.dim(0).set_bounds(0, INPUT_SIZE)
    column_weights = hl.ImageParam(hl.UInt(16), 2, "column_weights")
    column_weights.dim(0).set_bounds(0, kind.num_lanes)
    column_weights.dim(1).set_bounds(0, INPUT_SIZE).set_stride(kind.num_lanes)
    return _Inputs(
        source=source,
        turn=hl.Param(hl.UInt(8), "turn"),
        column_weights=column_weights,
        scale=hl.ImageParam(hl.Float(32), 1, "scale"),
        shift=hl.ImageParam(hl.Float(32), 1, "shift"),
        **tables,
    )


def _interleave(kind: KernelKind, inputs: _Inputs) -> hl.Func:
    """Planes as rows of values (x * C + c, row), x flow turned."""
    value, row, tile, channel, x, pixel = (hl.Var(n) for n in ("v", "r", "t", "c", "x", "p"))
    num = kind.num_channels
    interleaved = hl.Func("interleaved")
    turn = hl.select(value % 2 == 0, inputs.turn, hl.u8(0))
    interleaved[value, row] = inputs.source[value // num, row, value % num] ^ turn
    interleaved.compute_root().split(value, pixel, channel, num).split(pixel, tile, x, TILE)
    interleaved.reorder(x, channel, tile).vectorize(x).unroll(channel)
    interleaved.align_bounds(value, num * TILE)
    return interleaved


def _blend_rows(kind: KernelKind, inputs: _Inputs, num_lanes: int) -> tuple[hl.Func, hl.Expr]:
    """Output rows of source columns, 8 bits of fraction, (x * C + c, row), and their length."""
    value, y = hl.Var("v"), hl.Var("y")
    blended = hl.Func("blended")
    # An image's rows are as long as they are: the last vector overlaps the one before it.
    pixels, tail, length = (
        inputs.source,
        hl.TailStrategy.ShiftInwards,
        inputs.source.dim(0).extent(),
    )
    if kind.is_planar:
        pixels, tail = _interleave(kind, inputs), hl.TailStrategy.RoundUp
        length = length * kind.num_channels
    row = hl.unsafe_promise_clamped(inputs.rows[y], 0, inputs.source.dim(1).extent() - 2)
    weight = inputs.row_weights[y]
    upper, lower = hl.u16(pixels[value, row]), hl.u16(pixels[value, row + 1])
    blended[value, y] = upper * (ROW_ONE - weight) + lower * weight + hl.u16(HALF_LEVEL)
    blended.vectorize(value, num_lanes, tail).store_in(hl.MemoryType.Stack)
    # Room of a fixed size, and for the lanes past the last pixel's channels, which are read.
    blended.bound_storage(value, kind.max_width * kind.num_channels + kind.num_lanes + num_lanes)
    return blended, length


def _blend_columns(
    kind: KernelKind, inputs: _Inputs, blended: hl.Func, last: hl.Expr
) -> Callable[[Any, Any, hl.Var], hl.Expr]:
    """Levels with 8 bits of fraction as a function of (channel, x, y)."""

    def level(channel: Any, x: Any, y: hl.Var) -> hl.Expr:
        left = hl.unsafe_promise_clamped(inputs.columns[x], 0, last) + channel
        weight = inputs.column_weights[channel, x]
        return hl.mul_shift_right(blended[left, y], ~weight, 16) + hl.mul_shift_right(
            blended[left + kind.num_channels, y], weight, 16
        )

    return level


def _convert(kind: KernelKind, inputs: _Inputs, level: hl.Expr, number: hl.Var) -> hl.Expr:
    """A level with 8 bits of fraction as the bits that are stored."""
    if kind.dtype == "uint8":
        return hl.u8(level >> 8)
    # strict: a fused multiplication and addition rounds once where others round twice
    scaled = hl.strict_float(hl.f32(level >> 8) * inputs.scale[number])
    normalised = hl.strict_float(scaled + inputs.shift[number])
    if kind.dtype == "float32":
        return normalised
    if kind.dtype == "float16":
        return hl.reinterpret(hl.Int(16), hl.cast(hl.Float(16), normalised))
    bits = hl.reinterpret(hl.UInt(32), normalised)  # to the nearest, ties to even
    return hl.i16((bits + hl.u32(0x7FFF) + ((bits >> 16) & hl.u32(1))) >> 16)


def _store_masked(kind: KernelKind, inputs: _Inputs, num_lanes: int) -> hl.Func:
    """AVX-512: of each pixel's vector the first C lanes are stored."""
    channel, x, y = hl.Var("c"), hl.Var("x"), hl.Var("y")
    num, size = kind.num_channels, INPUT_SIZE
    blended, length = _blend_rows(kind, inputs, num_lanes)
    level = _blend_columns(kind, inputs, blended, length - 2 * num)
    stored = hl.Func("stored")
    stored[channel, x, y] = _convert(kind, inputs, level(channel, x, y), channel)
    stored.bound(channel, 0, num)
    stored.vectorize(channel, kind.num_lanes, hl.TailStrategy.PredicateStores)
    buffer = stored.output_buffer()
    buffer.dim(0).set_bounds(0, num)
    buffer.dim(1).set_bounds(0, size).set_stride(num)
    buffer.dim(2).set_bounds(0, size).set_stride(num * size)
    blended.compute_at(stored, y)
    return stored


def _store_through_row(kind: KernelKind, inputs: _Inputs, num_lanes: int) -> hl.Func:
    """Without masks: whole vectors go to a row, where the next pixel overwrites the lanes past C,
    and the row is stored.
    """
    value, y = hl.Var("v"), hl.Var("y")
    num, size = kind.num_channels, INPUT_SIZE
    blended, length = _blend_rows(kind, inputs, num_lanes)
    # Lanes past C stay out of the promise: what they read is room in `blended`, none of its values.
    level = _blend_columns(kind, inputs, blended, length - num - kind.num_lanes)
    pixel = hl.RDom([(0, kind.num_lanes), (0, size)], "pixel")
    row, stored = hl.Func("row"), hl.Func("stored")
    row[value, y] = hl.undef(hl.UInt(16))
    row[pixel.x + num * pixel.y, y] = level(pixel.x, pixel.y, y)
    stored[value, y] = _convert(kind, inputs, row[value, y], value)
    stored.vectorize(value, 2 * num_lanes if kind.dtype == "uint8" else num_lanes // 2)
    buffer = stored.output_buffer()
    buffer.dim(0).set_bounds(0, num * size)
    buffer.dim(1).set_bounds(0, size).set_stride(num * size)
    row.compute_at(stored, y).store_in(hl.MemoryType.Stack)
    update = row.update()
    update.allow_race_conditions()  # neighbours' lanes overlap; in order the later pixel wins
    update.vectorize(pixel.x)
    blended.compute_at(stored, y)
    return stored
