"""A table of clips, to build from and to write: one row a clip."""

from __future__ import annotations

import csv
import os
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from shard_builder.errors import InputError, SourceError
from shard_builder.lists import Row, read_table
from shard_builder.sources.clips import Clip, images_of_folder, numbered_images
from shard_builder.sources.sequence import FaceSequence, SkippedSequence, Source
from shard_builder.sources.walk import FRAME_NUMBER, is_image, relative_name
from shard_builder.videos import is_video

TABLE_COLUMNS: dict[str, Collection[str]] = {
    role: (role,)
    for role in ("path", "label", "subject", "key", "onset", "apex", "offset", "fold", "session")
}
NumberedImages = dict[str, list[tuple[int, Path]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableScan:
    """What a table names: clips, faults, and whether it has a column of subjects."""

    clips: list[Clip]
    faults: list[SkippedSequence]
    has_subjects: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frames:
    """Frames that a path names, and what all paths that name them share."""

    home: Path
    paths: tuple[Path, ...]
    numbers: tuple[int, ...]


@dataclass(slots=True)
class _Folders:
    """Folders that were read once: a table may name ten thousand images of one folder."""

    images: dict[Path, NumberedImages] = field(default_factory=dict)

    def run_of(self, path: Path) -> list[tuple[int, Path]]:
        """Return the numbered images beside ``path`` that differ from it in their number only."""
        if path.parent not in self.images:
            self.images[path.parent] = numbered_images(path.parent)
        match = FRAME_NUMBER.search(path.stem)
        text = path.stem[: match.start()] if match else path.stem
        return self.images[path.parent].get(text, [])


def scan_table(
    table: Path, root: Path, columns: Mapping[str, Collection[str]], *, frames_from_0: bool = False
) -> TableScan:
    """Read a table of clips.

    A path names a video, a folder of frames, or one image of a numbered sequence. Where several
    rows without onset and offset name images of one numbered sequence, every image that such a row
    names is a still.

    Args:
        table: CSV with the columns ``path`` and ``label``, and if wanted ``subject``, ``key``,
            ``session``, ``onset``, ``apex``, ``offset``, ``fold``.
        root: The folder that the paths are below.
        columns: Roles and the names of their columns.
        frames_from_0: Whether onset, apex and offset are positions, not numbers in names.

    Raises:
        InputError: If the table cannot be read; the message names the line.
    """
    rows = read_table(table, columns, required=("path", "label"))
    if not rows:
        raise InputError(f"{table}: has no rows below its columns, expected one a clip")
    folders = _Folders()
    are_stills = _names_stills(rows, root, folders)
    clips: dict[str, Clip] = {}
    keys: dict[str, str] = {}
    subjects: dict[Path, Clip] = {}
    faults: list[SkippedSequence] = []
    times = Counter(row.get("path") for row in rows)
    for row in rows:
        try:
            path = _find(row, root)
            frames = _frames(row, path, folders, are_stills=are_stills, frames_from_0=frames_from_0)
            clip = _clip(row, path, frames, is_repeated=times[row.get("path")] > 1)
            _check_new(clip, clips.get(clip.identity), keys, subjects.setdefault(frames.home, clip))
            clips[clip.identity] = clip
        except SourceError as error:
            faults.append(
                SkippedSequence(key=row.get("key"), path=row.get("path"), reason=str(error))
            )
    has_subjects = "subject" in rows[0].values
    return TableScan(clips=list(clips.values()), faults=faults, has_subjects=has_subjects)


def _has_span(row: Row) -> bool:
    return bool(row.get("onset") or row.get("offset"))


def _names_stills(rows: Sequence[Row], root: Path, folders: _Folders) -> bool:
    named: dict[Path, str] = {}
    for row in rows:
        path = root / row.get("path")
        # Path.is_file raises for a name that is too long; of that _find tells the line.
        if is_image(path) and os.path.isfile(path) and not _has_span(row):  # noqa: PTH113
            run = folders.run_of(path)
            if run and named.setdefault(run[0][1], path.name) != path.name:
                return True
    return False


def _clip(row: Row, path: Path, frames: _Frames, *, is_repeated: bool) -> Clip:
    suffix = path.suffix if len(frames.paths) == 1 else ""
    name = row.get("path").replace("\\", "/").strip("/").removesuffix(suffix)
    span = [row.get(role) for role in ("onset", "offset") if row.get(role)]
    return Clip(
        path=path,
        name="-".join([name, *(span if is_repeated else ())]),
        identity="\0".join([str(frames.home.resolve()), *span]),
        frames=frames.paths,
        numbers=frames.numbers,
        fields={role: value for role, value in row.values.items() if value},
        place=row.place,
    )


def _find(row: Row, root: Path) -> Path:
    """Return what a row's path names; a Windows path is tried with forward slashes."""
    text = row.get("path")
    if not text:
        raise SourceError(f"{row.place}: no path, expected a video, a folder or an image")
    for path in (root / text, root / text.replace("\\", "/")):
        if os.path.lexists(path) and path.exists():
            return path
    raise SourceError(f"{row.place}: {text!r} is not in {root}")


def _within(run: list[tuple[int, Path]], onset: str, offset: str) -> list[tuple[int, Path]]:
    """Return the part of a run between two numbers, all if they are none: of ten thousand numbered
    stills, each row needs its own.
    """
    if not (onset.isdecimal() and offset.isdecimal()):
        return run
    first = bisect_left(run, int(onset), key=lambda item: item[0])
    last = bisect_right(run, int(offset), key=lambda item: item[0])
    return run[first:last] or run[:1]


def _frames(
    row: Row, path: Path, folders: _Folders, *, are_stills: bool, frames_from_0: bool
) -> _Frames:
    if path.is_dir():
        try:
            numbers, paths = images_of_folder(path)
        except SourceError as error:
            raise SourceError(f"{row.place}: {error}") from None
        return _Frames(home=path, paths=paths, numbers=numbers)
    if is_video(path):
        return _Frames(home=path, paths=(path,), numbers=())
    if not is_image(path):
        raise SourceError(f"{row.place}: {path} is neither a folder nor an image or a video")
    run = folders.run_of(path)
    home = run[0][1]
    if not frames_from_0:
        run = _within(run, row.get("onset"), row.get("offset"))
    if are_stills and not _has_span(row):
        run = [item for item in run if item[1].name == path.name]
        home = path
    numbers, paths = zip(*run, strict=True)
    return _Frames(home=home, paths=paths, numbers=numbers if numbers[0] >= 0 else ())


def _check_new(clip: Clip, same: Clip | None, keys: dict[str, str], first: Clip) -> None:
    """Refuse a clip or a key that an earlier row has, and a second subject of one file."""
    if same is not None:
        raise SourceError(f"{clip.place}: names the clip of {same.place} again, expected it once")
    key = clip.fields.get("key", "")
    if key and keys.setdefault(key, clip.place) != clip.place:
        raise SourceError(f"{clip.place}: key {key!r} is that of {keys[key]}, expected another")
    subjects = [c.fields.get("subject", "") for c in (first, clip)]
    if subjects[0] != subjects[1]:
        raise SourceError(
            f"{clip.place}: {clip.fields['path']!r} is of {subjects[1]!r}, but of {subjects[0]!r}"
            f" in {first.place}; expected one subject"
        )


def write_table(source: Source, root: Path, file: TextIO) -> None:
    """Write what a source holds as a table that builds the same: UTF-8, ``,`` between columns.

    Onset, apex and offset are the numbers in the images' names, or positions in a video, from 0.

    Raises:
        InputError: If a name is not UTF-8, so that no table can hold it.
    """
    roles = [role for role in TABLE_COLUMNS if role != "subject" or source.has_subjects]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(roles)
    for sequence in source.sequences:
        values = _table_row(sequence, root)
        writer.writerow([values[role] for role in roles])


def _table_row(sequence: FaceSequence, root: Path) -> dict[str, str]:
    path = _table_path(sequence)
    name = relative_name(path, root) if path.is_relative_to(root) else str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{sequence.source}: its name is not UTF-8, so no table can hold it; rename it"
        ) from None
    numbers = [FRAME_NUMBER.search(frame.stem) for frame in sequence.frames]
    first, last = sequence.onset, sequence.offset
    if sequence.is_still and numbers[0]:
        first = last = 0
    positions = dict(zip(("onset", "apex", "offset"), (first, sequence.apex, last), strict=True))
    spans = {
        role: "" if p is None else str(p) if sequence.is_video else _number(numbers, p)
        for role, p in positions.items()
    }
    return spans | {
        "path": name,
        "label": sequence.emotion,
        "subject": sequence.subject,
        "key": sequence.key,
        "fold": sequence.fold,
        "session": sequence.session,
    }


def _table_path(sequence: FaceSequence) -> Path:
    """Return the folder if it holds the sequence's images and no others, else the first frame."""
    first = sequence.frames[0]
    if sequence.is_video or sequence.is_still:
        return first
    images = sum(len(run) for run in numbered_images(first.parent).values())
    return first.parent if images == len(sequence.frames) else first


def _number(numbers: Sequence[object], position: int) -> str:
    match = numbers[position]
    return str(int(match[0])) if match else ""  # type: ignore[index]
