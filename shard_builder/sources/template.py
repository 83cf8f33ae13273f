"""Find clips by a template of their paths: ``Actor_{subject}/*-*-{label}-*-*-*-*.mp4``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shard_builder.errors import InputError, SourceError
from shard_builder.keys import readable_name
from shard_builder.sources.clips import Clip, images_of_folder
from shard_builder.sources.sequence import SkippedSequence
from shard_builder.sources.walk import (
    FRAME_NUMBER,
    is_image,
    relative_name,
    source_name,
    walk_files,
)
from shard_builder.videos import is_video

ROLES = ("subject", "label", "fold", "frame")
"""Names with a meaning of their own; others only take a path apart."""
TOKEN = re.compile(r"\{(?P<name>[^{}]*)\}|(?P<any>\*+)|(?P<one>\?)|(?P<text>[^{}*?]+)|(?P<bad>.)")


class Layout:
    """A template of paths below a source.

    ``{name}`` and ``*`` match within one part of the path, ``?`` one character, ``{frame}`` a whole
    number, ``**/`` any folders or none. The suffix matches in any case. A name that stands twice
    must stand for the same text.

    Args:
        text: The template, with ``/`` between parts.
        option: What the messages call it.

    Raises:
        InputError: If it cannot be understood; the message quotes it.

    >>> layout = Layout("Actor_{subject}/*-*-{label}-*.mp4")
    >>> layout.take_apart("Actor_07/02-01-05-x.MP4")
    {'subject': '07', 'label': '05'}
    """

    def __init__(self, text: str, *, option: str = "layout") -> None:
        self.option = option
        self.text = text.removeprefix("./")
        self.parts = self.text.split("/")
        self.names: list[str] = []
        if not all(self.parts) or ".." in self.parts:
            raise InputError(f"{option}={text!r}: has an empty part, expected folders and a name")
        self._shortest = self._compile(lazy="?")
        self._longest = self._compile(lazy="")

    @cached_property
    def num_fixed_folders(self) -> int:
        """How many folders it begins with that are always the same."""
        is_fixed = [not re.search(r"[{*?]", part) for part in self.parts[:-1]]
        return (is_fixed + [False]).index(False)

    @cached_property
    def names_images(self) -> bool:
        """Whether it can stand for images; else for videos and for folders of frames."""
        return "." in self.parts[-1] or "{frame}" in self.parts[-1]

    def match(self, name: str) -> re.Match[str] | None:
        """Match a path below the source.

        Raises:
            SourceError: If the path can be taken apart in two ways that differ in what matters.
        """
        match = self._shortest.fullmatch(name)
        if match is None:
            return None
        other = self._longest.fullmatch(name)
        for role in ROLES:
            if other and role in self.names and match[role] != other[role]:
                raise SourceError(
                    f"{readable_name(name)}: {self.option}={self.text!r} takes it apart in two"
                    f" ways, {role} {match[role]!r} or {other[role]!r}; name more of the path"
                )
        return match

    def take_apart(self, name: str) -> dict[str, str] | None:
        """Return the text that each name stands for, or None if the path does not match."""
        match = self.match(name)
        return match.groupdict() if match else None

    def _compile(self, *, lazy: str) -> re.Pattern[str]:
        seen: list[str] = []
        pattern = ""
        for part in self.parts[:-1]:
            pattern += "(?:[^/]+/)*" if part == "**" else self._part(part, seen, lazy) + "/"
        stem, dot, suffix = self.parts[-1].rpartition(".")
        if dot and re.fullmatch(r"\w+", suffix):
            pattern += self._part(stem, seen, lazy) + rf"(?i:\.{suffix})"
        else:
            pattern += self._part(self.parts[-1], seen, lazy)
        self.names = seen
        return re.compile(pattern)

    def _part(self, part: str, seen: list[str], lazy: str) -> str:
        pattern, before = "", ""
        for token in TOKEN.finditer(part):
            if token["name"] is not None:
                pattern += self._name(token["name"], seen, lazy)
            elif token["any"] is not None:
                pattern += "[^/]*" + lazy
            elif token["one"] is not None:
                pattern += "[^/]"
            elif token["text"] is not None:
                pattern += re.escape(token["text"])
            else:
                raise InputError(f"{self.option}={self.text!r}: a brace is not closed")
            kind = "" if token["name"] == "frame" else str(token.lastgroup)
            if kind in ("name", "any") and before in ("name", "any"):
                raise InputError(
                    f"{self.option}={self.text!r}: nothing stands between two names in {part!r}, so"
                    " that nobody can tell where one ends"
                )
            before = kind
        return pattern

    def _name(self, name: str, seen: list[str], lazy: str) -> str:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise InputError(
                f"{self.option}={self.text!r}: {{{name}}}, expected a name such as {{label}} in the"
                " braces"
            )
        if name in seen:
            return f"(?P={name})"
        seen.append(name)
        return r"(?<!\d)(?P<frame>\d+)(?!\d)" if name == "frame" else f"(?P<{name}>[^/]+{lazy})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A file that a template matches: its number and the rest of its name."""

    path: Path
    number: int
    identity: str
    fields: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutScan:
    """What a template found: clips, faults, and the files that it does not match."""

    clips: list[Clip]
    faults: list[SkippedSequence]
    unmatched: list[Path]


def scan_layout(root: Path, layout: Layout, *, only_videos: bool = False) -> LayoutScan:
    """Find the clips below ``root``.

    A template whose last part has a suffix or ``{frame}`` names videos, frames (``{frame}`` is
    their number) or stills: images without a ``{frame}``. Others name videos and folders of frames.

    Args:
        root: The source.
        layout: The template.
        only_videos: Whether images are no clips, whatever their names.
    """
    faults: list[SkippedSequence] = []
    unmatched: list[Path] = []
    files: list[Match] = []
    folders: dict[str, Clip | None] = {}
    for path in walk_files(root):
        if not is_video(path) and (only_videos or not is_image(path)):
            continue
        name = relative_name(path, root)
        try:
            match = layout.match(name) if is_video(path) or layout.names_images else None
            if match is not None:
                files.append(_file_match(path, match))
            elif (
                layout.names_images
                or is_video(path)
                or not _add_folder(path.parent, root, layout, folders)
            ):
                unmatched.append(path)
        except SourceError as error:
            reason = SkippedSequence(
                key=readable_name(path.stem), path=source_name(path, root), reason=str(error)
            )
            faults.append(reason)
    folder_clips = [clip for clip in folders.values() if clip is not None]
    return LayoutScan(
        clips=[*_group(files, root, layout), *folder_clips], faults=faults, unmatched=unmatched
    )


def _file_match(path: Path, match: re.Match[str]) -> Match:
    fields = match.groupdict()
    name = match.string.removesuffix(path.suffix)
    number = fields.pop("frame", None)
    if is_video(path) or number is None:
        own = FRAME_NUMBER.search(path.stem)
        return Match(
            path=path,
            number=int(own[1]) if own and not is_video(path) else -1,
            identity=match.string,
            fields=fields,
        )
    begin, end = match.span("frame")
    return Match(
        path=path, number=int(number), identity=name[:begin] + "{frame}" + name[end:], fields=fields
    )


def _add_folder(folder: Path, root: Path, layout: Layout, folders: dict[str, Clip | None]) -> bool:
    """Add a folder of frames once; tell whether the template matches it."""
    name = relative_name(folder, root)
    if name not in folders:
        folders[name] = None
        fields = layout.take_apart(name)
        if fields is not None:
            numbers, frames = images_of_folder(folder)
            folders[name] = Clip(
                path=folder,
                name=_telling_name(name, layout),
                identity=name,
                frames=frames,
                numbers=numbers,
                fields=fields,
            )
    return folders[name] is not None


def _group(files: list[Match], root: Path, layout: Layout) -> Iterator[Clip]:
    """Put the frames of a clip together, in the order of their numbers."""
    groups: dict[str, list[Match]] = {}
    for match in files:
        groups.setdefault(match.identity, []).append(match)
    has_frames = "frame" in layout.names
    num_in_folder = Counter(group[0].path.parent for group in groups.values())
    for identity, group in groups.items():
        group.sort(key=lambda match: (match.number, match.path.name))
        first = group[0].path
        if has_frames and is_image(first) and num_in_folder[first.parent] == 1:
            path, name = first.parent, relative_name(first.parent, root)
        else:
            path, name = first, identity.replace("{frame}", "").rstrip("_-. ")
            name = name if "{frame}" in identity else name.removesuffix(first.suffix)
        yield Clip(
            path=path,
            name=_telling_name(name, layout),
            identity=identity,
            frames=tuple(match.path for match in group),
            numbers=tuple(m.number for m in group) if group[0].number >= 0 else (),
            fields=group[0].fields,
        )


def _telling_name(name: str, layout: Layout) -> str:
    """Leave out the folders that all paths of the template begin with."""
    return "/".join(name.split("/")[layout.num_fixed_folders :])
