"""Find CK+ sequences under any root, by the pattern of the file names and not by the names of the
folders above them.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from shard_builder.errors import SourceError
from shard_builder.sources.sequence import CKPLUS_EMOTIONS, FaceSequence, SkippedSequence, Source

OnError = Literal["raise", "skip"]

IMAGE_NAME = re.compile(r"(S\d{3})_(\d{3})_(\d{8})\.(png|jpe?g|bmp|tiff?)", re.IGNORECASE)
LABEL_NAME = re.compile(r"(S\d{3})_(\d{3})_(\d{8})_emotion\.txt", re.IGNORECASE)
LANDMARK_NAME = re.compile(r"(S\d{3})_(\d{3})_(\d{8})_landmarks\.txt", re.IGNORECASE)

FilesByKey = dict[str, dict[int, list[Path]]]


def scan_ckplus(root: Path, *, on_error: OnError = "raise") -> Source:
    """Scan a CK+ release.

    Images are files ``S005/001/S005_001_00000001.png``, labels
    ``S005/001/S005_001_00000011_emotion.txt``, landmarks
    ``S005/001/S005_001_00000001_landmarks.txt``, anywhere under ``root``, in upper or lower case;
    every other file is ignored. A sequence without a label file is unlabelled, never neutral.

    Args:
        root: The release's folder.
        on_error: ``raise`` reports the first fault; ``skip`` leaves the faulty sequence out and
            lists it.

    Returns:
        The labelled sequences, sorted by key.

    Raises:
        SourceError: If the root is missing or holds no labelled sequence, or (``raise``) for a gap
            in the frame numbers, a size change inside a sequence, two labels or landmarks of one
            sequence, a label without images, or a label outside 0..7.
    """
    if not root.is_dir():
        raise SourceError(
            f"{root}: no such folder, expected a CK+ release\n  Check the path, or make one:"
            f" ckshard synth {root}"
        )
    images, labels, landmarks = _collect(root)
    if not images:
        raise SourceError(
            f"{root}: no sequences, expected image files like S005/001/S005_001_00000001.png at any"
            " depth\n  Unpack extended-cohn-kanade-images.zip and Emotion_labels.zip into this"
            " folder."
        )
    faults: list[SkippedSequence] = []
    sequences = []
    for key in sorted(labels.keys()):
        try:
            sequences.append(
                _sequence(key, images.get(key, {}), labels[key], landmarks.get(key, {}))
            )
        except SourceError as error:
            path = min(labels[key].items())[1][0]
            faults.append(
                SkippedSequence(key=key, path=relative_name(path, root), reason=str(error))
            )
    raise_or_keep(faults, on_error)
    if not sequences and faults:
        raise SourceError(
            f"{root}: all {len(faults)} labelled sequences have faults, so none is left; the first:"
            f" {faults[0].reason}"
        )
    if not sequences:
        raise SourceError(
            f"{root}: {len(images)} sequences but no usable emotion label, expected files like"
            " S005_001_00000011_emotion.txt\n  Unpack Emotion_labels.zip into this folder."
        )
    num_unlabelled = len(images.keys() - labels.keys())
    return Source(
        kind="ckplus",
        sequences=tuple(sequences),
        num_unlabelled=num_unlabelled,
        skipped=tuple(faults),
    )


def raise_or_keep(faults: list[SkippedSequence], on_error: OnError) -> None:
    """Raise the first of the faults, unless they are to be skipped."""
    if faults and on_error == "raise":
        more = f"\n  {len(faults) - 1} more sequences have faults." if len(faults) > 1 else ""
        raise SourceError(
            f"{faults[0].reason}{more}\n  Mend the source, or leave faulty sequences out with"
            " --on-error skip."
        )


def walk_files(root: Path) -> Iterable[Path]:
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


def _collect(root: Path) -> tuple[FilesByKey, FilesByKey, FilesByKey]:
    found: tuple[FilesByKey, FilesByKey, FilesByKey] = tuple(
        defaultdict(lambda: defaultdict(list)) for _ in range(3)
    )  # type: ignore[assignment]
    for path in walk_files(root):
        for files, pattern in zip(found, (IMAGE_NAME, LABEL_NAME, LANDMARK_NAME), strict=True):
            match = pattern.fullmatch(path.name)
            if match and [part.upper() for part in path.parts[-3:-1]] == [
                match[1].upper(),
                match[2],
            ]:
                files[f"{match[1].upper()}_{match[2]}"][int(match[3])].append(path)
    return found


def _sequence(
    key: str,
    images: dict[int, list[Path]],
    labels: dict[int, list[Path]],
    landmarks: dict[int, list[Path]],
) -> FaceSequence:
    label_files = [path for _, paths in sorted(labels.items()) for path in paths]
    if len(label_files) > 1:
        raise SourceError(
            f"{label_files[1]}: second label of {key}, expected one; the first is {label_files[0]}"
        )
    label = label_files[0]
    if not images:
        raise SourceError(
            f"{label}: label of {key}, but the release has no images of it, expected"
            f" {key}_00000001.png ..."
        )
    code = read_emotion_code(label)
    frames = _contiguous(key, images)
    (last,) = labels
    if last != len(frames):
        raise SourceError(
            f"{label}: labels frame {last} of {key}, expected its last frame {len(frames)}"
            f" ({frames[-1].name})"
        )
    check_same_size(frames)
    subject, session = key.split("_")
    marks = (
        tuple(landmarks[n][0] for n in sorted(landmarks))
        if sorted(landmarks) == sorted(images)
        else ()
    )
    return FaceSequence(
        key=key,
        subject=subject,
        session=session,
        emotion=CKPLUS_EMOTIONS[code],
        code=code,
        frames=frames,
        landmarks=marks,
    )


def _contiguous(key: str, images: dict[int, list[Path]]) -> tuple[Path, ...]:
    for number, paths in sorted(images.items()):
        if len(paths) > 1:
            raise SourceError(
                f"{paths[1]}: second image of frame {number} of {key}, expected one; the first is"
                f" {paths[0]}"
            )
    numbers = sorted(images)
    for expected, number in enumerate(numbers, start=1):
        if number != expected:
            raise SourceError(
                f"{images[number][0]}: frame {number} follows frame {expected - 1} of {key},"
                f" expected frame {expected}"
            )
    if len(numbers) < 2:
        raise SourceError(
            f"{images[numbers[0]][0]}: the only frame of {key}, expected at least 2 (one flow pair)"
        )
    return tuple(images[number][0] for number in numbers)


def read_emotion_code(path: Path) -> int:
    """Read CK+'s emotion code, 0..7, from a label file: one number in any float notation (``
    3.0000000e+00``).

    Raises:
        SourceError: If the file holds anything else.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        value = float(text)
    except ValueError:
        raise SourceError(
            f"{path}: label {text[:40]!r}, expected one number 0..7 (such as 3.0000000e+00)"
        ) from None
    if value not in range(8):
        raise SourceError(
            f"{path}: label {text}, expected a whole number 0..7 (0 neutral, 1 anger, ... 7"
            " surprise)"
        )
    return int(value)


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
        with path.open("rb") as file:
            header = file.read(24)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    if len(header) < 24 or not header.startswith(b"\x89PNG\r\n\x1a\n"):
        raise SourceError(
            f"{path}: not a PNG image, expected one by its name\n  Copy the file from the release"
            " again."
        )
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def relative_name(path: Path, root: Path) -> str:
    """Return a path below ``root`` with forward slashes."""
    return path.relative_to(root).as_posix()


def natural_key(path: Path) -> tuple[tuple[int, str], ...]:
    """Sort frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
