"""What the header of a JPEG or PNG says, read before anything is decoded.

A decoder allocates what the header claims: a few kilobytes can ask for gigabytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

ImageFormat = Literal["jpg", "png"]
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
JPEG_MAGIC = b"\xff\xd8\xff"
FRAMES = {0xC0, 0xC1, 0xC2}
"""Markers of frames that are read: baseline, extended, progressive; Huffman coded."""
OTHER_FRAMES = {0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
PROGRESSIVE = 0xC2
MOST_SCANS = 64
"""Of a progressive JPEG; each costs a pass over the whole image, and encoders write about ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """Format and size of an image.

    Args:
        format: As members are named.
        height: In pixels.
        width: In pixels.
        channels: 1 gray, 3 colour.
    """

    format: ImageFormat
    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        kind = {1: "gray", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        return f"a {kind} {self.format} of {self.width}x{self.height}"


def read_image_header(data: bytes | memoryview) -> ImageHeader:
    """Read the header of an 8-bit JPEG or PNG; its pixels are not touched.

    Raises:
        ValueError: If it is neither, has no header, or is of a kind that is not read.

    Source: ITU T.81, B.2 (JPEG); the PNG specification, 11.2.2.
    """
    view = memoryview(data)
    if bytes(view[:3]) == JPEG_MAGIC:
        return _read_jpeg(view)
    if bytes(view[:8]) == PNG_MAGIC:
        return _read_png(view)
    raise ValueError(f"is neither JPEG nor PNG (begins with {bytes(view[:8])!r})")


def header_fault(
    data: bytes | memoryview, *, format: str, height: int, width: int, channels: int
) -> str:
    """Compare an image's header with what it should be; return what differs, or nothing."""
    try:
        header = read_image_header(data)
    except ValueError as error:
        return f"cannot be decoded: {error}"
    if (header.format, header.height, header.width, header.channels) == (
        format,
        height,
        width,
        channels,
    ):
        return ""
    expected = ImageHeader(format=format, height=height, width=width, channels=channels)  # type: ignore[arg-type]
    return f"is {header}, expected {expected}"


def _read_png(data: memoryview) -> ImageHeader:
    if len(data) < 33 or bytes(data[8:16]) != b"\0\0\0\x0dIHDR":
        raise ValueError("is a PNG without a header")
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    if depth != 8 or kind not in PNG_CHANNELS:
        raise ValueError(f"is a PNG of {depth} bits and colour type {kind}, expected 8 bits")
    return ImageHeader(format="png", height=height, width=width, channels=PNG_CHANNELS[kind])


def _read_jpeg(data: memoryview) -> ImageHeader:
    position, end = 2, len(data)
    while position + 4 <= end:
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length = data[position + 2] << 8 | data[position + 3]
        if marker in FRAMES and position + 10 <= end:
            depth, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            if depth != 8:
                raise ValueError(f"is a JPEG of {depth} bits, expected 8")
            if marker == PROGRESSIVE and bytes(data).count(b"\xff\xda") > MOST_SCANS:
                raise ValueError(f"is a JPEG of more than {MOST_SCANS} scans")
            return ImageHeader(format="jpg", height=height, width=width, channels=channels)
        if marker in OTHER_FRAMES or marker == 0xDA or marker < 0xC0 or length < 2:
            break
        position += 2 + length
    raise ValueError("is a JPEG without a frame header that is read")
