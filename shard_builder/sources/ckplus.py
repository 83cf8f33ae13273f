"""Find CK+ sequences under any root, by the names of the files and not of the folders above."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from shard_builder.errors import InputError, SourceError, counted
from shard_builder.lists import read_lines
from shard_builder.sources.options import OnError
from shard_builder.sources.sequence import (
    CKPLUS_EMOTIONS,
    FaceSequence,
    SkippedSequence,
    Source,
    ckplus_classes,
    raise_or_keep,
)
from shard_builder.sources.walk import (
    IMAGE_SUFFIXES,
    check_same_size,
    relative_name,
    source_name,
    walk_files,
)

IMAGE_NAME = re.compile(
    rf"(S\d{{3}})_(\d{{3}})_(\d{{8}})({'|'.join(map(re.escape, IMAGE_SUFFIXES))})", re.IGNORECASE
)
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
                _sequence(key, root, images.get(key, {}), labels[key], landmarks.get(key, {}))
            )
        except InputError as error:
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
            f"{root}: {counted(len(images), 'sequence')} but no usable emotion label, expected"
            " files like S005_001_00000011_emotion.txt\n"
            "  Unpack Emotion_labels.zip into this folder."
        )
    return Source(
        kind="ckplus",
        sequences=tuple(sequences),
        classes=ckplus_classes(sequences),
        num_unlabelled=len(images.keys() - labels.keys()),
        skipped=tuple(faults),
    )


def is_release_file(path: Path) -> bool:
    """Tell whether a path ends like those of a release's images and labels, ``S005/001/...``."""
    return any(_key_and_number(path, pattern) for pattern in (IMAGE_NAME, LABEL_NAME))


def _key_and_number(path: Path, pattern: re.Pattern[str]) -> tuple[str, int] | None:
    match = pattern.fullmatch(path.name)
    # A copy of a file elsewhere (a backup, a thumbnail) is not part of the release.
    folders = tuple(part.upper() for part in path.parts[-3:-1])
    if match is None or folders != (match[1].upper(), match[2]):
        return None
    return f"{match[1].upper()}_{match[2]}", int(match[3])


def _collect(root: Path) -> tuple[FilesByKey, FilesByKey, FilesByKey]:
    """Return images, labels and landmarks, each by key and frame number."""
    images, labels, landmarks = (
        defaultdict[str, dict[int, list[Path]]](lambda: defaultdict(list)) for _ in range(3)
    )
    patterns = ((images, IMAGE_NAME), (labels, LABEL_NAME), (landmarks, LANDMARK_NAME))
    for path in walk_files(root):
        for files, pattern in patterns:
            if found := _key_and_number(path, pattern):
                key, number = found
                files[key][number].append(path)
    return images, labels, landmarks


def _sequence(
    key: str,
    root: Path,
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
        source=source_name(frames[0].parent, root),
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
        InputError: If the file cannot be read, or holds anything else.
    """
    text = "\n".join(read_lines(path)).strip()
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
