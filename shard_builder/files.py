"""Files that appear whole or not at all, files that are read for what they are, and digests.

What is written goes under a name that nobody can foresee, opened exclusively, then renamed: a link
that someone planted is replaced, never followed. What is read must be a regular file: no link that
leads out of its folder, no pipe that never answers, no device that never ends.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from msgspec import Meta

from shard_builder.errors import CkError, InputError

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
READ = os.O_RDONLY | NO_FOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW | getattr(os, "O_BINARY", 0)
LARGE = 1 << 30
TEMPORARY_NAME = re.compile(r".+\.[0-9a-f]{24}\.tmp")

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this process may write",
}
"""What a disk says when it takes no more, and what that means."""

Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """Size and SHA-256 of a finished file."""

    num_bytes: Annotated[int, Meta(ge=0, lt=1 << 53)]
    sha256: Sha256

    def to_json(self) -> dict[str, object]:
        """Return the manifest's form."""
        return asdict(self)


def open_regular(path: Path, *, error: type[InputError] = InputError) -> BinaryIO:
    """Open a regular file to read; a link in its place is not followed.

    Args:
        path: The file; links in the folders above it are followed.
        error: Raised in the place of ``InputError``.

    Raises:
        InputError: If it is missing, a link, or no regular file.
    """
    try:
        descriptor = os.open(path, READ)
    except OSError as failure:
        if failure.errno == errno.ELOOP:
            raise error(f"{path}: is a link, expected a regular file in its folder") from None
        if failure.errno == errno.ENXIO:  # a socket
            raise error(f"{path}: is not a regular file") from None
        if failure.errno == errno.ENOENT:
            raise error(f"{path}: is missing") from None
        raise error(f"{path}: cannot be read ({failure.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{path}: is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, *, most_bytes: int, error: type[InputError] = InputError) -> bytes:
    """Read a whole regular file whose size is compared first.

    Raises:
        InputError: If it is missing, a link, no regular file, or larger than ``most_bytes``.
    """
    with open_regular(path, error=error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise error(f"{path}: {size} bytes, expected at most {most_bytes}")
        return file.read(most_bytes)


def name_of_open(file: BinaryIO) -> str:
    """Return a name under which a library can open the very file that is open here."""
    return f"/dev/fd/{file.fileno()}" if os.name == "posix" else str(file.name)


def is_regular(path: Path) -> bool:
    """Tell whether a path is a regular file and no link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def disk_fault(error: OSError) -> str:
    """Say in plain words why something cannot be written or read."""
    if error.errno in FULL:
        return FULL[error.errno]
    if error.errno == errno.EEXIST:
        return "is a file, expected a folder"
    if error.errno == errno.ENOTDIR:
        return "one of the folders above it is a file"
    return error.strerror or str(error)


def unwritable(path: Path, error: OSError) -> CkError:
    """Return the error that says why something cannot be written; of a full disk exit code 1."""
    kind = CkError if error.errno in FULL else InputError
    return kind(f"{path}: cannot be written ({disk_fault(error)})")


def digest_file(path: Path) -> FileDigest:
    """Hash a regular file in blocks of 1 MiB.

    Raises:
        InputError: If it is missing, a link, no regular file, or little but holes.
    """
    with open_regular(path) as file:
        if _is_hollow(file.fileno()):
            raise InputError(f"{path}: is sparse: most bytes that it claims are holes")
        return digest_open(file)


def _is_hollow(descriptor: int) -> bool:
    """Tell whether a large file is next to nothing but holes; reading one would take hours."""
    status = os.fstat(descriptor)
    held = getattr(status, "st_blocks", status.st_size) * 512
    if status.st_size < LARGE or held > status.st_size // 64 or not hasattr(os, "SEEK_HOLE"):
        return False
    # Where a file system counts no blocks, it finds no hole either.
    has_hole = os.lseek(descriptor, 0, os.SEEK_HOLE) < status.st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    return has_hole


def digest_open(file: BinaryIO) -> FileDigest:
    """Hash an open file from where it stands, in blocks of 1 MiB."""
    digest, num_bytes = hashlib.sha256(), 0
    while block := file.read(1 << 20):
        digest.update(block)
        num_bytes += len(block)
    return FileDigest(num_bytes=num_bytes, sha256=digest.hexdigest())


def create_temporary(folder: Path, name: str) -> tuple[Path, BinaryIO]:
    """Create a file for what shall be called ``name``, under a name that nobody can foresee.

    Returns:
        Its path, and the file, open to write and read.
    """
    path = folder / f"{name}.{secrets.token_hex(12)}.tmp"
    return path, os.fdopen(os.open(path, CREATE, 0o666), "w+b")


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed left in a folder."""
    for path in folder.iterdir():
        if TEMPORARY_NAME.fullmatch(path.name) and is_regular(path):
            path.unlink(missing_ok=True)


@contextmanager
def atomic_writer(path: Path, *, temporary_dir: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that appears as ``path``, flushed to the disk, when the ``with`` block ends well.

    Args:
        path: The file; one that is there is replaced, and so is a link.
        temporary_dir: Where it lies until then, on the same file system; its folder unless given.
    """
    temporary, file = create_temporary(temporary_dir or path.parent, path.name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes, *, temporary_dir: Path | None = None) -> FileDigest:
    """Write a small file that appears whole; see :func:`atomic_writer`."""
    with atomic_writer(path, temporary_dir=temporary_dir) as file:
        file.write(data)
    return FileDigest(num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON, whole or not at all."""
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


@contextmanager
def create_growing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears as ``path``, empty, at once, and grows in the ``with`` block."""
    temporary, file = create_temporary(path.parent, path.name)
    with file:
        temporary.replace(path)
        yield file


def append_regular(path: Path, data: bytes) -> None:
    """Append to a file, made if it is not there.

    Raises:
        InputError: If it is a link, no regular file, or a file that has another name elsewhere.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_FOLLOW | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags, 0o666)
    except OSError as failure:
        if failure.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise InputError(
                f"{path}: is a link or no regular file, will not write to it"
            ) from None
        raise
    with os.fdopen(descriptor, "ab") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise InputError(f"{path}: is no regular file of one name, will not write to it")
        file.write(data)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Make a folder that nobody can foresee, for a library that opens files by name; it is removed
    with what is left in it.
    """
    folder = parent / f"{name}.{secrets.token_hex(12)}.tmp"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def folder_inside(folder: Path, *names: str, make: bool = False) -> Path:
    """Return a folder below another one.

    Args:
        folder: A folder that a person named.
        names: The way down from there.
        make: Whether to make what is missing.

    Raises:
        InputError: If a folder on the way down is a link or no folder.
    """
    for name in names:
        folder = folder / name
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise InputError(f"{folder}: is a link or a file, expected a folder")
        if make:
            folder.mkdir(exist_ok=True, parents=True)
    return folder


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable (where the system lets a folder be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
