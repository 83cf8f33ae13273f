"""Addresses of datasets: ``s3://bucket/prefix`` and its like, as against folders."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from shard_builder.checks import ADDRESS
from shard_builder.errors import InputError
from shard_builder.untrusted.text import clean


def address_of(place: Path | str) -> str | None:
    """Return the address that a place is, written the usual way; None if it is a folder.

    >>> address_of("s3://bucket/faces/"), address_of(Path("s3://bucket/faces"))
    ('s3://bucket/faces', 's3://bucket/faces')
    >>> address_of("datasets/faces") is None
    True

    Raises:
        InputError: If it names a user, a password or a signature: they would end up in records.
    """
    match = ADDRESS.fullmatch(str(place))
    if match is None or match[1] == "file":
        return None
    address = f"{match[1]}://{match[2].rstrip('/')}"
    parts = urlsplit(address)
    if "@" in parts.netloc or parts.query or parts.fragment or not parts.netloc:
        shown = f"{match[1]}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise InputError(
            f"{clean(shown)}: an address with a user, a query or no bucket, expected"
            f" {match[1]}://bucket/prefix\n"
            "  Credentials come from the environment, such as AWS_ACCESS_KEY_ID."
        )
    return address


def folder_of(place: Path | str) -> Path:
    """Return the folder that a path or a ``file://`` address names.

    >>> folder_of("file:///data/faces").as_posix()
    '/data/faces'

    Raises:
        InputError: If it is an address of a store.
    """
    if address := address_of(place):
        raise InputError(f"{address}: is an address, expected a folder")
    match = ADDRESS.fullmatch(str(place))
    return Path(place) if match is None else Path("/" + unquote(match[2]))
