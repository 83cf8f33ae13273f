"""One facial expression: a subject's frames from neutral to peak, and the emotion they show."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shard_builder.errors import InputError, SourceError, counted
from shard_builder.keys import KEY_PATTERN
from shard_builder.sources.options import OnError, SourceKind
from shard_builder.sources.walk import natural_key
from shard_builder.videos import is_video

PARTS: dict[Literal["train", "val", "test"], tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What official parts are called, by the side of a split that they are."""

CKPLUS_EMOTIONS = (
    "neutral",
    "anger",
    "contempt",
    "disgust",
    "fear",
    "happy",
    "sadness",
    "surprise",
)
"""CK+'s emotion names; the position is CK+'s code."""
CKPLUS_NUM_SEQUENCES = (0, 45, 18, 59, 25, 69, 28, 83)
"""Labelled sequences of the CK+ release per code, 327 in all (Lucey et al. 2010)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceSequence:
    """A labelled sequence on disk, before anything of it is read.

    Args:
        key: Name of the sample, ``S010_004``: 1 to 80 of ``A-Z a-z 0-9 _ -``, unique in a dataset.
        subject: Whose face it is; a split keeps a subject on one side.
        session: CK+'s name of the recording, ``004``.
        emotion: Class name.
        code: The source's own number of the class; CK+ counts 0 (neutral) to 7 (surprise).
        source: What the source calls it: path of the video, of the folder of its frames, or of its
            first image, as readable text.
        frames: Image files in order, or a single video file.
        pairs: Quantised optical flow on disk as (x, y) image files, one pair a step, if the source
            has it.
        landmarks: CK+'s 68-point files, one a frame, if the source has them.
        num_video_frames: What a video's header says of its length; None for image files, and where
            it says nothing.
        onset: Position in ``frames``, or in the video, of the first frame kept; None: the first.
        apex: Position of the strongest frame, if the source names one.
        offset: Position of the last frame kept; None: the last.
        fold: The official fold or part (``3``, ``train``), if the source names one.
        place: Where a table or list names it, ``table.csv, line 7``; faults begin with it.

    Raises:
        InputError: If the key, the number of files or a position breaks a rule.
    """

    key: str
    subject: str
    session: str
    emotion: str
    code: int
    source: str
    frames: tuple[Path, ...]
    pairs: tuple[tuple[Path, Path], ...] = ()
    landmarks: tuple[Path, ...] = ()
    num_video_frames: int | None = None
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    fold: str = ""
    place: str = ""

    @property
    def is_video(self) -> bool:
        """Whether the frames are those of a single video file."""
        return len(self.frames) == 1 and is_video(self.frames[0])

    @property
    def is_still(self) -> bool:
        """Whether a single image is kept of it."""
        return not self.is_video and self.expected_num_frames == 1

    @property
    def kept(self) -> slice:
        """The frames from onset to offset."""
        return slice(self.onset or 0, None if self.offset is None else self.offset + 1)

    @property
    def expected_num_frames(self) -> int:
        """Frames kept, as far as they are known before they are read."""
        num_frames = (self.num_video_frames or 1) if self.is_video else len(self.frames)
        return len(range(num_frames)[self.kept])

    def __post_init__(self) -> None:
        if not KEY_PATTERN.fullmatch(self.key):
            raise InputError(f"key={self.key!r}, expected 1 to 80 characters of A-Z a-z 0-9 _ -")
        if not self.frames:
            raise InputError(f"sequence {self.key}: frames=(), expected files")
        last = None if self.is_video else len(self.frames) - 1
        _check_positions(self.key, (self.onset, self.apex, self.offset), last)
        for name, files, expected in (
            ("pairs", self.pairs, len(self.frames) - 1),
            ("landmarks", self.landmarks, len(self.frames)),
        ):
            if files and len(files) != expected:
                raise InputError(
                    f"sequence {self.key}: {len(files)} {name}, expected {expected} for"
                    f" {counted(len(self.frames), 'frame')}"
                )


def _check_positions(key: str, positions: tuple[int | None, ...], last: int | None) -> None:
    """Raise unless 0 <= onset <= apex <= offset <= last, as far as they are given."""
    given = [0, *(position for position in positions if position is not None)]
    given += [] if last is None else [last]
    if given != sorted(given):
        named = dict(zip(("onset", "apex", "offset"), positions, strict=True))
        raise InputError(f"sequence {key}: {named}, expected them in order, 0 to {last}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedSequence:
    """A sequence or file that was left out, and why."""

    key: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a scan found.

    Args:
        kind: ``ckplus``, ``tree``, ``videos``, ``layout`` or ``table``.
        sequences: Labelled sequences, sorted by key.
        classes: (code, name) of every class, by code; also of those that no sequence has.
        num_unlabelled: Sequences without a label; they are counted, never used.
        has_subjects: Whether the source says whose face each sequence shows. If not, every
            sequence's key stands for a subject of its own.
        left_out: How many were left out as the options say, by why: ``class contempt``.
        skipped: What was left out under ``on_error="skip"``.
    """

    kind: SourceKind
    sequences: tuple[FaceSequence, ...]
    classes: tuple[tuple[int, str], ...]
    num_unlabelled: int = 0
    has_subjects: bool = True
    left_out: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[SkippedSequence, ...] = ()


def side_of_part(name: str) -> Literal["train", "val", "test", ""]:
    """Return the side of a split that an official part is by its name; else nothing.

    >>> side_of_part("Train_AFEW"), side_of_part("fold 3")
    ('train', '')
    """
    words = set(re.split(r"[^a-z]+", name.casefold()))
    sides = [side for side, names in PARTS.items() if words & set(names)]
    return sides[0] if len(sides) == 1 else ""


def number_classes(names: Collection[str]) -> tuple[tuple[int, str], ...]:
    """Number class names: by CK+'s codes if all are CK+'s names, else in their own order, in which
    2 comes before 10.
    """
    if set(names) <= set(CKPLUS_EMOTIONS):
        return tuple((code, name) for code, name in enumerate(CKPLUS_EMOTIONS) if name in names)
    return tuple(enumerate(sorted(set(names), key=natural_key)))


def ckplus_classes(sequences: Iterable[FaceSequence]) -> tuple[tuple[int, str], ...]:
    """List CK+'s seven classes, and neutral if it occurs."""
    names = {*CKPLUS_EMOTIONS[1:], *(sequence.emotion for sequence in sequences)}
    return number_classes(names)


def raise_or_keep(faults: list[SkippedSequence], on_error: OnError) -> None:
    """Raise the first of the faults, unless they are to be skipped."""
    if faults and on_error == "raise":
        more = (
            f"\n  {counted(len(faults) - 1, 'more sequence has', 'more sequences have')} faults."
            if len(faults) > 1
            else ""
        )
        raise SourceError(
            f"{faults[0].reason}{more}\n"
            "  Fix the source, or leave faulty sequences out with on_error='skip'."
        )
