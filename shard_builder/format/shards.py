"""Write one tar shard and its DALI index, deterministically, under a temporary name until whole.

The bytes are those of webdataset's TarWriter with ``mtime=0`` (a test compares them). The standard
library writes the headers, because importing webdataset imports torch, which costs each build
process seconds and a gigabyte of address space.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shard_builder.files import FileDigest, create_temporary, sync_folder, write_atomically
from shard_builder.keys import KEY_PATTERN

BLOCK_BYTES = tarfile.BLOCKSIZE
OWNER = "bigdata"
MODE = 0o444
INDEX_VERSION = "v1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where a member's data lies in its tar."""

    offset: int
    num_bytes: int
    crc32: int


def member_header(name: str, num_bytes: int) -> bytes:
    """Return the 512-byte USTAR header of a regular member.

    Raises:
        ValueError: If the name does not fit a USTAR header.
    """
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname, info.mtime = num_bytes, MODE, OWNER, OWNER, 0
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


class ShardWriter:
    """Write samples to ``<name>.tar`` and their index to ``<name>.idx``.

    Args:
        folder: Where both appear in :meth:`finish`.
        name: Stem of both files, ``flow-000000``.
        temporary_dir: Where they are written, on the same file system; it keeps nothing after
            :meth:`close`.

    Attributes:
        num_bytes: Bytes of the tar so far.
        files: After :meth:`finish` the digests of both files by name.
    """

    def __init__(self, folder: Path, name: str, *, temporary_dir: Path) -> None:
        self.name = name
        self.num_bytes = 0
        self.files: dict[str, FileDigest] = {}
        self._folder = folder
        self._temporary_dir = temporary_dir
        self._temporary, self._file = create_temporary(temporary_dir, f"{name}.tar")
        self._digest = hashlib.sha256()
        self._index_lines: list[str] = []

    def write(self, key: str, members: Mapping[str, bytes]) -> dict[str, Member]:
        """Append one sample, its members in the order of their extensions, as webdataset does.

        Raises:
            ValueError: If the key is not one that every reader takes.
        """
        if not KEY_PATTERN.fullmatch(key):
            raise ValueError(f"key {key!r} is not 1 to 80 characters of A-Z a-z 0-9 _ -")
        places, groups = {}, []
        for extension in sorted(members):
            data = members[extension]
            name = f"{key}.{extension}"
            self._append(member_header(name, len(data)))
            places[extension] = Member(
                offset=self.num_bytes, num_bytes=len(data), crc32=zlib.crc32(data)
            )
            groups.append(f"{extension} {self.num_bytes} {len(data)} {name}")
            self._append(data)
            self._append(b"\0" * (-len(data) % BLOCK_BYTES))
        self._index_lines.append(" ".join(groups))
        return places

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.num_bytes += len(data)

    def close(self) -> None:
        """Give up what is not finished; after :meth:`finish` it does nothing."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def finish(self) -> None:
        """Flush tar and index to the disk and give them their names."""
        end = 2 * BLOCK_BYTES
        self._append(b"\0" * (end + -(self.num_bytes + end) % tarfile.RECORDSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        text = "\n".join([f"{INDEX_VERSION} {len(self._index_lines)}", *self._index_lines]) + "\n"
        index, tar = f"{self.name}.idx", f"{self.name}.tar"
        # The tar last: where it stands, its index does.
        self.files[index] = write_atomically(
            self._folder / index, text.encode("ascii"), temporary_dir=self._temporary_dir
        )
        self._temporary.replace(self._folder / tar)
        sync_folder(self._folder)
        self.files[tar] = FileDigest(num_bytes=self.num_bytes, sha256=self._digest.hexdigest())
