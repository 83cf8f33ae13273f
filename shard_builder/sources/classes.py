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
        kept: Source classes to keep under their own name; if there is one, classes that nothing
            names are left out.
    """

    name_of: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)


def parse_classes(text: str, found: Collection[str]) -> ClassChoice:
    """Parse the text of ``classes``.

    Args:
        text: With ``,`` between: ``OLD=NEW`` renames, ``NEW=OLD|OLD`` merges, ``OLD=`` leaves out,
            ``NAME`` keeps; where a name is only to be kept, what is not named is left out.
        found: Classes of the source.

    Raises:
        InputError: If it names a class that the source has not, or one twice.
    """
    choice = ClassChoice()

    def take(old: str, new: str) -> None:
        if old not in found:
            known = ", ".join(name for _, name in number_classes(found))
            raise InputError(f"classes={text!r}: no class {old!r} in the source, expected {known}")
        if old in choice.name_of or old in choice.kept:
            raise InputError(f"classes={text!r}: names {old!r} twice")
        choice.name_of[old] = new

    for item in (part.strip() for part in text.split(",")):
        left, equals, right = (part.strip() for part in item.partition("="))
        if not left:
            raise InputError(f"classes={text!r}: an empty name in {item!r}")
        if "|" in right:
            for old in right.split("|"):
                take(old.strip(), left)
        elif equals:
            take(left, right)
        else:
            take(left, left)
            choice.kept.add(left)
    return choice


def apply_classes(source: Source, text: str) -> Source:
    """Return the source with the classes that ``classes`` asks for; what is left out is counted.

    Raises:
        InputError: As :func:`parse_classes`, and if nothing is left.
    """
    choice = parse_classes(text, {sequence.emotion for sequence in source.sequences})
    kept, left_out = [], Counter(source.left_out)
    for sequence in source.sequences:
        default = "" if choice.kept else sequence.emotion
        name = choice.name_of.get(sequence.emotion, default)
        if name:
            kept.append(replace(sequence, emotion=name))
        else:
            left_out[f"sequences of class {sequence.emotion}"] += 1
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
