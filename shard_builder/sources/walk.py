"""Walk a source's folders: its files in an order of their own, and the numbers in their names."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from shard_builder.errors import SourceError
from shard_builder.keys import readable_name

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp")
FRAME_NUMBER = re.compile(r"(\d+)$")


def is_image(path: Path) -> bool:
    """Tell by its suffix whether a file is an image; hidden files are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."


def walk_files(root: Path) -> Iterator[Path]:
    """Yield every file under ``root`` in sorted order, so that no result depends on the file
    system's order.

    Links are followed; a folder that is reached a second time (a link to a sibling, a loop) is left
    out.
    """
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for name in sorted(names):
            yield Path(folder, name)


def relative_name(path: Path, root: Path) -> str:
    """Return a path below ``root`` with forward slashes, as it is named on the disk."""
    return path.relative_to(root).as_posix()


def source_name(path: Path, root: Path) -> str:
    """Return a path as readable text: below ``root`` where it lies there, else as it is."""
    return readable_name((path.relative_to(root) if path.is_relative_to(root) else path).as_posix())


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Sort frame2 before frame10."""
    return tuple(
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    )


def check_same_size(frames: Iterable[Path]) -> None:
    """Compare the sizes in the headers of PNG files; other formats are compared when they are
    decoded.

    Raises:
        SourceError: If a PNG file is cut short within its header, or its size differs from the
            first one's.
    """
    first: tuple[Path, tuple[int, int]] | None = None
    for path in frames:
        if path.suffix.lower() != ".png":
            continue
        size = _png_size(path)
        if first is None:
            first = (path, size)
        elif size != first[1]:
            raise SourceError(
                f"{path}: {size[0]}x{size[1]} pixels, expected {first[1][0]}x{first[1][1]} as in"
                f" {first[0].name}"
            )


def _png_size(path: Path) -> tuple[int, int]:
    try:
        # A pipe in an image's place would be waited for; one opened without blocking is only seen.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SourceError(f"{path}: is not a regular file, expected an image")
            header = file.read(24)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    if len(header) < 24 or not header.startswith(b"\x89PNG\r\n\x1a\n"):
        raise SourceError(
            f"{path}: not a PNG image, expected one by its name\n  Copy the file from the release"
            " again."
        )
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
