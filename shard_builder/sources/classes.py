"""Rename, merge and choose classes: ``05=angry``, ``positive=happy|surprise``, ``happy,sad``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from shard_builder.errors import InputError
from shard_builder.sources.sequence import Source, number_classes


@dataclass(slots=True, kw_only=True)
class ClassChoice:
    """What ``classes`` asks for.

    Args:
        name_of: New name by the source's class; empty: left out.
        has_plain: Whether a class is only named; then those that nothing names are left out.
        absent: Classes to rename that the source has not.
    """

    name_of: dict[str, str] = field(default_factory=dict)
    has_plain: bool = False
    absent: list[str] = field(default_factory=list)


def parse_classes(text: str, found: Collection[str]) -> ClassChoice:
    """Parse the text of ``classes``.

    Args:
        text: With ``,`` between: ``OLD=NEW`` renames, ``NEW=OLD|OLD`` merges, ``OLD=`` leaves out,
            ``NAME`` keeps; where a name stands alone, what is not named is left out.
        found: Classes of the source.

    Raises:
        InputError: If it names one class twice, none of the source's, or a lone or miswritten name
            that the source has not.
    """
    choice = ClassChoice()

    def take(old: str, new: str, *, must_be: bool) -> None:
        miswritten = old.casefold() in {name.casefold() for name in found} or new in found
        if old not in found and (must_be or miswritten):
            known = ", ".join(name for _, name in number_classes(found))
            raise InputError(f"classes={text!r}: no class {old!r} in the source, expected {known}")
        if old in choice.name_of:
            raise InputError(f"classes={text!r}: names {old!r} twice")
        choice.name_of[old] = new
        choice.absent += [old] if old not in found else []

    for item in (part.strip() for part in text.split(",")):
        left, equals, right = (part.strip() for part in item.partition("="))
        if not left:
            raise InputError(f"classes={text!r}: an empty name in {item!r}")
        if "|" in right:
            for old in right.split("|"):
                take(old.strip(), left, must_be=False)
        else:
            take(left, right if equals else left, must_be=not equals)
            choice.has_plain |= not equals
    if len(choice.absent) == len(choice.name_of):
        known = ", ".join(name for _, name in number_classes(found))
        raise InputError(f"classes={text!r}: names no class of the source, expected {known}")
    return choice


def apply_classes(source: Source, text: str) -> Source:
    """Return the source with the classes that ``classes`` asks for; what is left out is counted.

    Raises:
        InputError: As :func:`parse_classes`, and if nothing is left.
    """
    choice = parse_classes(text, {sequence.emotion for sequence in source.sequences})
    kept, left_out = [], Counter(source.left_out)
    for sequence in source.sequences:
        default = "" if choice.has_plain else sequence.emotion
        name = choice.name_of.get(sequence.emotion, default)
        if name:
            kept.append(replace(sequence, emotion=name))
        else:
            left_out[f"sequences of class {sequence.emotion}"] += 1
    for name in choice.absent:
        left_out[f"sequences of class {name}, which is not there"] = 0
    if not kept:
        raise InputError(f"classes={text!r}: leaves no sequence")
    classes = number_classes({sequence.emotion for sequence in kept})
    code_of = {name: code for code, name in classes}
    return replace(
        source,
        sequences=tuple(replace(sequence, code=code_of[sequence.emotion]) for sequence in kept),
        classes=classes,
        left_out=dict(left_out),
    )
