"""Scan a prepared tree: ``rgb/<code>/<key>/`` and ``flow/<code>/<key>/{x_flow,y_flow}/``."""

from __future__ import annotations

from pathlib import Path

from shard_builder.errors import SourceError, counted
from shard_builder.keys import KEY_PATTERN
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
    FRAME_NUMBER,
    check_same_size,
    is_image,
    natural_key,
    relative_name,
    source_name,
)


def scan_tree(root: Path, *, on_error: OnError = "raise") -> Source:
    """Scan a prepared tree, as ``ckshard prepare`` writes it.

    Without a ``flow`` folder, flow is computed from the frames. The subject is what comes before
    the first underscore of the sequence's folder name. Hidden and foreign files are ignored.

    Args:
        root: Folder with ``rgb`` and, if it was prepared, ``flow`` in it.
        on_error: ``raise`` reports the first fault; ``skip`` leaves faulty sequences out and lists
            them.

    Raises:
        SourceError: If there are no sequences, or (``raise``) for a class folder that is no CK+
            code, a gap in the frame numbers, a size change, a missing x or y plane, or a number of
            pairs that does not fit the frames.
    """
    if not (root / "rgb").is_dir():
        raise SourceError(
            f"{root}: no folder rgb in it, expected a prepared tree: rgb/<code>/<sequence>/*.png"
        )
    faults: list[SkippedSequence] = []
    sequences: dict[str, FaceSequence] = {}
    for folder in sorted((root / "rgb").glob("*/*")):
        if not folder.is_dir() or folder.name[0] == ".":
            continue
        try:
            sequence = _sequence(root, folder)
        except SourceError as error:
            path = relative_name(folder, root)
            faults.append(SkippedSequence(key=folder.name, path=path, reason=str(error)))
            continue
        if sequence.key in sequences:
            first = sequences[sequence.key].frames[0].parent
            raise SourceError(
                f"{folder}: second folder of {sequence.key}, expected one; the first is {first}"
            )
        sequences[sequence.key] = sequence
    raise_or_keep(faults, on_error)
    if not sequences:
        raise SourceError(
            f"{root}: no sequences, expected folders like rgb/3/S005_001 with images in them"
        )
    return Source(
        kind="tree",
        sequences=tuple(sequences[key] for key in sorted(sequences)),
        classes=ckplus_classes(sequences.values()),
        skipped=tuple(faults),
    )


def _sequence(root: Path, folder: Path) -> FaceSequence:
    code = folder.parent.name
    if code not in tuple("01234567"):
        raise SourceError(
            f"{folder}: class folder {code!r}, expected CK+'s codes 0 to 7 (1 anger ... 7 surprise)"
        )
    if not KEY_PATTERN.fullmatch(folder.name):
        raise SourceError(f"{folder}: expected a name of 1 to 80 characters of A-Z a-z 0-9 _ -")
    frames = images_in(folder)
    if len(frames) < 2:
        raise SourceError(
            f"{folder}: {counted(len(frames), 'frame')}, expected at least 2 (one flow pair)"
        )
    check_consecutive(frames)
    check_same_size(frames)
    subject, _, session = folder.name.partition("_")
    has_flow = (root / "flow").is_dir()
    return FaceSequence(
        key=folder.name,
        subject=subject,
        session=session,
        emotion=CKPLUS_EMOTIONS[int(code)],
        code=int(code),
        source=source_name(folder, root),
        frames=frames,
        pairs=_pairs(root / "flow" / code / folder.name, len(frames)) if has_flow else (),
    )


def _pairs(folder: Path, num_frames: int) -> tuple[tuple[Path, Path], ...]:
    planes = []
    for axis in ("x_flow", "y_flow"):
        if not (folder / axis).is_dir():
            raise SourceError(
                f"{folder / axis}: no such folder, expected the flow planes of {folder.name}"
            )
        files = images_in(folder / axis)
        if len(files) != num_frames - 1:
            raise SourceError(
                f"{folder / axis}: {counted(len(files), 'plane')}, expected {num_frames - 1} for"
                f" {num_frames} frames\n"
                "  Prepare the sequence again: remove its flow folder and run ckshard prepare."
            )
        check_consecutive(files)
        check_same_size(files)
        planes.append(files)
    return tuple(zip(*planes, strict=True))


def images_in(folder: Path) -> tuple[Path, ...]:
    """Return a folder's images by the numbers in their names, without hidden and other files."""
    images = [path for path in folder.iterdir() if is_image(path) and path.is_file()]
    return tuple(sorted(images, key=lambda path: natural_key(path.name)))


def check_consecutive(files: tuple[Path, ...]) -> None:
    """Compare the numbers at the end of the names.

    Raises:
        SourceError: If a name has no number, or one does not follow the other.
    """
    previous = None
    for path in files:
        match = FRAME_NUMBER.search(path.stem)
        if match is None:
            raise SourceError(
                f"{path}: no frame number at the end of its name, expected one like"
                " S005_001_00000001.png"
            )
        number = int(match[1])
        if previous is not None and number != previous + 1:
            raise SourceError(
                f"{path}: frame {number} follows frame {previous}, expected frame {previous + 1}"
            )
        previous = number
