"""Work in processes ends at once with an interrupt, an error, a dead worker or its parent; one
writer a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import psutil
import pytest

from shard_builder.cli import main
from shard_builder.errors import BuildError, InputError
from shard_builder.lock import lock_path, locked
from shard_builder.machine import run_in_processes

CKSHARD = str(Path(sys.executable).with_name("ckshard"))
AT_ONCE_S = 240.0
"""What a crowded machine may take for what takes far less; the work itself would take longer."""


class OddError(Exception):
    """One that cannot be pickled."""

    def __init__(self, number: int, *, lock: object) -> None:
        super().__init__(number, lock)


def work(what: str) -> str:
    if what == "die":
        os._exit(9)
    if what == "fail":
        raise InputError("bad item")
    if what == "end":
        raise EOFError("cut short")
    if what == "odd":
        raise OddError(1, lock=threading.Lock())
    time.sleep(3600)
    return what


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("die", BuildError),
        ("fail", InputError),
        ("end", EOFError),
        ("odd", RuntimeError),
        ("stop", KeyboardInterrupt),
    ],
)
def test_a_pool_ends_at_once(what: str, error: type[BaseException]) -> None:
    def interrupt() -> None:
        while len(workers_of(os.getpid())) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    if what == "stop":
        threading.Thread(target=interrupt).start()
    items = ["sleep", what, "sleep"]
    with pytest.raises(error):
        list(run_in_processes(work, items, workers=3, kept="All is kept."))
    assert not workers_of(os.getpid())


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [CKSHARD, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes that live now."""
    workers = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):  # it has ended meanwhile
            if "spawn_main" in " ".join(child.cmdline()):
                workers.append(child)
    return workers


def wait_for_workers(process: subprocess.Popen[str], number: int) -> list[psutil.Process]:
    while True:
        assert process.poll() is None, process.communicate()
        workers = workers_of(process.pid)
        if len(workers) == number:
            return workers
        time.sleep(0.05)


@pytest.mark.parametrize("command", ["synth", "build", "prepare"])
@pytest.mark.parametrize("to_all", [False, True], ids=["one", "terminal"])
def test_ctrl_c_ends_a_command_with_workers(
    command: str, to_all: bool, tiny_release: Path, tmp_path: Path
) -> None:
    source = [] if command == "synth" else [str(tiny_release)]
    more = ["--subjects", "900"] if command == "synth" else []
    process = start(command, *source, str(tmp_path / "out"), "--workers", "2", *more)
    workers = wait_for_workers(process, 2)
    os.kill(-process.pid if to_all else process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=AT_ONCE_S)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert psutil.wait_procs(workers, timeout=AT_ONCE_S)[1] == []
    assert not lock_path(tmp_path / "out").exists()


def test_ctrl_c_ends_the_threads_of_verify_within_a_member(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, is_abandoned = 0, threading.Event()

    def decode_slowly(*_: object, **__: object) -> None:
        """Begin a member; it is done once the interrupt has come to the end of verify."""
        nonlocal decoded
        decoded += 1
        if decoded == 2:
            os.kill(os.getpid(), signal.SIGINT)
        is_abandoned.wait()

    monkeypatch.setattr("shard_builder.format.verify_shard.decode_member", decode_slowly)
    events = SimpleNamespace(Event=lambda: is_abandoned)
    monkeypatch.setattr("shard_builder.format.verify.threading", events)
    monkeypatch.setattr(sys, "argv", ["ckshard", "verify", str(tiny_dataset), "--workers", "2"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert decoded <= 4, "each of the two threads may begin one more member"
    # The pool knows nothing of a thread during whose start the signal came: it ends by itself.
    for thread in threading.enumerate():
        if thread.name.startswith("ckshard-verify"):
            thread.join(AT_ONCE_S)
            assert not thread.is_alive()
    assert decoded <= 4, "each of the two threads may begin one more member"


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    process = start("synth", str(tmp_path / "out"), "--workers", "2", "--subjects", "900")
    workers = wait_for_workers(process, 2)
    while not any(tmp_path.rglob("*.png")):  # they are at it
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=AT_ONCE_S)
    assert psutil.wait_procs(workers, timeout=AT_ONCE_S)[1] == []


@pytest.mark.parametrize("command", ["synth", "build", "prepare"])
def test_a_folder_that_another_process_writes_is_refused(
    command: str, tiny_release: Path, tmp_path: Path
) -> None:
    source = [] if command == "synth" else [str(tiny_release)]
    with locked(tmp_path / "out"):
        process = start(command, *source, str(tmp_path / "out"), "--workers", "1")
        _, errors = process.communicate()
    assert process.returncode == 2
    assert f"is being written by process {os.getpid()} on " in errors and "since " in errors
    assert not (tmp_path / "out").exists()


def test_prepared_sequences_are_kept_only_if_they_would_be_the_same(
    tiny_release: Path, tmp_path: Path
) -> None:
    from shard_builder.building.prepare import prepare_trees
    from shard_builder.sources.ckplus import scan_ckplus

    source = scan_ckplus(tiny_release)
    out = tmp_path / "trees"
    few = type(source)(kind=source.kind, sequences=source.sequences[:2], classes=source.classes)
    prepare_trees(few, out, flow_method="dis")
    assert prepare_trees(few, out, flow_method="dis").num_kept == 2
    with pytest.raises(InputError, match=r"bound_px=5.0, but .* was prepared with 10.0"):
        prepare_trees(few, out, flow_method="dis", bound_px=5)
    with pytest.raises(InputError, match="flow_method='farneback', but"):
        prepare_trees(few, out)
    copy = next(out.glob("rgb/*/*/*.png"))
    cv2.imwrite(str(copy), np.zeros((8, 8), np.uint8))
    report = prepare_trees(few, out, flow_method="dis")
    assert (report.num_kept, report.num_written) == (1, 1)
