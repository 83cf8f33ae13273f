"""The key of a sample: a name that every reader of the shards takes."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

MAX_KEY_LENGTH = 80
KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,80}")
HASH_LENGTH = 8


def make_keys(names: Sequence[str], identities: Sequence[str]) -> list[str]:
    """Make keys that differ from names in any script; no key depends on the order.

    A name of plain characters becomes its own key, with ``_`` for ``/``. Where characters are lost,
    and where two names would become one key, a short hash of the identity keeps the keys apart.

    Args:
        names: What the keys should look like.
        identities: What they stand for, such as whole paths; different from each other.

    Raises:
        ValueError: If two identities are equal.

    >>> make_keys(["S010/004", "a b", "a-b", "\u6b22\u559c"], ["1", "2", "3", "4"])
    ['S010_004', 'a-b-d4735e3a', 'a-b', '4b227777']
    """
    twice = [identity for identity, count in Counter(identities).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is there twice, expected different identities")
    plain = [name.replace("/", "_") for name in names]
    count = Counter(plain)
    return [
        key if KEY_PATTERN.fullmatch(key) and count[key] == 1 else _hashed(key, identity)
        for key, identity in zip(plain, identities, strict=True)
    ]


def _hashed(name: str, identity: str) -> str:
    """Return as much of a name as a key may hold, without accents, and a hash of the identity."""
    digest = hashlib.sha256(os.fsencode(identity)).hexdigest()[:HASH_LENGTH]
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    head = re.sub(r"[^A-Za-z0-9_-]+", "-", ascii_name)[: MAX_KEY_LENGTH - HASH_LENGTH - 1]
    head = head.strip("-_")
    return f"{head}-{digest}" if head else digest


def readable_name(name: str) -> str:
    r"""Return a file name as text that can be written as UTF-8; bytes that are not appear as
    ``\xe9``.
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")
