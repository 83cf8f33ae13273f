"""Any source a build may start from, found by what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from shard_builder.checks import check_choice
from shard_builder.errors import InputError
from shard_builder.sources.ckplus import IMAGE_NAME, OnError, scan_ckplus, walk_files
from shard_builder.sources.frames import VIDEO_SUFFIXES
from shard_builder.sources.sequence import Source, SourceKind
from shard_builder.sources.tree import scan_tree
from shard_builder.sources.videos import scan_videos

SourceChoice = Literal["auto", "ckplus", "tree", "videos"]


def scan_source(
    root: Path | str,
    *,
    kind: SourceChoice = "auto",
    subjects: Path | str | None = None,
    subject_pattern: str = "",
    on_error: OnError = "raise",
) -> Source:
    """Scan a CK+ release, a prepared tree, or videos in class folders.

    Args:
        root: The folder.
        kind: ``auto``, ``ckplus``, ``tree`` or ``videos``.
        subjects: For videos; see :func:`shard_builder.sources.videos.scan_videos`.
        subject_pattern: For videos.
        on_error: ``raise`` or ``skip``.

    Raises:
        InputError: If the kind is unknown, or an option is given that it does not take.
        SourceError: As the scan of that kind says.
    """
    root = Path(root)
    check_choice("kind", kind, SourceChoice)
    found = detect_source(root) if kind == "auto" else kind
    if found == "videos":
        table = None if subjects is None else Path(subjects)
        return scan_videos(root, subjects=table, subject_pattern=subject_pattern, on_error=on_error)
    if subjects is not None or subject_pattern:
        raise InputError(
            f"subjects=... and subject_pattern=... are for videos, but {root} is read as {found}"
        )
    scan = scan_tree if found == "tree" else scan_ckplus
    return scan(root, on_error=on_error)


def detect_source(root: Path) -> SourceKind:
    """Tell what a folder holds; ``ckplus`` if in doubt, whose scan says what is expected."""
    if (root / "rgb").is_dir() and any((root / "rgb").glob("[0-7]/*")):
        return "tree"
    if root.is_dir():
        for path in walk_files(root):
            if IMAGE_NAME.fullmatch(path.name):
                return "ckplus"
            if path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != ".":
                return "videos"
    return "ckplus"
