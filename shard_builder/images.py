"""8-bit images in memory: decoded from a member's bytes, turned to gray, resized."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""``uint8``: gray (H, W) or RGB (H, W, 3)."""


def decode_gray(data: bytes | memoryview | Image) -> Image | None:
    """Decode a JPEG or PNG to gray ``uint8`` (H, W); None if it is not a whole image."""
    return _decode(data, cv2.IMREAD_GRAYSCALE)


def decode_rgb(data: bytes | memoryview | Image) -> Image | None:
    """Decode a JPEG or PNG to RGB ``uint8`` (H, W, 3); None if it is not a whole image."""
    return _decode(data, cv2.IMREAD_COLOR_RGB)


def _decode(data: bytes | memoryview | Image, flags: int) -> Image | None:
    array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    if not array.size:  # OpenCV raises on nothing, but returns None for anything else
        return None
    try:
        image = cv2.imdecode(array, flags)
    except cv2.error:  # larger than OpenCV reads
        return None
    return None if image is None else image.astype(np.uint8, copy=False)


def to_gray(image: Image) -> Image:
    """Convert RGB (H, W, 3) to the gray (H, W) that flow is computed on.

    Source: ITU-R BT.601 weights, as the original.
    """
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)


def resize_image(image: Image, *, width: int, height: int) -> Image:
    """Resize bilinearly to exactly ``width`` x ``height``, the aspect ignored.

    Args:
        image: ``uint8``, shape (H, W) or (H, W, 3).

    Returns:
        ``uint8``, shape (height, width) or (height, width, 3).

    Source: ck.py of two_stream_for_emotion_recognition resizes to 340x256 with OpenCV's default,
        bilinear.
    """
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)
