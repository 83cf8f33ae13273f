"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """Size and SHA-256 of a finished file."""

    num_bytes: int
    sha256: str

    def to_json(self) -> dict[str, object]:
        """Return the manifest's form."""
        return asdict(self)


def digest_file(path: Path) -> FileDigest:
    """Hash a file in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return FileDigest(num_bytes=path.stat().st_size, sha256=digest.hexdigest())


def write_atomically(path: Path, data: bytes, *, temporary_dir: Path | None = None) -> FileDigest:
    """Write a small file under a temporary name, flush it to the disk and rename it."""
    temporary = (temporary_dir or path.parent) / (path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return FileDigest(num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON, whole or not at all."""
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable (where the system lets a folder be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
