"""How a source is read: the options of a scan, which the command line is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shard_builder.checks import check_choice, check_flag, option
from shard_builder.errors import InputError

OnError = Literal["raise", "skip"]
SourceKind = Literal["ckplus", "tree", "videos", "layout", "table"]
SourceChoice = Literal["auto", "ckplus", "tree", "videos", "layout", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """Options of a scan; the help text of each field says what it is.

    Raises:
        InputError: If two options exclude each other; the message names both.
    """

    kind: SourceChoice = option("auto", "What SRC is; auto looks what lies there.", flag="--source")
    layout: str = option(
        "",
        "Template of the paths below SRC: 'Actor_{subject}/*-*-{label}-*.mp4',"
        " '**/{subject}/{label}/{frame}.jpeg'; also {fold}.",
    )
    labels: str = option(
        "",
        "The set's own list: 'path label', 'path num_frames label' or a table; {fold} in its"
        " name is the part: '{fold}_list.txt'.",
    )
    columns: str = option(
        "",
        "Columns of the table or list that have other names: 'clip=Filename,label=Emotion,"
        "onset=OnsetFrame'.",
    )
    match: str = option(
        "", "How the list names a clip, with the layout's names: '{fold}_{number}'."
    )
    classes: str = option(
        "",
        "'05=angry' renames, 'positive=happy|surprise' merges, '06=' leaves out, 'happy,sad'"
        " keeps only those.",
    )
    subjects: Path | None = option(None, "CSV with the columns video and subject.")
    subject_pattern: str = option(
        "", "Regular expression whose group is the subject in /PATH, such as '/(s[0-9]+)_'."
    )
    no_subjects: bool = option(
        False, "Nothing says whose faces they are: the same may train and validate."
    )
    root: Path | None = option(None, "Folder that a table's paths are below, if not its own.")
    frames_from_0: bool = option(
        False, "onset, apex and offset count images from 0; else they are the numbers in the names."
    )
    allow_gaps: bool = option(False, "Take numbered frames as neighbours though one is missing.")
    on_error: OnError = option("raise", "skip: leave faulty sequences out and list them.")

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, SourceChoice)
        check_choice("on_error", self.on_error, OnError)
        for flag in ("no_subjects", "frames_from_0", "allow_gaps"):
            check_flag(flag, getattr(self, flag))
        if self.subjects is not None and self.subject_pattern:
            raise InputError(
                "subjects=... and subject_pattern=... both name subjects, expected one of them"
            )
        if self.no_subjects and (self.subjects is not None or self.subject_pattern):
            raise InputError("no_subjects=True is given with subjects, expected one of them")
        if self.match and not self.labels:
            raise InputError(
                f"match={self.match!r} needs labels=..., the list whose names it explains"
            )
