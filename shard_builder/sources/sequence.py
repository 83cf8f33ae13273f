"""One facial expression: a subject's frames from neutral to peak, and the emotion they show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shard_builder.errors import InputError
from shard_builder.keys import KEY_PATTERN

SourceKind = Literal["ckplus", "tree", "videos"]
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
        frames: Image files in order, or a single video file.
        pairs: Quantised optical flow on disk as (x, y) image files, one pair a step, if the source
            has it.
        landmarks: CK+'s 68-point files, one a frame, if the source has them.
        num_video_frames: What a video's header says of its length; None for image files.

    Raises:
        InputError: If the key or the number of files breaks a rule.
    """

    key: str
    subject: str
    session: str
    emotion: str
    code: int
    frames: tuple[Path, ...]
    pairs: tuple[tuple[Path, Path], ...] = ()
    landmarks: tuple[Path, ...] = ()
    num_video_frames: int | None = None

    @property
    def expected_num_frames(self) -> int:
        """Frames as far as they are known before they are read."""
        return self.num_video_frames or len(self.frames)

    def __post_init__(self) -> None:
        if not KEY_PATTERN.fullmatch(self.key):
            raise InputError(f"key={self.key!r}, expected 1 to 80 characters of A-Z a-z 0-9 _ -")
        if not self.frames:
            raise InputError(f"sequence {self.key}: frames=(), expected files")
        for name, files, expected in (
            ("pairs", self.pairs, len(self.frames) - 1),
            ("landmarks", self.landmarks, len(self.frames)),
        ):
            if files and len(files) != expected:
                raise InputError(
                    f"sequence {self.key}: {len(files)} {name}, expected {expected} for"
                    f" {len(self.frames)} frames"
                )


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
        kind: ``ckplus``, ``tree`` or ``videos``.
        sequences: Labelled sequences, sorted by key.
        num_unlabelled: Sequences without a label; they are counted, never used.
        skipped: What was left out under ``on_error="skip"``.
    """

    kind: SourceKind
    sequences: tuple[FaceSequence, ...]
    num_unlabelled: int = 0
    skipped: tuple[SkippedSequence, ...] = ()

    def class_table(self) -> list[tuple[int, str]]:
        """List the classes as (code, name), by code; of CK+ its seven, and neutral if it occurs."""
        codes = {sequence.code: sequence.emotion for sequence in self.sequences}
        if self.kind in ("ckplus", "tree"):
            codes |= {code: CKPLUS_EMOTIONS[code] for code in range(1, 8)}
        return sorted(codes.items())
