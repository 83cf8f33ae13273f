"""How one plane or frame becomes the bytes of a member, and back."""

from __future__ import annotations

import io
import re
from typing import Any

import cramjam
import cv2
import lz4.block
import numpy as np
import numpy.typing as npt

from shard_builder.images import Image

NPY_HEADER = re.compile(
    rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \(((?:\d{1,9}, ?)*\d{0,9})\), \} *\n"
)
"""As NumPy writes it."""


# Flow planes are smooth: run lengths make them smaller (44 against 54 kB at 640x490) and faster
# (2.7 against 5.1 ms).
PNG_OF_FLOW = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
)
PNG_OF_FRAMES = (cv2.IMWRITE_PNG_COMPRESSION, 3)


def encode_image(image: Image, *, codec: str, quality: int | None) -> bytes:
    """Encode a gray (H, W) or RGB (H, W, 3) ``uint8`` image as JPEG or PNG.

    Raises:
        ValueError: If the codec is neither of them, or OpenCV refuses the image.
    """
    if codec not in ("jpg", "png"):
        raise ValueError(f"codec {codec!r} has no image encoder, expected jpg or png")
    parameters: tuple[int, ...]
    if codec == "jpg":
        parameters = (cv2.IMWRITE_JPEG_QUALITY, 95 if quality is None else quality)
    else:
        parameters = PNG_OF_FLOW if image.ndim == 2 else PNG_OF_FRAMES
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)
    is_encoded, data = cv2.imencode(f".{codec}", image, parameters)
    if not is_encoded:
        raise ValueError(f"OpenCV cannot encode an image of shape {image.shape} as {codec}")
    return data.tobytes()


def encode_raw(stack: npt.NDArray[np.uint8]) -> bytes:
    """Write an array as an npy file of version 1.0: flow (2n, H, W), rgb (k, H, W, 3)."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(stack), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def encode_lz4(image: Image) -> bytes:
    """Write the pixels of an image, row by row, as one bare LZ4 block: no size before it.

    Source: the LZ4 block format. Level 10 is smaller and sooner done than 9; 12 saves another 3 %
    in six times the time.
    """
    pixels = np.ascontiguousarray(image)
    return bytes(
        lz4.block.compress(pixels, mode="high_compression", compression=10, store_size=False)
    )


def decode_lz4(data: bytes | memoryview | Image, out: Image) -> Image:
    """Decode a bare LZ4 block to a C-contiguous ``uint8`` array, which it must fill; return it.

    By cramjam, as lz4 decodes to new memory only. The interpreter lock is free meanwhile.

    Raises:
        ValueError: If it is no block of that many pixels; ``out`` may be written to.
    """
    try:
        buffers: tuple[Any, Any] = data, out  # its types know no NumPy arrays
        size = cramjam.lz4.decompress_block_into(*buffers, output_len=out.nbytes)
    except cramjam.DecompressionError:
        size = 0
    if size != out.nbytes:
        raise ValueError(f"cannot be decoded as an LZ4 block of {out.nbytes} bytes")
    return out


def parse_npy_header(data: bytes | memoryview) -> tuple[int, tuple[int, ...]]:
    """Read the header of an npy file of version 1.0 with C-ordered ``uint8`` data.

    Not by numpy's loader, which copies, and whose headers may ask for pickle.

    Returns:
        The offset of the first data byte, and the shape.

    Raises:
        ValueError: If it is anything else.
    """
    view = memoryview(data)
    head = bytes(view[:10])
    if head[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError(f"not an npy file of version 1.0 (begins with {head[:8]!r})")
    offset = 10 + int.from_bytes(head[8:10], "little")
    text = bytes(view[10:offset])
    match = NPY_HEADER.fullmatch(text)
    if not match:
        raise ValueError(f"npy header {text[:80]!r}, expected that of C-ordered uint8")
    return offset, tuple(int(side) for side in match[1].split(b",") if side.strip())
