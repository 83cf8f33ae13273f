"""How a source is read: the options of a scan, which the command line is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shard_builder.checks import check_choice
from shard_builder.errors import InputError

OnError = Literal["raise", "skip"]
SourceKind = Literal["ckplus", "tree", "videos", "layout", "table"]
SourceChoice = Literal["auto", "ckplus", "tree", "videos", "layout", "table"]


def about(help: str, **names: str) -> dict[str, str]:
    """Describe an option for the command line; ``flag`` where it is not called as the field."""
    return {"help": help, **names}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """Options of a scan; the help text of each field says what it is.

    Raises:
        InputError: If two options exclude each other; the message names both.
    """

    kind: SourceChoice = field(
        default="auto", metadata=about("What SRC is; auto looks what lies there.", flag="--source")
    )
    layout: str = field(
        default="",
        metadata=about(
            "Template of the paths below SRC: 'Actor_{subject}/*-*-{label}-*.mp4',"
            " '**/{subject}/{label}/{frame}.jpeg'; also {fold}."
        ),
    )
    labels: str = field(
        default="",
        metadata=about(
            "The set's own list: 'path label', 'path num_frames label' or a table; {fold} in its"
            " name is the part: '{fold}_list.txt'."
        ),
    )
    columns: str = field(
        default="",
        metadata=about(
            "Columns of the table or list that have other names: 'clip=Filename,label=Emotion,"
            "onset=OnsetFrame'."
        ),
    )
    match: str = field(
        default="",
        metadata=about("How the list names a clip, with the layout's names: '{fold}_{number}'."),
    )
    classes: str = field(
        default="",
        metadata=about(
            "'05=angry' renames, 'positive=happy|surprise' merges, '06=' leaves out, 'happy,sad'"
            " keeps only those."
        ),
    )
    subjects: Path | None = field(
        default=None, metadata=about("CSV with the columns video and subject.")
    )
    subject_pattern: str = field(
        default="",
        metadata=about(
            "Regular expression whose group is the subject in /PATH, such as '/(s[0-9]+)_'."
        ),
    )
    no_subjects: bool = field(
        default=False,
        metadata=about("Nothing says whose faces they are: the same may train and validate."),
    )
    root: Path | None = field(
        default=None, metadata=about("Folder that a table's paths are below, if not its own.")
    )
    frames_from_0: bool = field(
        default=False,
        metadata=about(
            "onset, apex and offset count images from 0; else they are the numbers in the names."
        ),
    )
    allow_gaps: bool = field(
        default=False, metadata=about("Take numbered frames as neighbours though one is missing.")
    )
    on_error: OnError = field(
        default="raise",
        metadata=about("skip: leave faulty sequences out and list them in skipped.jsonl."),
    )

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, SourceChoice)
        check_choice("on_error", self.on_error, OnError)
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
