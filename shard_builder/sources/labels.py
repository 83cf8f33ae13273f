"""Labels, subjects and parts from lists of the set's own: ``path label``, ``path num_frames
label``, or a table with named columns.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from shard_builder.errors import InputError, SourceError, counted
from shard_builder.lists import DELIMITERS, Row, has_header, place, read_lines, read_table
from shard_builder.sources.clips import Clip
from shard_builder.sources.matching import Labelled, names_of_clips, same_text
from shard_builder.sources.sequence import SkippedSequence
from shard_builder.sources.template import Layout

LIST_COLUMNS: dict[str, Collection[str]] = {
    "clip": ("clip", "path", "video", "video_name", "filename", "file"),
    "label": ("label", "emotion"),
    "subject": ("subject",),
    "fold": ("fold",),
    "num_frames": ("num_frames",),
    "onset": ("onset",),
    "apex": ("apex",),
    "offset": ("offset",),
}
"""Roles of a list's columns, and the names that are known for them."""


def parse_columns(text: str, known: Mapping[str, Collection[str]]) -> dict[str, Collection[str]]:
    """Parse ``clip=Filename,label=Estimated Emotion`` over the known names.

    Raises:
        InputError: If a role is unknown or named twice.
    """
    columns = dict(known)
    roles = {alias: role for role, aliases in known.items() for alias in (role, *aliases)}
    named: set[str] = set()
    for item in filter(None, text.split(",")):
        alias, equals, column = (part.strip() for part in item.partition("="))
        role = roles.get(alias.casefold(), "")
        if not (equals and column and role) or role in named:
            raise InputError(
                f"columns={text!r}: {item.strip()!r}, expected ROLE=COLUMN with one of the roles"
                f" {', '.join(known)}"
            )
        named.add(role)
        columns[role] = (column,)
    return columns


def read_label_list(path: Path, columns: Mapping[str, Collection[str]]) -> list[Row]:
    """Read a list of labels; the role ``clip`` holds the name of each line's clip.

    Without a line that names columns, lines are ``path``, ``path label`` or ``path num_frames
    label``, with blanks, tabs, ``,`` or ``;`` between; a path may hold blanks.

    Raises:
        InputError: If the file cannot be read or taken apart; the message names the line.
    """
    if has_header(path, columns, required="clip"):
        return read_table(path, columns, required=("clip",))
    lines = [(n, line) for n, line in enumerate(read_lines(path), start=1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: is empty, expected lines such as 'path label'")
    fields = _split(path, lines)
    has_counts = all(len(row) == 3 for row in fields)
    rows = []
    for (number, _), row in zip(lines, fields, strict=True):
        values = {"clip": row[0]}
        values |= {"label": row[-1]} if len(row) > 1 else {}
        values |= {"num_frames": row[1]} if has_counts else {}
        rows.append(Row(file=path, line=number, values=values))
    return rows


def _split(path: Path, lines: Sequence[tuple[int, str]]) -> list[list[str]]:
    """Split lines without a header: all at one delimiter, or at blanks from the right."""
    for delimiter in DELIMITERS:
        rows = [next(csv.reader([line], delimiter=delimiter)) for _, line in lines]
        if all(len(row) > 1 for row in rows):
            for (number, _), row in zip(lines, rows, strict=True):
                if len(row) != len(rows[0]) or len(row) > 3:
                    raise InputError(
                        f"{place(path, number)}: {counted(len(row), 'field')}, expected"
                        f" 'path{delimiter}label' or 'path{delimiter}num_frames{delimiter}label',"
                        " or a first line that names the columns"
                    )
            return [[field.strip() for field in row] for row in rows]
    rows = [line.rsplit(None, 2) for _, line in lines]
    if all(len(row) == 3 and row[1].isdecimal() for row in rows):
        return rows
    return [line.strip().rsplit(None, 1) for _, line in lines]


def find_lists(root: Path, text: str) -> list[tuple[Path, str]]:
    """Return the lists that ``labels`` names, each with its part: what ``{fold}`` stands for.

    Args:
        root: The source; a list may be named below it.
        text: Path of a file, whose name may hold ``{fold}`` and ``*``; several with ``,`` between.

    Raises:
        InputError: If there is no such file.
    """
    lists: list[tuple[Path, str]] = []
    for item in (part.strip() for part in text.split(",")):
        layout = Layout(Path(item).name, option="labels")
        folders = (Path(item).parent, root / Path(item).parent)
        fits = next(filter(None, (_fits(folder, layout) for folder in folders)), [])
        if not fits:
            raise InputError(f"labels={item!r}: no such file, here or in {root}")
        lists += fits
    return lists


def _fits(folder: Path, layout: Layout) -> list[tuple[Path, str]]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        (path, fields.get("fold", ""))
        for path in files
        if path.is_file() and (fields := layout.take_apart(path.name)) is not None
    ]


def apply_labels(
    clips: Sequence[Clip],
    root: Path,
    lists: Sequence[tuple[Path, str]],
    *,
    columns: Mapping[str, Collection[str]],
    match: str = "",
) -> Labelled:
    """Give clips what lists say of them; clips that no list names are left out.

    A label that the layout names stays; the list's must then stand for the same class in all lines.

    Raises:
        InputError: If a list cannot be read, or a line names several clips.
    """
    names = names_of_clips(clips, root, match=match)
    taken: dict[int, Row] = {}
    merged: dict[int, Clip] = {}
    faults: list[SkippedSequence] = []
    pairs: dict[str, dict[str, str]] = {"label": {}, "code": {}}
    for path, fold in lists:
        for row in read_label_list(path, columns):
            if fold:
                row = Row(file=path, line=row.line, values={"fold": fold, **row.values})
            try:
                index = names.find(row.get("clip"), subject=row.get("subject"), place=row.place)
                if index is None:
                    raise SourceError(f"{row.place}: no clip {row.get('clip')!r} in {root}")
                if index in taken:
                    _check_same(row, taken[index])
                taken[index] = row
                merged[index] = _merge(clips[index], row, pairs)
            except SourceError as error:
                faults.append(
                    SkippedSequence(key=row.get("clip"), path=str(path), reason=str(error))
                )
    num_left_out = len(clips) - len(merged)
    left_out = {"clips that no list names": num_left_out} if num_left_out else {}
    return Labelled(
        clips=[merged[index] for index in sorted(merged)], faults=faults, left_out=left_out
    )


def _check_same(row: Row, earlier: Row) -> None:
    for role in ("label", "subject", "fold", "onset", "apex", "offset"):
        if row.get(role) != earlier.get(role):
            raise SourceError(
                f"{row.place}: {row.get('clip')!r} has the {role} {row.get(role)!r}, but"
                f" {earlier.get(role)!r} in {earlier.place}; expected one"
            )


def _merge(clip: Clip, row: Row, pairs: dict[str, dict[str, str]]) -> Clip:
    fields = {role: text for role, text in row.values.items() if text and role != "clip"}
    num_frames = fields.pop("num_frames", "")
    if num_frames and not clip.is_video and num_frames != str(len(clip.frames)):
        raise SourceError(
            f"{row.place}: {row.get('clip')!r} has the number of frames {num_frames},"
            f" but {len(clip.frames)} are in {clip.path}"
        )
    own_subject = clip.fields.get("subject", "")
    if own_subject and "subject" in fields and not same_text(own_subject, fields["subject"]):
        raise SourceError(
            f"{row.place}: {row.get('clip')!r} is of subject {fields['subject']!r}, but by the"
            f" layout of {own_subject!r}; expected one"
        )
    if "label" in clip.fields and "label" in fields:
        _check_consistent(clip.fields["label"], fields.pop("label"), row, pairs)
    return clip.with_fields(fields, row.place)


def _check_consistent(label: str, code: str, row: Row, pairs: dict[str, dict[str, str]]) -> None:
    """Hold that a layout's label and a list's stand for each other in all lines."""
    if (
        pairs["label"].setdefault(label, code) != code
        or pairs["code"].setdefault(code, label) != label
    ):
        raise SourceError(
            f"{row.place}: {row.get('clip')!r} has the label {code!r} and by the layout {label!r},"
            f" which stood for {pairs['label'].get(label)!r} before"
        )
