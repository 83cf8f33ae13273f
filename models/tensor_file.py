"""Files of ``torch.save`` as strangers may send them: bounded before they are loaded, and sealed.

A seal is the SHA-256 of all that stands before it, in the comment at the end of the zip archive:
``torch.load`` and other readers take no notice of it.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from shard_builder.errors import InputError
from shard_builder.files import name_of_open, open_regular
from shard_builder.untrusted.text import clean

MOST_BYTES = 1 << 34
MOST_ENTRIES = 1 << 18
ZIP_MAGIC = b"PK\x03\x04"
END_RECORD = b"PK\x05\x06"
SEAL = b"sha256 "
SEAL_BYTES = len(SEAL) + 64


def seal(file: BinaryIO) -> None:
    """Append the seal to a file that ``torch.save`` has just written; open to write and read."""
    file.seek(-22, os.SEEK_END)
    end = file.read(22)
    if end[:4] != END_RECORD or end[-2:] != b"\0\0":
        raise ValueError("not the end of an archive without a comment")
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", SEAL_BYTES) + SEAL)
    file.flush()
    size = file.tell()
    file.write(_digest(file, size).encode())


def load_tensors(path: Path, *, what: str, sealed: bool) -> Any:
    """Load a file of ``torch.save`` onto the CPU, with plain values and tensors only.

    Tensors are mapped from the file: they take memory when they are read.

    Args:
        path: A regular file.
        what: It should be: ``a checkpoint``, ``weights``.
        sealed: Whether it must have a seal; one that is there must fit.

    Raises:
        InputError: If it is no such file, its seal does not fit, or it claims more than it holds.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise InputError(f"{path}: {size} bytes, expected at most {MOST_BYTES}")
        is_archive = file.read(4) == ZIP_MAGIC
        _check_seal(path, file, size, required=sealed)
        try:
            if is_archive:
                check_entries(file, size)
            file.seek(0)
            source = name_of_open(file) if is_archive else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=is_archive)
        except Exception as error:  # noqa: BLE001 - a damaged file makes torch.load raise anything
            reason = clean((str(error) or type(error).__name__).splitlines()[0])
            raise InputError(f"{path}: cannot be read as {what} ({reason})") from None


def _check_seal(path: Path, file: BinaryIO, size: int, *, required: bool) -> None:
    file.seek(max(0, size - SEAL_BYTES))
    end = file.read(SEAL_BYTES)
    if not end.startswith(SEAL):
        if required:
            raise InputError(
                f"{path}: cannot be read as a checkpoint (no SHA-256 at its end), expected a whole"
                " one"
            )
        return
    if _digest(file, size - 64) != end[len(SEAL) :].decode("latin1"):
        raise InputError(
            f"{path}: its SHA-256 differs from the one at its end: it was damaged or changed"
        )


def _digest(file: BinaryIO, num_bytes: int) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while num_bytes > 0:
        block = file.read(min(num_bytes, 1 << 20))
        if not block:
            break
        digest.update(block)
        num_bytes -= len(block)
    file.seek(0, os.SEEK_END)
    return digest.hexdigest()


def check_entries(file: BinaryIO, size: int) -> None:
    """Make sure that what is unpacked is no larger than the file: stored, each entry once.

    Raises:
        ValueError: If it is; as zipfile if it is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if len(entries) > MOST_ENTRIES or len(names) < len(entries):
        raise ValueError(f"{len(entries)} entries of {len(names)} names")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"entry {entry.filename} is compressed, expected it as it is")
    total = sum(entry.file_size for entry in entries)
    if total > size:
        raise ValueError(f"its entries claim {total} bytes of a file of {size}")
