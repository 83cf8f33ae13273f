"""Scan videos in class folders, ``<class>/<name>.mp4``; subjects from a table or from the path."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import cv2

from shard_builder.errors import InputError, SourceError
from shard_builder.sources.ckplus import OnError, raise_or_keep, relative_name, walk_files
from shard_builder.sources.frames import VIDEO_SUFFIXES
from shard_builder.sources.sequence import CKPLUS_EMOTIONS, FaceSequence, SkippedSequence, Source

SubjectOf = Callable[[Path], str]
MAX_KEY_LENGTH = 80


def scan_videos(
    root: Path,
    *,
    subjects: Path | None = None,
    subject_pattern: str = "",
    on_error: OnError = "raise",
) -> Source:
    """Scan videos in class folders.

    Classes are numbered by CK+'s codes if all are CK+'s names, else by their sorted names.

    Args:
        root: Folder of class folders.
        subjects: CSV with the columns ``video`` (path below ``root``, or file name) and
            ``subject``.
        subject_pattern: Regular expression with one group that finds the subject in a video's path
            below ``root``.
        on_error: ``raise`` reports the first fault; ``skip`` leaves faulty videos out and lists
            them.

    Raises:
        InputError: If neither or both ways to the subject are given, or the pattern or the table is
            not usable.
        SourceError: If there are no videos, or (``raise``) for one that cannot be opened or has no
            subject.
    """
    videos = [
        path
        for path in walk_files(root)
        if path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != "."
    ]
    if not videos:
        raise SourceError(
            f"{root}: no videos, expected files like happy/name.mp4 ({', '.join(VIDEO_SUFFIXES)})"
        )
    subject_of = _subject_finder(root, subjects, subject_pattern)
    classes = sorted({path.relative_to(root).parts[0] for path in videos if path.parent != root})
    numbering = CKPLUS_EMOTIONS if set(classes) <= set(CKPLUS_EMOTIONS) else tuple(classes)
    code_of = {name: numbering.index(name) for name in classes}
    faults: list[SkippedSequence] = []
    sequences: dict[str, FaceSequence] = {}
    for path in videos:
        try:
            sequence = _sequence(root, path, subject_of(path), code_of)
            if sequence.key in sequences:
                other = sequences[sequence.key].frames[0]
                raise SourceError(
                    f"{path}: its key {sequence.key} is that of {other} too, expected different"
                    " names"
                )
            sequences[sequence.key] = sequence
        except SourceError as error:
            name = relative_name(path, root)
            faults.append(SkippedSequence(key=path.stem, path=name, reason=str(error)))
    raise_or_keep(faults, on_error)
    if not sequences:
        raise SourceError(
            f"{root}: {len(videos)} videos, but none can be used; the first fault:"
            f" {faults[0].reason}"
        )
    return Source(
        kind="videos",
        sequences=tuple(sequences[key] for key in sorted(sequences)),
        skipped=tuple(faults),
    )


def _sequence(root: Path, path: Path, subject: str, code_of: dict[str, int]) -> FaceSequence:
    parts = path.relative_to(root).with_suffix("").parts
    if len(parts) < 2:
        raise SourceError(
            f"{path}: lies in no class folder, expected {root / '<class>' / path.name}"
        )
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise SourceError(
                f"{path}: cannot be opened as a video\n"
                f"  Convert it: ffmpeg -i {path.name} video.mp4"
            )
        num_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()
    if 0 < num_frames < 2:
        raise SourceError(f"{path}: {num_frames} frame, expected at least 2 (one flow pair)")
    key = re.sub(r"[^A-Za-z0-9_-]+", "-", "_".join(parts))
    if len(key) > MAX_KEY_LENGTH:
        raise SourceError(
            f"{path}: its key {key} has {len(key)} characters, expected {MAX_KEY_LENGTH} or fewer;"
            " rename it"
        )
    return FaceSequence(
        key=key,
        subject=subject,
        session="_".join(parts[1:]),
        emotion=parts[0],
        code=code_of[parts[0]],
        frames=(path,),
        num_video_frames=num_frames if num_frames > 0 else None,  # a header may not know
    )


def _subject_finder(root: Path, subjects: Path | None, pattern: str) -> SubjectOf:
    if (subjects is None) == (not pattern):
        raise InputError(
            "videos need to be told who is in them: pass subjects=FILE (CSV with the columns video"
            " and subject) or subject_pattern=REGEX (one group, such as '/(s[0-9]+)_'), and not"
            " both\n"
            "  Without subjects, training and validation would share faces."
        )
    if subjects is not None:
        table = _read_subjects(subjects)

        def by_table(path: Path) -> str:
            for name in (relative_name(path, root), path.name, path.stem):
                if name in table:
                    return table[name]
            raise SourceError(
                f"{path}: not in {subjects}, expected a line with {relative_name(path, root)}"
            )

        return by_table
    what = f"subject_pattern={pattern!r}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{what}: not a regular expression ({error})") from None
    if compiled.groups != 1:
        raise InputError(f"{what}: {compiled.groups} groups, expected one that holds the subject")

    def by_pattern(path: Path) -> str:
        match = compiled.search("/" + relative_name(path, root))
        if match is None or not match[1]:
            raise SourceError(f"{path}: {what} does not match /{relative_name(path, root)}")
        return match[1]

    return by_pattern


def _read_subjects(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"video", "subject"} <= set(reader.fieldnames or ()):
                raise InputError(
                    f"subjects={str(path)!r}: columns {reader.fieldnames}, expected video and"
                    " subject"
                )
            return {
                row["video"].strip(): row["subject"].strip()
                for row in reader
                if row["video"] and row["subject"]
            }
    except OSError as error:
        raise InputError(f"subjects={str(path)!r}: cannot be read ({error.strerror})") from None
