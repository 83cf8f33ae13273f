"""What went wrong with a request, in words of our own: a client's may quote what is secret."""

from __future__ import annotations

import re
from typing import NamedTuple

from shard_builder.errors import DatasetError, RangeError, StoreError

STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>([A-Za-z]{3,60})</Code>")
ANOTHER_RANGE = "it answered another range"
BROKEN = (
    ("dns error", "its host is not found (DNS)"),
    ("ConnectionRefused", "the connection was refused"),
    ("TimedOut", "no answer in time"),
    ("Timeout", "no answer in time"),
    ("got ", ANOTHER_RANGE),
    ("ConnectionReset", "the connection was reset"),
    ("kind: Body", "the answer was cut short"),
    ("kind: Decode", "the answer was cut short"),
)
DENIED = "access denied: the credentials are missing, wrong or have expired"
ELSEWHERE = "it lies elsewhere: look at AWS_REGION and AWS_ENDPOINT_URL"
ELSEWHERE_CODES = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}
"""What S3 answers to a request that is signed for another region, or sent to another."""
PASSING_CODES = {"RequestTimeout", "OperationAborted"}
"""What S3 asks to try again although its status is a 4xx."""
NO_RANGES = "the server does not answer ranges"


class RequestFault(NamedTuple):
    """Why a request failed.

    Args:
        what: In words.
        helps: Whether to ask again may help.
        kind: Of the error that it becomes.
    """

    what: str
    helps: bool = False
    kind: type[DatasetError] = StoreError


def fault_of(error: Exception) -> RequestFault:
    """Say what an error of obstore means; nothing of its text is passed on but status and code."""
    name, text = type(error).__name__, str(error)
    status, code = STATUS.search(text), CODE.search(text)
    number, word = int(status[1]) if status else 0, code[1] if code else ""
    what = f"status {number} {word}".rstrip()
    if isinstance(error, FileNotFoundError):
        missing = "bucket" if word == "NoSuchBucket" else "object"
        return RequestFault(f"no such {missing}", kind=DatasetError)
    if name in ("PermissionDeniedError", "UnauthenticatedError"):
        return RequestFault(f"{DENIED} ({what})")
    if word in ELSEWHERE_CODES or "redirect without LOCATION" in text:
        return RequestFault(ELSEWHERE + (f" ({what})" if status else ""))
    if name == "NotSupportedError" or "non-partial response" in text:
        return RequestFault(NO_RANGES)
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return RequestFault("no credentials are found in the environment")
    if status:
        if "Expired" in word or "Token" in word:
            return RequestFault(f"{DENIED} ({what})")
        may_pass = number >= 500 or number in (408, 429) or word in PASSING_CODES
        kind = RangeError if number == 416 else StoreError
        return RequestFault(what, helps=may_pass, kind=kind)
    if name == "GenericError":
        for sign, what in BROKEN:
            if sign in text:
                kind = RangeError if what == ANOTHER_RANGE else StoreError
                return RequestFault(what, helps=True, kind=kind)
        return RequestFault("the connection broke", helps=True)
    return RequestFault(f"the request was refused ({name})")
