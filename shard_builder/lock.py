"""One writer for each folder: a lock file beside it that says whose it is."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from shard_builder.checks import check_path
from shard_builder.errors import InputError
from shard_builder.files import is_regular, read_regular, unwritable
from shard_builder.untrusted.records import Count, parse_record
from shard_builder.untrusted.text import clean

PATIENCE_S = 5.0
"""How long a lock may be without content, or be in the course of being taken over."""
PAUSE_S = 0.05
MOST_BYTES = 1 << 16
TAKE_OVER = "Take over the lock of a process of another host that has died."
"""Help of the option."""
_locked: dict[Path, tuple[int, int]] = {}
"""The process and the thread that hold each lock: a fork copies this table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a lock.

    Args:
        host: Its machine's name.
        machine: Its machine's id; empty where the system has none.
        boot: Which start of the machine it belongs to; empty where the system does not say.
        space: Where its number counts: of two containers each has a process 1.
        pid: Its number there.
        ticks: When it started, in ticks since boot (tells a reused number apart); 0 where the
            system does not say.
        since: When it took the lock, local time.
    """

    host: str
    machine: str
    boot: str
    space: str
    pid: Annotated[int, Meta(ge=1, lt=1 << 31)]
    ticks: Count
    since: str

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended; never True where it cannot be asked: on
        another host, in another container.
        """
        own = this_process()
        if (self.host, self.machine) != (own.host, own.machine):
            return False
        if self.boot != own.boot:
            return True
        if self.space != own.space:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it is there, and another user's
        state, ticks = _state_and_ticks(self.pid)
        return state in ("Z", "X") or ticks != self.ticks

    @property
    def can_be_asked(self) -> bool:
        """Whether it is one of this host's and container's, of which is known if it still runs."""
        own = this_process()
        return (self.host, self.machine, self.space) == (own.host, own.machine, own.space)

    def __str__(self) -> str:
        return clean(f"process {self.pid} on {self.host} since {self.since}")


class LockedError(InputError):
    """Another process writes the folder.

    Args:
        message: The whole message.
        holder: That process.
    """

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the holder when the error crosses a process border."""
        return (LockedError, (str(self), self.holder))


def this_process() -> Holder:
    """Describe the calling process."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return Holder(
        host=socket.gethostname(),
        machine=_first_line("/etc/machine-id"),
        boot=_first_line("/proc/sys/kernel/random/boot_id"),
        space=space,
        pid=os.getpid(),
        ticks=_state_and_ticks(os.getpid())[1],
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def lock_path(folder: Path) -> Path:
    """Return the lock file of a folder or file, the same by whatever path it is named.

    It lies beside it, so that a folder may be new, be empty or be replaced.
    """
    folder = Path(os.path.realpath(folder))
    return folder / ".lock" if folder.is_mount() else folder.with_name(f".{folder.name}.lock")


@contextmanager
def locked(folder: Path, *, take_over: bool = False, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only one who writes a folder or file, until the end of the ``with`` block.

    The lock of a process of this host that has died is taken over. The thread that holds a lock may
    take it again.

    Args:
        folder: What is going to be written; it need not be there.
        take_over: Whether to take over the lock of a process that cannot be asked whether it still
            runs, because it is another host's or another container's.
        wait_s: Seconds to wait for a living process to give it back.

    Raises:
        LockedError: If another process writes it.
        InputError: If its parent folder cannot be written, or it is an address.
        CkError: If the disk is full.
    """
    check_path(folder)
    path = lock_path(folder)
    me = os.getpid(), threading.get_ident()
    if _locked.get(path) == me:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = _acquire(path, folder, take_over=take_over, deadline=time.monotonic() + wait_s)
    except OSError as error:
        raise unwritable(folder, error) from None
    _locked[path] = me
    try:
        yield
    finally:
        del _locked[path]
        # A fork has not taken it; and another host may have been told to take it over.
        if os.getpid() == holder.pid and read_holder(path) == holder:
            path.unlink(missing_ok=True)


def read_holder(path: Path) -> Holder | None:
    """Read who holds a lock; None if it is free, or nobody has written a name into it yet.

    Raises:
        InputError: If it is a link or no regular file, which no process of ours makes.
    """
    try:
        data = read_regular(path, most_bytes=MOST_BYTES)
    except InputError as error:
        if not os.path.lexists(path) or is_regular(path):  # given back just now
            return None
        raise InputError(f"{error}\n  It is no lock of ckshard or cktrain. Remove it.") from None
    with suppress(InputError):
        return parse_record(data, Holder, place=str(path))
    return None


def _acquire(path: Path, folder: Path, *, take_over: bool, deadline: float) -> Holder:
    nameless_until = time.monotonic() + PATIENCE_S
    while (own := _create(path)) is None:
        holder = read_holder(path)
        if holder is None:
            if path.exists() and time.monotonic() > nameless_until:
                raise InputError(
                    f"{folder}: locked by {path}, which names no process\n"
                    "  Nobody is writing it? Then remove that file."
                )
        elif holder.is_gone or (take_over and not holder.can_be_asked):
            _remove(path, holder)
            continue
        elif time.monotonic() >= deadline:
            raise _refusal(folder, holder)
        time.sleep(PAUSE_S)
    return own


def _create(path: Path) -> Holder | None:
    """Make the lock file; None if there is one. ``O_EXCL`` is exclusive on network disks too."""
    own = this_process()
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(own)))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return own


def _remove(path: Path, holder: Holder) -> None:
    """Remove a dead process's lock; one process at a time, so that none removes the lock that
    another has taken meanwhile.
    """
    guard = path.with_name(f"{path.name}.takeover")
    until = time.monotonic() + PATIENCE_S
    while _create(guard) is None:
        other = read_holder(guard)
        if time.monotonic() > until or (other is not None and other.is_gone):
            guard.unlink(missing_ok=True)  # it died within these lines
        time.sleep(PAUSE_S)
    try:
        if read_holder(path) == holder:
            path.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _refusal(folder: Path, holder: Holder) -> LockedError:
    advice = "Let it end, or choose another folder."
    if not holder.can_be_asked:
        advice += (
            " It cannot be asked from here; if it has died, take its lock over with take_over=True."
        )
    return LockedError(f"{folder}: is being written by {holder}\n  {advice}", holder)


def _first_line(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8").strip()
    return ""


def _state_and_ticks(pid: int) -> tuple[str, int]:
    with suppress(OSError, IndexError, ValueError):
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return words[0], int(words[19])
    return "", 0
