r"""Text of strangers as people see it: class, file and member names on a terminal and in figures.

The data keep the original; only what is shown goes through :func:`clean`.
"""

from __future__ import annotations

import unicodedata

MOST_CHARACTERS = 200
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that move the cursor, turn the text around, or show nothing."""
JOINERS = "\u200c\u200d"
"""Scripts need these two between letters."""


def clean(text: object, *, most: int = MOST_CHARACTERS) -> str:
    r"""Return a text as one line of visible characters, cut where it is long.

    >>> clean("a\x1b[2Jb\nall is well")
    'a\\x1b[2Jb\\nall is well'
    >>> clean("x" * 100_000, most=8)
    'xxxxxxxx... (100000 characters)'
    """
    whole = str(text)
    shown = clean_line(whole[:most])
    return shown if len(whole) <= most else f"{shown}... ({len(whole)} characters)"


def clean_line(text: str) -> str:
    """Return a text of any length as one line of visible characters."""
    if text.isprintable():
        return text
    return "".join(
        char
        if char in JOINERS or unicodedata.category(char) not in HIDDEN
        else char.encode("unicode_escape").decode()
        for char in text
    )


def plain_label(text: object, *, most: int = 40) -> str:
    """Return a text as a figure shows it: short, on one line, its dollars no formula."""
    return clean(text, most=most).replace("$", r"\$")
