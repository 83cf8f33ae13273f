"""One case in a process of its own, with limits of memory and time, and files outside that tell
whether they were touched."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CPU_S, WALL_S = 20, 60
"""Of processor time and of any time that a command may take: other work on the machine counts for
the second only."""
EXTRA_BYTES = 1 << 30
ADDRESS_BYTES = 6 << 30
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
CHATTER = re.compile(
    r"libpng (warning|error)|Corrupt JPEG|Premature end|\[ ?(WARN|ERROR)[ :@]|\[\w+ @ 0x"
)
"""What libraries write to the terminal by themselves."""
MARK = "victim-5f1d2c"
OLD_NS, NEWER_NS = 10**18, 2 * 10**18

Action = Callable[[], None]


@dataclass(slots=True)
class Outcome:
    """What a case did.

    Args:
        faults: What must not happen: ``signal``, ``hang``, ``memory``, ``unexpected``, ``control``,
            ``chatter``, ``read``, ``write``.
        codes: Exit code of each action.
        output: All that was printed.
        peak_bytes: Largest resident size.
    """

    faults: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    output: str = ""
    peak_bytes: int = 0


class Victims:
    """Files outside of the folder that is mutated; links lead to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._readable: set[Path] = set()
        self.text = self.add("secret.txt", MARK.encode())
        self._contents: dict[Path, bytes] = {}

    def add(self, name: str, data: bytes, *, may_be_read: bool = False) -> Path:
        """Plant a file; one that has a name in the folder too may be read by that."""
        if may_be_read:
            self._readable.add(self.folder / name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def arm(self) -> None:
        """Remember every file, and set its times so that a read shows (the system writes the time
        of a read that follows a change)."""
        self._contents = {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        for path in self._contents:
            os.utime(path, ns=(OLD_NS, NEWER_NS))

    def faults(self) -> list[str]:
        """Name what happened to them."""
        found = []
        watched = set(self._contents) - self._readable
        status = {path: path.stat() for path in watched if path.is_file()}
        if any(entry.st_atime_ns != OLD_NS for entry in status.values()):
            found.append("read")
        names = {p for p in self.folder.rglob("*") if p.is_file()}
        if names != set(self._contents) or any(
            path.read_bytes() != data for path, data in self._contents.items()
        ):
            found.append("write")
        return found


def run_in_box(actions: Sequence[Action], scratch: Path, victims: Victims) -> Outcome:
    """Run actions, one after the other, in a forked process.

    Args:
        actions: Each prints, and ends by ``SystemExit`` or by returning.
        scratch: An empty folder for what the process writes.
        victims: Armed.
    """
    printed, result = scratch / "printed.txt", scratch / "codes.json"
    pid = os.fork()
    if pid == 0:
        _be_child(actions, printed, result)
    status, usage, is_late = _wait(pid, WALL_S * len(actions))
    outcome = Outcome(output=printed.read_text(errors="replace"), peak_bytes=usage.ru_maxrss << 10)
    if result.is_file():
        outcome.codes = json.loads(result.read_text())
    is_slow = is_late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
    if is_slow:
        outcome.faults.append("hang")
    elif os.WIFSIGNALED(status):
        outcome.faults.append("signal")
    if re.search(r"unexpected \w+(Error|Exception|Exit|Interrupt)|Traceback", outcome.output):
        outcome.faults.append("unexpected")
    if CONTROL.search(outcome.output):
        outcome.faults.append("control")
    if CHATTER.search(outcome.output):
        outcome.faults.append("chatter")
    outcome.faults += victims.faults()
    if MARK in outcome.output and "read" not in outcome.faults:
        outcome.faults.append("read")
    return outcome


def _wait(pid: int, limit_s: float) -> tuple[int, resource.struct_rusage, bool]:
    end = time.monotonic() + limit_s
    pause = 0.001
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return status, usage, False
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            return status, usage, True
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)


def _be_child(actions: Sequence[Action], printed: Path, result: Path) -> None:
    try:
        output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        codes = []
        for action in actions:
            spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + CPU_S, resource.RLIM_INFINITY))
            codes.append(_code_of(action))
            sys.stdout.flush()
            sys.stderr.flush()
        result.write_text(json.dumps(codes))
    except BaseException:  # noqa: BLE001 - nothing may return to the parent's code
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _code_of(action: Action) -> int:
    try:
        action()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BaseException:  # noqa: BLE001 - a library's panic is a fault as well
        traceback.print_exc()
        return -1
    return 0
