"""Find CK+ sequences under any root, by the names of the files and not of the folders above."""

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
        on_error: ``raise`` reports the first fault; ``skip`` leaves faulty sequences out and lists
            them.

    Returns:
        The labelled sequences, sorted by key.

    Raises:
        SourceError: If the root is missing or holds no labelled sequence, or (``raise``) for a gap
            in the frame numbers, a size change inside a sequence, two labels or landmarks of one
            sequence, a label without images, or a label outside 0..7.
    """
    if not root.is_dir():
        raise SourceError(
            f"{root}: no such folder, expected a CK+ release\n"
            f"  Check the path, or make one: ckshard synth {root}"
        )
    images, labels, landmarks = _collect(root)
    if not images:
        raise SourceError(
            f"{root}: no sequences, expected image files like S005/001/S005_001_00000001.png at"
            " any depth\n"
            "  Unpack extended-cohn-kanade-images.zip and Emotion_labels.zip into this folder."
        )
    faults: list[SkippedSequence] = []
    sequences = []
    for key in sorted(labels.keys()):
        try:
            sequences.append(
                _sequence(key, images.get(key, {}), labels[key], landmarks.get(key, {}))
            )
        except SourceError as error:
            path = relative_name(min(labels[key].items())[1][0], root)
            faults.append(SkippedSequence(key=key, path=path, reason=str(error)))
    raise_or_keep(faults, on_error)
    if not sequences and faults:
        raise SourceError(
            f"{root}: all {len(faults)} labelled sequences have faults, so none is left; the first:"
            f" {faults[0].reason}"
        )
    if not sequences:
        raise SourceError(
            f"{root}: {len(images)} sequences but no usable emotion label, expected files like"
            " S005_001_00000011_emotion.txt\n"
            "  Unpack Emotion_labels.zip into this folder."
        )
    return Source(
        kind="ckplus",
        sequences=tuple(sequences),
        num_unlabelled=len(images.keys() - labels.keys()),
        skipped=tuple(faults),
    )


def raise_or_keep(faults: list[SkippedSequence], on_error: OnError) -> None:
    """Raise the first of the faults, unless they are to be skipped."""
    if faults and on_error == "raise":
        more = f"\n  {len(faults) - 1} more sequences have faults." if len(faults) > 1 else ""
        raise SourceError(
            f"{faults[0].reason}{more}\n"
            "  Fix the source, or leave faulty sequences out with on_error='skip'."
        )


def walk_files(root: Path) -> Iterable[Path]:
    """Yield every file under ``root``, sorted: no result depends on the file system's order.

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
    """Return images, labels and landmarks, each by key and frame number."""
    images, labels, landmarks = (
        defaultdict[str, dict[int, list[Path]]](lambda: defaultdict(list)) for _ in range(3)
    )
    patterns = ((images, IMAGE_NAME), (labels, LABEL_NAME), (landmarks, LANDMARK_NAME))
    for path in walk_files(root):
        for files, pattern in patterns:
            match = pattern.fullmatch(path.name)
            # A copy of a file elsewhere (a backup, a thumbnail) is not part of the release.
            if match and tuple(part.upper() for part in path.parts[-3:-1]) == (
                match[1].upper(),
                match[2],
            ):
                files[f"{match[1].upper()}_{match[2]}"][int(match[3])].append(path)
    return images, labels, landmarks


def _sequence(
    key: str,
    images: dict[int, list[Path]],
    labels: dict[int, list[Path]],
    landmarks: dict[int, list[Path]],
) -> FaceSequence:
    label, *others = (path for _, paths in sorted(labels.items()) for path in paths)
    if others:
        raise SourceError(f"{others[0]}: second label of {key}, expected one; the first is {label}")
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
    has_landmarks = sorted(landmarks) == sorted(images)
    return FaceSequence(
        key=key,
        subject=subject,
        session=session,
        emotion=CKPLUS_EMOTIONS[code],
        code=code,
        frames=frames,
        landmarks=tuple(landmarks[n][0] for n in sorted(landmarks)) if has_landmarks else (),
    )


def _contiguous(key: str, images: dict[int, list[Path]]) -> tuple[Path, ...]:
    """Return one image of each frame, 1 to the last."""
    for expected, (number, paths) in enumerate(sorted(images.items()), start=1):
        if len(paths) > 1:
            raise SourceError(
                f"{paths[1]}: second image of frame {number} of {key}, expected one; the first is"
                f" {paths[0]}"
            )
        if number != expected:
            raise SourceError(
                f"{paths[0]}: frame {number} follows frame {expected - 1} of {key}, expected frame"
                f" {expected}"
            )
    frames = tuple(images[number][0] for number in sorted(images))
    if len(frames) < 2:
        raise SourceError(
            f"{frames[0]}: the only frame of {key}, expected at least 2 (one flow pair)"
        )
    return frames


def read_emotion_code(path: Path) -> int:
    """Read CK+'s emotion code, 0..7, from a label file: one number in any float notation.

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
            f"{path}: label {text}, expected a whole number 0..7 (0 neutral, 1 anger, ..."
            " 7 surprise)"
        )
    return int(value)


def check_same_size(frames: Iterable[Path]) -> None:
    """Compare the sizes in the headers of PNG files; others are compared when they are decoded.

    Raises:
        SourceError: If a PNG is cut short within its header, or another size than the first one's.
    """
    first: tuple[Path, tuple[int, int]] | None = None
    for path in frames:
        if path.suffix.lower() != ".png":
            continue
        width, height = size = _png_size(path)
        if first is None:
            first = path, size
        elif size != first[1]:
            raise SourceError(
                f"{path}: {width}x{height} pixels, expected {first[1][0]}x{first[1][1]} as in"
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
            f"{path}: not a PNG image, expected one by its name\n"
            "  Copy the file from the release again."
        )
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def relative_name(path: Path, root: Path) -> str:
    """Return a path below ``root`` with forward slashes."""
    return path.relative_to(root).as_posix()


def natural_key(path: Path) -> tuple[tuple[int, str], ...]:
    """Sort frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
