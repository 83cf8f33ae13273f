"""One fold, one process: a lock file for processes and hosts that share a folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from shard_builder.errors import InputError
from shard_builder.files import NO_FOLLOW, create_temporary
from shard_builder.untrusted.records import read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a lock.

    Args:
        host: Its machine.
        pid: Its number there.
        started: When it started, in ticks since boot (tells a reused pid apart); 0 where the system
            does not say.
    """

    host: str
    pid: int
    started: int

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended; one of another host never is."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return _start_ticks(self.pid) != self.started


def this_process() -> Holder:
    """Describe the calling process."""
    return Holder(host=socket.gethostname(), pid=os.getpid(), started=_start_ticks(os.getpid()))


@contextmanager
def claim(path: Path) -> Iterator[Holder | None]:
    """Try to take a lock; it is given back at the end of the ``with`` block.

    The lock of a process of this host that has died is taken over. That of another host is not:
    nothing here can know whether the other is alive.

    Args:
        path: The lock file.

    Yields:
        None if the lock is ours, else its holder.
    """
    holder = _take(path)
    if holder is not None and holder.is_gone:
        holder = _take_over(path)
    try:
        yield holder
    finally:
        if holder is None:
            path.unlink(missing_ok=True)


def _take(path: Path) -> Holder | None:
    temporary, file = create_temporary(path.parent, path.name)
    with file:
        file.write(json.dumps(asdict(this_process())).encode())
    try:
        while True:
            try:
                # Like O_EXCL it fails if the name is taken; and the file appears whole.
                os.link(temporary, path)
            except FileExistsError:
                holder = read_holder(path)
                if holder is not None:
                    return holder  # else it was given back just now
            else:
                return None
    finally:
        temporary.unlink()


def _take_over(path: Path) -> Holder | None:
    """Replace the lock of a dead process."""
    # One process of this host at a time, so that none removes the other's new lock.
    guard_name = path.with_name(f".{path.name}.guard")
    with os.fdopen(os.open(guard_name, os.O_RDWR | os.O_CREAT | NO_FOLLOW), "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        holder = read_holder(path)
        if holder is not None and not holder.is_gone:
            return holder
        path.unlink(missing_ok=True)
        return _take(path)


def read_holder(path: Path) -> Holder | None:
    """Read who holds a lock; None if it is free."""
    try:
        return read_record(path, Holder, most_bytes=1 << 16)
    except InputError:
        if os.path.lexists(path):
            raise
        return None


def _start_ticks(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        return int(text.rpartition(")")[2].split()[19])
    return 0
