"""What a scan understood, in a few lines, and what about it is absurd: before hours of flow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean

from shard_builder.errors import InputError, counted
from shard_builder.sources.known import hint
from shard_builder.sources.sequence import FaceSequence, Source, side_of_part
from shard_builder.sources.walk import FRAME_NUMBER

EXPRESSIONS = frozenset(
    ("anger", "angry", "contempt", "disgust", "disgusted", "fear", "fearful", "happiness", "happy")
    + ("joy", "neutral", "sad", "sadness", "surprise", "surprised")
)
MIN_RUN = 4
"""Stills whose numbers follow each other in runs of this length on average are frames of clips."""


def understood(source: Source) -> list[str]:
    """Say what a scan understood: one line each for size, subjects, parts and one path."""
    sequences = source.sequences
    kind = "still" if is_stills(source) else "sequence"
    subjects = sorted({sequence.subject for sequence in sequences})
    lines = [
        f"{counted(len(sequences), f'labelled {kind}')} of"
        f" {counted(len(source.classes), 'class', 'classes')}, {source.num_unlabelled} unlabelled,"
        f" {len(source.skipped)} skipped"
    ]
    if source.has_subjects:
        examples = ", ".join(subjects[:3]) + (", ..." if len(subjects) > 3 else "")
        lines.append(f"{counted(len(subjects), 'subject')}: {examples}")
    else:
        lines.append(
            "no subjects: every sequence counts as a person of its own, so the same face may train"
            " and validate, and accuracy is not accuracy on new people"
        )
    folds = sorted({sequence.fold for sequence in sequences if sequence.fold})
    if folds:
        counts = (f"{fold} {sum(s.fold == fold for s in sequences)}" for fold in folds)
        lines.append(f"official parts: {', '.join(counts)}")
    lines += [f"left out ({count}): {what}" for what, count in source.left_out.items()]
    return [*lines, _taken_apart(sequences[0])]


def is_stills(source: Source) -> bool:
    """Tell whether a source holds single images, of which no flow can be computed."""
    return all(sequence.is_still for sequence in source.sequences)


def _taken_apart(sequence: FaceSequence) -> str:
    frames = counted(sequence.expected_num_frames, "frame")
    if sequence.onset is not None or sequence.offset is not None:
        frames += f" from {sequence.kept.start} on"
    facts = [f"class {sequence.emotion}", f"subject {sequence.subject}", frames]
    facts += [f"apex {sequence.apex}"] if sequence.apex is not None else []
    facts += [f"part {sequence.fold}"] if sequence.fold else []
    return f"for instance {sequence.source}: {', '.join(facts)}, key {sequence.key}"


def check_plausible(source: Source) -> None:
    """Refuse what no set of facial expressions is like.

    Raises:
        InputError: With every reason, and what to do.
    """
    reasons = [*_absurd_classes(source)]
    if source.has_subjects:
        reasons += _absurd_subjects(source)
    if is_stills(source):
        reasons += _absurd_stills(source.sequences)
    known = ""
    if source.kind == "videos":  # class folders are a guess; a layout or table is what was meant
        known = hint(source.sequences[0].source)
        reasons += _ambiguous_folders(source) if not known else []
        if known and not reasons:
            reasons.append("classes are taken from the first folder where no layout is given")
    if not reasons:
        return
    raise InputError(
        f"{'; '.join(reasons)}{known}\n  Look at ckshard list SRC with the same options; if it is"
        " meant so, pass yes=True."
    )


def _absurd_classes(source: Source) -> Iterable[str]:
    names = [name for _, name in source.classes]
    if len(names) == 1:
        yield f"there is only one class, {names[0]!r}, expected at least two"
    parts = [name for name in names if side_of_part(name)]
    if parts:
        yield (
            f"classes are called {', '.join(parts)}, which are the parts of a split (name them"
            " {fold} in the layout)"
        )
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold().strip(), name)
        if other != name:
            yield (
                f"the classes {other!r} and {name!r} differ in case only"
                f" (classes='{other}={other}|{name}' merges them)"
            )
    yield from _classes_beside(source.sequences)


def _classes_beside(sequences: Sequence[FaceSequence]) -> Iterable[str]:
    """Find a folder level whose names are expressions, but each of them in several classes."""
    paths = [Path(sequence.source).parts for sequence in sequences]
    for names in zip(*paths, strict=False):
        words = {name.casefold() for name in names}
        pairs = {(name, sequence.emotion) for name, sequence in zip(names, sequences, strict=True)}
        if len(words) > 1 and words <= EXPRESSIONS and len(pairs) > len(set(names)):
            first = sequences[0]
            yield (
                f"{first.source} is of class {first.emotion!r}, but the folders called"
                f" {', '.join(sorted(set(names))[:3])} name expressions (name them {{label}} in the"
                " layout)"
            )


def _ambiguous_folders(source: Source) -> Iterable[str]:
    """Find folders that stand in several class folders: nobody told which of both is the class."""
    above: dict[str, str] = {}
    for sequence in source.sequences if not source.has_subjects else ():
        parts = Path(sequence.source).parts
        if len(parts) > 2 and above.setdefault(parts[1], parts[0]) != parts[0]:
            yield (
                f"{sequence.source}: its class may be {parts[0]!r} or {parts[1]!r}; say which by"
                " layout='{label}/**/*.mp4' or layout='*/{label}/**/*.mp4'"
            )
            return


def _absurd_subjects(source: Source) -> Iterable[str]:
    subjects_of: dict[str, set[str]] = {}
    classes_of: dict[str, set[str]] = {}
    for sequence in source.sequences:
        subjects_of.setdefault(sequence.emotion, set()).add(sequence.subject)
        classes_of.setdefault(sequence.subject, set()).add(sequence.emotion)
    parts = sorted(classes_of)
    sides = {side_of_part(name) for name in parts} - {""}
    if len(sides) == len(parts):  # people may be called test1, test2
        yield (
            f"subjects are called {', '.join(parts)}, which are the parts of a split (name them"
            " {fold} in the layout)"
        )
    if len(classes_of) == 1:
        yield (
            f"there is only one subject, {next(iter(classes_of))!r}, so nobody is left to validate"
            " on"
        )
    elif all(len(subjects) == 1 for subjects in subjects_of.values()):
        yield "every class has a subject of its own; are the classes the subjects?"
    elif all(len(classes) == 1 for classes in classes_of.values()):
        yield "every subject shows one class only; are the subjects clips?"
    else:
        for name, subjects in sorted(subjects_of.items()):
            if len(subjects) == 1:
                yield _lonely_class(source, name, next(iter(subjects)))


def _lonely_class(source: Source, name: str, subject: str) -> str:
    first = next(s for s in source.sequences if s.emotion == name)
    where = f"{first.place}: " if first.place else ""
    return (
        f"{where}class {name!r} has one subject only, {subject!r}, which no cross-validation can"
        f" hold out (classes='{name}=' leaves the class out)"
    )


def _absurd_stills(sequences: Iterable[FaceSequence]) -> Iterable[str]:
    numbers: dict[tuple[str, str], list[int]] = {}
    for sequence in sequences:
        path = sequence.frames[0]
        match = FRAME_NUMBER.search(path.stem)
        if match:
            text = f"{path.parent}/{path.stem[: match.start()]}"
            numbers.setdefault((sequence.emotion, text), []).append(int(match[1]))
    runs = []
    for values in numbers.values():
        runs.append(1)
        for number, following in pairwise(sorted(values)):
            if following == number + 1:
                runs[-1] += 1
            else:
                runs.append(1)
    if runs and mean(runs) >= MIN_RUN:
        yield (
            f"the stills are numbered in runs of {mean(runs):.0f}, as the frames of clips are (name"
            " the number {frame} in the layout)"
        )
