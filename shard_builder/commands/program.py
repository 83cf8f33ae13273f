"""Where both programs begin: they say so where another module hides a package of theirs."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

HOUSES = ("pipelines", "models", "train")
"""Packages beside this one whose names others may have as well."""


def ckshard() -> NoReturn:
    """Run ``ckshard``."""
    _run("ckshard")


def cktrain() -> NoReturn:
    """Run ``cktrain``."""
    _run("cktrain")


def _run(program: str) -> NoReturn:
    for house in HOUSES:
        if message := hiding(house):
            sys.stderr.write(f"{program}: error: {message}\n")
            sys.exit(2)
    (entry,) = entry_points(group="ckshard.programs", name=program)
    entry.load()()
    raise AssertionError(f"{program} exits itself")


def hiding(house: str) -> str | None:
    """Return what to say if another module is imported by a package's name, None if it is ours.

    With ``PYTHONPATH=.`` a ``train.py`` of the user's own comes before the package ``train``.
    """
    own = Path(__file__).resolve().parents[2] / house / "__init__.py"
    spec = find_spec(house)
    found = spec.origin if spec else None
    if found is not None and Path(found).resolve() == own:
        return None
    return (
        f"{found or house}: hides the package {house!r} of ckshard, {own.parent}\n  Run it in"
        " another folder, without PYTHONPATH, or rename that file."
    )
