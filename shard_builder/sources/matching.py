"""Which clip a line of a list names, and the subjects that a table or the path gives the clips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shard_builder.errors import InputError, counted
from shard_builder.lists import Row, read_table
from shard_builder.sources.clips import Clip
from shard_builder.sources.sequence import SkippedSequence
from shard_builder.sources.walk import is_image, relative_name
from shard_builder.videos import is_video

SUBJECT_COLUMNS = {"video": ("video", "path", "clip"), "subject": ("subject",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Clips that lists name, what is wrong with the lists, and what they leave out, counted."""

    clips: list[Clip]
    faults: list[SkippedSequence]
    left_out: dict[str, int]


class Names:
    """Finds what lists name: they shorten paths, drop suffixes and zeros.

    A name fits another if one's parts are the last parts of the other; suffixes and the leading
    zeros of a part that is a number do not matter.

    Args:
        names: Names with ``/`` between their parts.
        subjects: Whose each is, to tell two of one name apart; empty where that is not known.
    """

    def __init__(self, names: Sequence[str], subjects: Sequence[str]) -> None:
        self._names, self._subjects = names, subjects
        self._parts = [name_parts(name) for name in names]
        self._by_last: dict[str, list[int]] = {}
        for index, parts in enumerate(self._parts):
            self._by_last.setdefault(parts[-1], []).append(index)

    def find_all(self, name: str) -> list[int]:
        """Return the positions that a name fits; of one that it fits whole, only that."""
        wanted = name_parts(name)
        fitting = [i for i in self._by_last.get(wanted[-1], ()) if _is_tail(wanted, self._parts[i])]
        exact = [index for index in fitting if self._parts[index] == wanted]
        return exact if len(exact) == 1 else fitting

    def find(self, name: str, *, subject: str, place: str) -> int | None:
        """Return the position that a name stands for, None if there is none.

        Args:
            name: The name in the list.
            subject: Whose it is; empty if the list does not say.
            place: Where the name stands.

        Raises:
            InputError: If several fit.
        """
        fitting = self.find_all(name)
        if len(fitting) > 1 and subject:
            fitting = [index for index in fitting if same_text(subject, self._subjects[index])]
        if len(fitting) > 1:
            first, second = (self._names[index] for index in fitting[:2])
            raise InputError(
                f"{place}: {name!r} names {counted(len(fitting), 'clip')} ({first}, {second}),"
                " expected one; name more of the path, or say with match=... how the list names a"
                " clip"
            )
        return fitting[0] if fitting else None


def names_of_clips(clips: Sequence[Clip], root: Path, *, match: str = "") -> Names:
    """Return the names that lists may give clips.

    Args:
        clips: What the scan found.
        root: The folder it was found in.
        match: How the list names a clip, with a layout's names in braces (``{part}_{number}``);
            empty: by its path.

    Raises:
        InputError: If ``match`` holds a name that the layout has not.
    """
    names = [_fill(match, clip) if match else _own_name(clip, root) for clip in clips]
    return Names(names, [clip.fields.get("subject", "") for clip in clips])


def name_parts(name: str) -> tuple[str, ...]:
    """Take a name apart for comparison: no suffix, no leading zeros.

    >>> name_parts("./happy/007.mp4")
    ('happy', '7')
    """
    path = PurePosixPath(name.strip().replace("\\", "/"))
    if path.name and (is_image(Path(path.name)) or is_video(Path(path.name))):
        path = path.with_suffix("")
    parts = [part for part in path.parts if part != "/"] or [""]
    return tuple(str(int(part)) if part.isdecimal() else part for part in parts)


def same_text(one: str, other: str) -> bool:
    """Compare two names without the leading zeros of numbers."""
    return name_parts(one) == name_parts(other)


def _own_name(clip: Clip, root: Path) -> str:
    folder = clip.path if clip.path.is_dir() else clip.path.parent
    name = folder.relative_to(root).as_posix()
    return name if folder == clip.path else f"{name}/{clip.name.split('/')[-1]}"


def _fill(match: str, clip: Clip) -> str:
    try:
        return match.format_map(dict(clip.fields))
    except (KeyError, ValueError, IndexError):
        known = ", ".join(f"{{{name}}}" for name in clip.fields)
        raise InputError(f"match={match!r}: expected names of the layout: {known}") from None


def _is_tail(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]


def subjects_from_table(clips: Sequence[Clip], root: Path, table: Path) -> Labelled:
    """Give each clip the subject that a CSV with the columns ``video`` and ``subject`` names; a
    file name without folders stands for all clips of that name.

    Raises:
        InputError: If the table cannot be read, or names two subjects of one clip.
    """
    names = names_of_clips(clips, root)
    rows: dict[int, Row] = {}
    unknown: list[Row] = []
    for row in read_table(table, SUBJECT_COLUMNS, required=("video", "subject")):
        fitting = names.find_all(row.get("video"))
        unknown += [] if fitting else [row]
        for index in fitting:
            earlier = rows.setdefault(index, row)
            if row.get("subject") != earlier.get("subject"):
                raise InputError(
                    f"{row.place}: {row.get('video')!r} is of {row.get('subject')!r}, but of"
                    f" {earlier.get('subject')!r} in {earlier.place}; a clip of two subjects would"
                    " train and validate"
                )
    left_out = {}
    if unknown:
        what = f"rows of {table.name} without a clip, such as {unknown[0].get('video')!r}"
        left_out = {f"{what} (line {unknown[0].line})": len(unknown)}
    named = [
        clip.with_fields({"subject": rows[index].get("subject")}, clip.place)
        for index, clip in enumerate(clips)
        if index in rows
    ]
    faults = [
        _fault(
            clip,
            f"{clip.path}: not in {table}, expected a line with {relative_name(clip.path, root)}",
        )
        for index, clip in enumerate(clips)
        if index not in rows
    ]
    return Labelled(clips=named, faults=faults, left_out=left_out)


def subjects_from_pattern(clips: Sequence[Clip], root: Path, pattern: str) -> Labelled:
    """Give each clip the subject that the group of a regular expression finds in ``/`` and its path
    below ``root``.

    Raises:
        InputError: If the pattern is no regular expression with one group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"subject_pattern={pattern!r}: not a regular expression ({error})"
        ) from None
    if compiled.groups != 1:
        raise InputError(
            f"subject_pattern={pattern!r}: {counted(compiled.groups, 'group')}, expected one that"
            " holds the subject"
        )
    named, faults = [], []
    for clip in clips:
        name = "/" + relative_name(clip.path, root)
        match = compiled.search(name)
        if match is None or not match[1]:
            faults.append(
                _fault(clip, f"{clip.path}: subject_pattern={pattern!r} does not match {name}")
            )
        else:
            named.append(clip.with_fields({"subject": match[1]}, clip.place))
    return Labelled(clips=named, faults=faults, left_out={})


def _fault(clip: Clip, reason: str) -> SkippedSequence:
    return SkippedSequence(key=clip.path.stem, path=str(clip.path), reason=reason)
