"""MP4 files as cameras and broken downloads leave them: cut short, of a rate that varies."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def write_mp4(
    path: Path, *, num_frames: int = 100, fps: float = 20.0, size: tuple[int, int] = (128, 96)
) -> None:
    """A square that moves."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    for number in range(num_frames):
        frame = np.full((*size[::-1], 3), 90, np.uint8)
        cv2.rectangle(frame, (10 + number % 90, 30), (40 + number % 90, 60), (30, 200, 250), -1)
        video.write(frame)
    video.release()


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        begin = 8
        if size == 1:
            (size,), begin = struct.unpack(">Q", data[8:16]), 16
        found.append((kind, data[begin:size]))
        data = data[size:]
    return found


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def changed(data: bytes, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """The boxes of a box, each leaf changed."""
    return b"".join(
        box(kind, changed(content, change) if kind in CONTAINERS else change(kind, content))
        for kind, content in boxes(data)
    )


def cut(path: Path, fraction: float) -> None:
    """Put the header first, as for the web, and lose the end of the pictures."""
    data = path.read_bytes()
    parts = dict(boxes(data))
    begin = data.index(parts[b"mdat"])
    moov = box(b"moov", parts[b"moov"])
    head = box(b"ftyp", parts[b"ftyp"]) + moov
    shift = len(head) + 8 - begin

    def move(kind: bytes, content: bytes) -> bytes:
        if kind != b"stco":
            return content
        offsets = struct.unpack(f">{(len(content) - 8) // 4}I", content[8:])
        return content[:8] + struct.pack(f">{len(offsets)}I", *(o + shift for o in offsets))

    whole = box(b"ftyp", parts[b"ftyp"]) + changed(moov, move) + box(b"mdat", parts[b"mdat"])
    path.write_bytes(whole[: len(head) + int(fraction * len(parts[b"mdat"]))])


def vary(path: Path) -> None:
    """Show each frame of the first half three times as long as one of the second."""

    def retime(kind: bytes, content: bytes) -> bytes:
        if kind != b"stts":
            return content
        version, num_entries, count, step = struct.unpack(">4I", content[:16])
        assert num_entries == 1 and count % 2 == 0
        half = count // 2
        return struct.pack(">6I", version, 2, half, step * 3 // 2, half, step // 2)

    path.write_bytes(changed(path.read_bytes(), retime))
