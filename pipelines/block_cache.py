"""Blocks of a store's tars kept on this machine's disk; farthest next use is dropped first."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipelines.streams import UInt8
from shard_builder.errors import InputError
from shard_builder.files import (
    TEMPORARY_NAME,
    create_temporary,
    disk_fault,
    is_regular,
    read_regular,
    remove_temporaries,
)

LOCK_NAME = ".lock"
NextUse = Callable[[str], float]
"""When a block of some name is needed next: smaller is sooner, infinite is never."""


class BlockCache:
    """Files of a folder that processes share, each a block, whole or not at all.

    What is read is checked by whoever reads it: a file may be anything after a crash.

    Args:
        folder: The folder; it is made if it is not there.
        most_bytes: Of all blocks.

    Raises:
        InputError: If it cannot be written.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._locked() as lock:
                remove_temporaries(folder)
                sizes = self._sizes()
                self._note(lock, sum(sizes.values()))
                # No block, or one of a larger cache: all others would have to make room for it.
                for name, size in sizes.items():
                    if size > most_bytes:
                        self._drop(lock, name)
        except OSError as error:
            raise self._fault(error) from None

    def read(self, name: str, num_bytes: int) -> UInt8 | None:
        """Return a block, ``uint8`` (num_bytes,); None if it is not here.

        What stands under its name and is no file of that size is dropped unread.
        """
        path = self._folder / name
        try:
            data = np.frombuffer(read_regular(path, most_bytes=num_bytes), np.uint8)
        except InputError:
            data = None
        if data is not None and len(data) == num_bytes:
            return data
        if os.path.lexists(path):
            self.remove(name)
        return None

    def remove(self, name: str) -> None:
        """Drop a block whose bytes are wrong.

        Raises:
            InputError: If the folder cannot be written.
        """
        try:
            with self._locked() as lock:
                self._drop(lock, name)
        except OSError as error:
            raise self._fault(error) from None

    def write(self, name: str, data: UInt8, next_use: NextUse) -> None:
        """Keep a block, in the place of those whose next use is farther; else leave it.

        Raises:
            InputError: If the folder cannot be written.
        """
        try:
            with self._locked() as lock:
                if is_regular(self._folder / name) or not self._make_room(
                    lock, data.nbytes, next_use, below=next_use(name)
                ):
                    return
                path, file = create_temporary(self._folder, name)
                try:
                    with file:
                        file.write(data.data)
                    # First the sum: after a kill in between it is too large, never too small.
                    self._note(lock, self._total(lock) + data.nbytes)
                    path.replace(self._folder / name)
                except BaseException:
                    path.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise self._fault(error) from None

    def _make_room(self, lock: int, size: int, next_use: NextUse, *, below: float) -> bool:
        """Drop blocks until there is room; tell whether there is."""
        if self._total(lock) + size <= self._most_bytes:
            return True
        farther = [(next_use(name), name) for name in self._sizes()]
        farther = sorted((entry for entry in farther if entry[0] > below), reverse=True)
        for _, name in farther:
            if self._total(lock) + size <= self._most_bytes:
                break
            self._drop(lock, name)
        return self._total(lock) + size <= self._most_bytes

    def _drop(self, lock: int, name: str) -> None:
        path = self._folder / name
        try:
            size = path.lstat().st_size
            path.unlink()
        except FileNotFoundError:
            return
        self._note(lock, max(self._total(lock) - size, 0))

    def _sizes(self) -> dict[str, int]:
        """Return the size of each block here."""
        with os.scandir(self._folder) as entries:
            return {
                entry.name: entry.stat(follow_symlinks=False).st_size
                for entry in entries
                if entry.name != LOCK_NAME and not TEMPORARY_NAME.fullmatch(entry.name)
            }

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the folder's lock, which ends with the process; its file holds the sum of sizes."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(self._folder / LOCK_NAME, flags, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)

    def _total(self, lock: int) -> int:
        noted = os.pread(lock, 20, 0)
        return int(noted) if noted.isdigit() else sum(self._sizes().values())

    @staticmethod
    def _note(lock: int, num_bytes: int) -> None:
        os.pwrite(lock, b"%020d" % num_bytes, 0)

    def _fault(self, error: OSError) -> InputError:
        return InputError(
            f"shard_cache={str(self._folder)!r}: cannot be written: {disk_fault(error)}\n"
            "  Leave it out, or give another folder or smaller shard_cache_bytes=N."
        )
