"""Any source a build may start from: a known release, a template of paths, or a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shard_builder.errors import InputError, SourceError
from shard_builder.sources.ckplus import is_release_file, scan_ckplus
from shard_builder.sources.classes import apply_classes
from shard_builder.sources.clips import Clip, ClipRules, clips_to_source
from shard_builder.sources.known import hint, nothing_found
from shard_builder.sources.labels import LIST_COLUMNS, apply_labels, find_lists, parse_columns
from shard_builder.sources.matching import Labelled, subjects_from_pattern, subjects_from_table
from shard_builder.sources.options import ScanOptions, SourceKind
from shard_builder.sources.sequence import SkippedSequence, Source
from shard_builder.sources.table import TABLE_COLUMNS, scan_table
from shard_builder.sources.template import Layout, scan_layout
from shard_builder.sources.tree import scan_tree
from shard_builder.sources.walk import relative_name, source_name, walk_files
from shard_builder.videos import is_video

CLASS_FOLDERS = "{label}/**/*"
"""The layout of videos in class folders."""


def scan_source(src: Path | str, options: ScanOptions | None = None) -> Source:
    """Scan a source and choose its classes.

    Args:
        src: A folder, or a table of clips.
        options: How to read it.

    Raises:
        InputError: If an option does not fit the source.
        SourceError: If nothing is found, or (``on_error="raise"``) for the first fault.
    """
    src, options = Path(src), options or ScanOptions()
    kind = detect_source(src, options)
    _check_options(kind, src, options)
    if kind == "tree":
        source = scan_tree(src, on_error=options.on_error)
    elif kind == "ckplus":
        source = scan_ckplus(src, on_error=options.on_error)
    elif kind == "table":
        source = _scan_table(src, options)
    else:
        source = _scan_clips(src, kind, options)
    return apply_classes(source, options.classes) if options.classes else source


def detect_source(src: Path, options: ScanOptions) -> SourceKind:
    """Tell how a source is to be read.

    Raises:
        SourceError: If it cannot be told; the message says what is there.
    """
    if options.kind != "auto":
        return options.kind
    if src.is_file():
        return "table"
    if options.layout or options.labels:
        return "layout"
    if not src.is_dir():
        raise SourceError(
            f"{src}: no such folder or table, expected a source\n"
            f"  Check the path, or make a release: ckshard synth {src}"
        )
    if (src / "rgb").is_dir() and any((src / "rgb").glob("[0-7]/*")):
        return "tree"
    for path in walk_files(src):
        if is_release_file(path):
            return "ckplus"
        if is_video(path):
            return "videos"
    raise nothing_found(src, tried="be read without options")


def _check_options(kind: SourceKind, src: Path, options: ScanOptions) -> None:
    """Refuse options that the kind of source would not use."""
    only_clips = ("layout", "videos", "table")
    takes = {
        "layout": ("layout",),
        "labels": ("layout",),
        "match": ("layout",),
        "columns": ("layout", "table"),
        "root": ("table",),
        "subjects": only_clips,
        "subject_pattern": only_clips,
        "no_subjects": only_clips,
        "frames_from_0": ("layout", "table"),
        "allow_gaps": ("layout", "table"),
    }
    for argument, kinds in takes.items():
        if getattr(options, argument) and kind not in kinds:
            raise InputError(
                f"{argument}=... is for sources of the kind {' or '.join(kinds)}, but {src} is read"
                f" as {kind}"
            )
    if kind == "table" and not src.is_file():
        raise InputError(f"{src}: no such file, expected a table of clips")
    if kind != "table" and not src.is_dir():
        raise SourceError(f"{src}: no such folder, expected a source\n  Check the path.")


def _scan_clips(src: Path, kind: SourceKind, options: ScanOptions) -> Source:
    text = options.layout or (CLASS_FOLDERS if kind == "videos" else "")
    if not text:
        raise InputError(
            "labels=... and kind='layout' need layout=..., a template of the clips' paths, such as"
            " '**/{clip}/*{frame}.jpg' or '**/*.mp4'"
        )
    layout = Layout(text)
    if "label" not in layout.names and not options.labels:
        raise InputError(
            f"layout={text!r}: has no {{label}}, expected one, or labels=..., a list that names"
            " the classes"
        )
    scan = scan_layout(src, layout, only_videos=kind == "videos")
    if not scan.clips and not scan.faults:
        raise nothing_found(src, tried=f"match layout={text!r}")
    clips, faults, left_out = scan.clips, scan.faults, {}
    if scan.unmatched and kind == "videos":
        faults = [*faults, *(_no_class_folder(path, src) for path in scan.unmatched)]
    elif scan.unmatched:
        example = source_name(scan.unmatched[0], src)
        left_out = {f"files that the layout does not match, such as {example}": len(scan.unmatched)}
    if options.labels:
        columns = parse_columns(options.columns, LIST_COLUMNS)
        lists = find_lists(src, options.labels)
        labelled = apply_labels(clips, src, lists, columns=columns, match=options.match)
        clips, faults = labelled.clips, [*faults, *labelled.faults]
        left_out |= labelled.left_out
    return _finish(
        clips, src, kind, options, faults, left_out, names_subjects="subject" in layout.names
    )


def _scan_table(src: Path, options: ScanOptions) -> Source:
    root = options.root or src.parent
    if not root.is_dir():
        raise InputError(
            f"root={str(root)!r}: no such folder, expected the one a table's paths are below"
        )
    columns = parse_columns(options.columns, TABLE_COLUMNS)
    scan = scan_table(src, root, columns, frames_from_0=options.frames_from_0)
    return _finish(
        scan.clips, root, "table", options, scan.faults, {}, names_subjects=scan.has_subjects
    )


def _finish(
    clips: Sequence[Clip],
    root: Path,
    kind: SourceKind,
    options: ScanOptions,
    faults: Sequence[SkippedSequence],
    left_out: dict[str, int],
    *,
    names_subjects: bool,
) -> Source:
    """Give clips their subjects and make sequences of them."""
    named = Labelled(clips=list(clips), faults=[], left_out={})
    if options.subjects is not None:
        named = subjects_from_table(clips, root, options.subjects)
    elif options.subject_pattern:
        named = subjects_from_pattern(clips, root, options.subject_pattern)
    elif not (options.no_subjects or names_subjects or _have_subjects(clips)):
        raise InputError(
            f"{root}: nothing says whose face a clip shows; name {{subject}} in layout=..., give"
            " the table a column subject, or pass subjects=FILE (CSV with the columns video and"
            " subject), subject_pattern=REGEX, or no_subjects=True: then the same face may train"
            " and validate, and accuracy is not accuracy on new people"
            f"{hint(relative_name(clips[0].frames[0], root)) if clips else ''}"
        )
    rules = ClipRules(
        has_subjects=not options.no_subjects,
        frames_from_0=options.frames_from_0,
        allow_gaps=options.allow_gaps,
        on_error=options.on_error,
    )
    return clips_to_source(
        named.clips,
        root,
        rules,
        kind=kind,
        faults=[*faults, *named.faults],
        left_out=left_out | named.left_out,
    )


def _have_subjects(clips: Sequence[Clip]) -> bool:
    return any(clip.fields.get("subject") for clip in clips)


def _no_class_folder(path: Path, root: Path) -> SkippedSequence:
    reason = f"{path}: lies in no class folder, expected {root / '<class>' / path.name}"
    return SkippedSequence(key=path.stem, path=source_name(path, root), reason=reason)
