"""Members of a dataset that are not what its manifest says: images and arrays."""

from __future__ import annotations

import random
import zlib

import cv2
import numpy as np


def hostile_images(draw: random.Random, data: bytes) -> bytes:
    """Turn an image into what is no image of the manifest's size and format."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    kind = draw.choice(("format", "size", "claim", "garbage", "empty", "depth"))
    if kind == "format":
        suffix = draw.choice((".bmp", ".tiff", ".webp", ".png", ".jpg", ".pgm", ".jp2"))
        return cv2.imencode(suffix, image)[1].tobytes()
    if kind == "size":
        size = draw.choice(((1, 1), (97, 129), (400, 300), (96, 64)))
        return cv2.imencode(".png" if data[:1] == b"\x89" else ".jpg", cv2.resize(image, size))[
            1
        ].tobytes()
    if kind == "depth":
        return cv2.imencode(".png", image.astype(np.uint16) * 257)[1].tobytes()
    if kind == "claim":
        return claim_size(data, draw.choice((0, 32_000, 65_500)))
    return b"" if kind == "empty" else draw.randbytes(len(data))


def claim_size(data: bytes, side: int) -> bytes:
    """Write another size into the header of a JPEG or PNG."""
    changed = bytearray(data)
    if data[:2] == b"\xff\xd8":
        at = next(n for n in range(2, len(data)) if data[n] == 0xFF and data[n + 1] in (0xC0, 0xC2))
        changed[at + 5 : at + 9] = side.to_bytes(2, "big") * 2
    else:
        changed[16:24] = side.to_bytes(4, "big") * 2
        changed[29:33] = zlib.crc32(changed[12:29]).to_bytes(4, "big")
    return bytes(changed)


def hostile_arrays(draw: random.Random, data: bytes) -> bytes:
    """Change the header of an npy file."""
    text = draw.choice(
        (
            "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 9999, 9999), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 64, 96), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 64, 96), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': 7, }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
            "(" * 5000 + ")" * 5000,
            "\x1b[2J",
            "-" * 60_000 + "1",
        )
    )
    header = text.encode("latin1")
    return data[:8] + len(header).to_bytes(2, "little") + header + data[128:]
