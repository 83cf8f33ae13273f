"""Clips as a template or a table finds them, checked and numbered: what all sets but CK+ become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import cv2

from shard_builder.errors import InputError, SourceError, counted
from shard_builder.keys import make_keys, readable_name
from shard_builder.sources.options import OnError, SourceKind
from shard_builder.sources.sequence import (
    FaceSequence,
    SkippedSequence,
    Source,
    number_classes,
    raise_or_keep,
)
from shard_builder.sources.walk import (
    FRAME_NUMBER,
    check_same_size,
    is_image,
    natural_key,
    source_name,
)
from shard_builder.videos import is_video, open_video

NO_NUMBER = ("", "/", "-", "na", "n/a", "nan", "none")
"""What coding tables write where nobody saw an onset, apex or offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip on disk, before it is proven whole.

    Args:
        path: The video, the folder of the frames, or the first image.
        name: What its key should look like: the telling part of its path, ``/`` between parts.
        identity: What no other clip has.
        frames: Image files in order, or the video.
        numbers: The numbers in the images' names; empty for a video, and for a still without one.
        fields: Text by role: ``label``, ``subject``, ``session``, ``fold``, ``key``, ``onset``,
            ``apex``, ``offset``, and what else a layout names.
        place: Where a table or list names it.
    """

    path: Path
    name: str
    identity: str
    frames: tuple[Path, ...]
    numbers: tuple[int, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    place: str = ""

    def with_fields(self, fields: Mapping[str, str], place: str) -> Clip:
        """Return the clip with further fields, which ``place`` gave it."""
        return replace(self, fields={**self.fields, **fields}, place=place)

    @property
    def is_video(self) -> bool:
        """Whether its frames are those of a video file."""
        return len(self.frames) == 1 and is_video(self.frames[0])

    @property
    def where(self) -> str:
        """What a message about it begins with."""
        return f"{self.place}: {self.path}" if self.place else str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRules:
    """How clips become sequences.

    Args:
        has_subjects: Whether every clip must have a subject; if not, none is asked for.
        frames_from_0: Whether onset, apex and offset count the images of a sequence from 0, in
            place of naming the numbers in the file names; a video's frames always count from 0.
        allow_gaps: Whether numbers may be missing between a sequence's images.
        on_error: ``raise`` or ``skip``.
    """

    has_subjects: bool = True
    frames_from_0: bool = False
    allow_gaps: bool = False
    on_error: OnError = "raise"


def clips_to_source(
    clips: Sequence[Clip],
    root: Path,
    rules: ClipRules,
    *,
    kind: SourceKind,
    faults: Iterable[SkippedSequence] = (),
    left_out: Mapping[str, int] | None = None,
) -> Source:
    """Check clips and make sequences of them.

    Args:
        clips: What was found.
        root: The folder that names are given below.
        rules: See :class:`ClipRules`.
        kind: The source's kind.
        faults: What the scan found wrong already.
        left_out: What the scan left out, by why.

    Raises:
        SourceError: If no clip is left, or (``raise``) for the first fault.
    """
    faults = list(faults)
    names = [clip.fields.get("key") or clip.name for clip in clips]
    sequences = []
    for clip, key in zip(clips, make_keys(names, [c.identity for c in clips]), strict=True):
        try:
            sequences.append(_sequence(clip, key, root, rules))
        except InputError as error:
            path = source_name(clip.path, root)
            faults.append(SkippedSequence(key=key, path=path, reason=str(error)))
    if not all(sequence.is_still for sequence in sequences):
        faults += [_too_short(sequence) for sequence in sequences if _is_short(sequence)]
        sequences = [sequence for sequence in sequences if not _is_short(sequence)]
    raise_or_keep(faults, rules.on_error)
    if not sequences:
        raise SourceError(
            f"{root}: {counted(len(clips), 'clip')}, but none can be used; the first fault:"
            f" {faults[0].reason if faults else 'there are no clips'}"
        )
    classes = number_classes({sequence.emotion for sequence in sequences})
    code_of = {name: code for code, name in classes}
    return Source(
        kind=kind,
        sequences=tuple(
            replace(sequence, code=code_of[sequence.emotion])
            for sequence in sorted(sequences, key=lambda sequence: sequence.key)
        ),
        classes=classes,
        has_subjects=rules.has_subjects,
        left_out=dict(left_out or {}),
        skipped=tuple(faults),
    )


def numbered_images(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Return the images of a folder by the text before the number at the end of their names, in the
    order of the numbers; images without a number are under their whole stem.
    """
    runs: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.iterdir():
        if is_image(path):
            match = FRAME_NUMBER.search(path.stem)
            text, number = (path.stem[: match.start()], int(match[1])) if match else (path.stem, -1)
            runs.setdefault(text, []).append((number, path))
    return {
        text: sorted(runs[text], key=lambda item: (item[0], item[1].name))
        for text in sorted(runs, key=natural_key)
    }


def images_of_folder(folder: Path) -> tuple[tuple[int, ...], tuple[Path, ...]]:
    """Return the numbers and the images of a folder that holds one numbered sequence.

    Raises:
        SourceError: If it holds none, or images whose names differ in more than the number.
    """
    runs = numbered_images(folder)
    if not runs:
        raise SourceError(f"{folder}: no images in this folder, expected the frames of a clip")
    if len(runs) > 1:
        first, second = (run[0][1].name for run in list(runs.values())[:2])
        raise SourceError(
            f"{folder}: {len(runs)} kinds of image names ({first}, {second}, ...), expected one"
            " numbered sequence, such as img_00001.jpg, img_00002.jpg"
        )
    numbers, paths = zip(*next(iter(runs.values())), strict=True)
    return numbers, paths


def _sequence(clip: Clip, key: str, root: Path, rules: ClipRules) -> FaceSequence:
    label = readable_name(clip.fields.get("label", "").strip())
    subject = readable_name(clip.fields.get("subject", "").strip())
    if not label:
        raise SourceError(f"{clip.where}: no label, expected the name of its class")
    if rules.has_subjects and not subject:
        raise SourceError(f"{clip.where}: no subject, expected whose face it shows")
    num_video_frames = _count_video_frames(clip) if clip.is_video else None
    if not clip.is_video:
        _check_numbers(clip, allow_gaps=rules.allow_gaps)
        check_same_size(clip.frames)
    onset, apex, offset = _positions(clip, num_video_frames, frames_from_0=rules.frames_from_0)
    return FaceSequence(
        key=key,
        subject=subject if rules.has_subjects else key,
        session=readable_name(clip.fields.get("session", "") or clip.name),
        emotion=label,
        code=0,
        source=source_name(clip.path, root),
        frames=clip.frames,
        num_video_frames=num_video_frames,
        fold=readable_name(clip.fields.get("fold", "").strip()),
        onset=onset,
        apex=apex,
        offset=offset,
        place=clip.place,
    )


def _is_short(sequence: FaceSequence) -> bool:
    return sequence.expected_num_frames < 2 and (
        not sequence.is_video or sequence.num_video_frames is not None
    )


def _too_short(sequence: FaceSequence) -> SkippedSequence:
    where = f"{sequence.place}: {sequence.source}" if sequence.place else sequence.source
    reason = f"{where}: {sequence.expected_num_frames} frame, expected at least 2 (one flow pair)"
    return SkippedSequence(key=sequence.key, path=sequence.source, reason=reason)


def _count_video_frames(clip: Clip) -> int | None:
    try:
        with open_video(clip.frames[0]) as capture:
            num_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    except SourceError as error:
        raise SourceError(f"{clip.place}: {error}" if clip.place else str(error)) from None
    return num_frames if num_frames > 0 else None


def _check_numbers(clip: Clip, *, allow_gaps: bool) -> None:
    """Raise where two images have one number, or (without ``allow_gaps``) where one is missing:
    where the steps between the numbers differ.
    """
    pairs = list(zip(clip.numbers, clip.frames, strict=bool(clip.numbers)))
    for (number, first), (following, second) in pairwise(pairs):
        if number == following:
            which = f"frame {number}" if number >= 0 else "a name without a number"
            raise SourceError(
                f"{clip.place or second}: second image of {which} ({second.name}), expected one;"
                f" the first is {first.name}"
            )
    step = min((b - a for (a, _), (b, _) in pairwise(pairs)), default=1)
    for (number, _), (following, path) in pairwise(pairs):
        if following - number != step and not allow_gaps:
            raise SourceError(
                f"{path}: frame {following} follows frame {number}, expected frame {number + step}"
                "\n  Find the missing frames, or take the next one for them with allow_gaps=True."
            )


def _positions(
    clip: Clip, num_video_frames: int | None, *, frames_from_0: bool
) -> tuple[int | None, int | None, int | None]:
    """Return onset, apex and offset as positions in the frames."""
    num_frames = num_video_frames if clip.is_video else len(clip.frames)
    positions: dict[str, int] = {}
    for role in ("onset", "apex", "offset"):
        text = clip.fields.get(role, "").strip()
        if text.casefold() in NO_NUMBER:
            continue
        if not re.fullmatch(r"\d{1,9}(\.0*)?", text):
            raise SourceError(f"{clip.where}: {role} {text!r}, expected the number of a frame")
        positions[role] = _position(clip, role, int(float(text)), num_frames, frames_from_0)
    if list(positions.values()) != sorted(positions.values()):
        named = ", ".join(f"{role} {clip.fields[role].strip()}" for role in positions)
        raise SourceError(f"{clip.where}: {named}, expected onset <= apex <= offset")
    return positions.get("onset"), positions.get("apex"), positions.get("offset")


def _position(
    clip: Clip, role: str, number: int, num_frames: int | None, frames_from_0: bool
) -> int:
    if frames_from_0 or clip.is_video:
        if num_frames is not None and number >= num_frames:
            raise SourceError(
                f"{clip.where}: {role} {number}, expected 0 to {num_frames - 1} ({num_frames}"
                " frames, counted from 0)"
            )
        return number
    if number not in clip.numbers:
        found = f"{clip.numbers[0]} to {clip.numbers[-1]}" if clip.numbers else "no numbered frames"
        raise SourceError(
            f"{clip.where}: {role} {number} is the number of no frame, expected {found}"
            " (frames_from_0=True counts from 0)"
        )
    return clip.numbers.index(number)
