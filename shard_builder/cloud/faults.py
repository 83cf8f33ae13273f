"""What went wrong with a request, in words of our own: a client's may quote what is secret."""

from __future__ import annotations

import re
from typing import NamedTuple

STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>([A-Za-z]{3,60})</Code>")
BROKEN = (
    ("dns error", "its host is not found (DNS)"),
    ("ConnectionRefused", "the connection was refused"),
    ("TimedOut", "no answer in time"),
    ("Timeout", "no answer in time"),
    ("got ", "it answered another range"),
    ("ConnectionReset", "the connection was reset"),
    ("kind: Body", "the answer was cut short"),
    ("kind: Decode", "the answer was cut short"),
)
DENIED = "access denied: the credentials are missing, wrong or have expired"
NO_RANGES = "the server does not answer ranges"


class RequestFault(NamedTuple):
    """Why a request failed.

    Args:
        what: In words.
        helps: Whether to ask again may help.
        is_missing: Whether there is no such object.
    """

    what: str
    helps: bool = False
    is_missing: bool = False


def fault_of(error: Exception) -> RequestFault:
    """Say what an error of obstore means; nothing of its text is passed on but status and code."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, FileNotFoundError):
        return RequestFault("no such object", is_missing=True)
    if name in ("PermissionDeniedError", "UnauthenticatedError"):
        return RequestFault(DENIED)
    if name == "NotSupportedError" or "non-partial response" in text:
        return RequestFault(NO_RANGES)
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return RequestFault("no credentials are found in the environment")
    if status := STATUS.search(text):
        number, code = int(status[1]), CODE.search(text)
        what = f"status {number}" + (f" {code[1]}" if code else "")
        if code and ("Expired" in code[1] or "Token" in code[1]):
            return RequestFault(f"{DENIED} ({what})")
        return RequestFault(what, helps=number >= 500 or number in (408, 429))
    if name == "GenericError":
        for sign, what in BROKEN:
            if sign in text:
                return RequestFault(what, helps=True)
        return RequestFault("the connection broke", helps=True)
    return RequestFault(f"the request was refused ({name})")
