"""A member's bytes to its pixels: first what its header says, then whether it decodes."""

from __future__ import annotations

import math

import numpy as np

from shard_builder.format.codecs import decode_lz4, parse_npy_header
from shard_builder.format.frames import Geometry
from shard_builder.format.manifest import Stream
from shard_builder.format.streams import IMAGE_CODECS, item_shape, stored_frames
from shard_builder.images import Image, decode_gray, decode_rgb
from shard_builder.untrusted.image_header import header_fault


def decode_member(
    data: bytes | memoryview,
    stream: str,
    entry: Stream,
    geometry: Geometry,
    *,
    num_frames: int,
    apex: int,
) -> Image:
    """Decode a frame or a pair, or take the array of a whole sequence where it is raw.

    Args:
        data: Of the member.
        stream: ``rgb`` or ``flow``.
        entry: The manifest's entry of the stream.
        geometry: Of every plane and frame.
        num_frames: Of the sequence.
        apex: Of the sequence: its strongest frame, from 0.

    Returns:
        ``uint8``: a frame (H, W, 3), a pair (2H, W); raw (k, H, W, 3) or (2n, H, W).

    Raises:
        ValueError: If it is of another format, size or shape, or cannot be decoded.
    """
    height, width = geometry.height, geometry.width
    is_flow, shape = stream == "flow", item_shape(stream, height, width)
    if entry.codec == "raw":
        count = len(stored_frames(entry.frames, num_frames=num_frames, apex=apex))
        stack = (2 * (num_frames - 1), height, width) if is_flow else (count, height, width, 3)
        return _take_array(data, stack)
    if entry.codec in IMAGE_CODECS:
        channels = 1 if is_flow else 3
        fault = header_fault(
            data, format=entry.codec, height=shape[0], width=width, channels=channels
        )
        if fault:
            raise ValueError(fault)
    return decode_item(data, codec=entry.codec, shape=shape)


def decode_item(
    data: bytes | memoryview | Image,
    *,
    codec: str,
    shape: tuple[int, ...],
    out: Image | None = None,
) -> Image:
    """Decode a frame or a pair, of which an image's header has been checked.

    Args:
        data: Of the member.
        codec: Any but ``raw``.
        shape: Expected: of a frame (H, W, 3), of a pair (2H, W).
        out: Where the pixels go, of that shape and C-contiguous; else to an array of their own.

    Raises:
        ValueError: If it cannot be decoded, or to another shape; ``out`` may be written to.
    """
    if codec == "lz4":
        return decode_lz4(data, np.empty(shape, np.uint8) if out is None else out)
    image = decode_gray(data) if len(shape) == 2 else decode_rgb(data)
    if image is None:
        raise ValueError("cannot be decoded")
    if image.shape != shape:
        raise ValueError(f"holds an image of shape {image.shape}, expected {shape}")
    if out is None:
        return image
    out[...] = image
    return out


def _take_array(data: bytes | memoryview, expected: tuple[int, ...]) -> Image:
    start, shape = parse_npy_header(data)
    if shape != expected or len(data) - start != math.prod(shape):
        raise ValueError(
            f"holds an array of shape {shape} in {len(data) - start} bytes, expected {expected}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
