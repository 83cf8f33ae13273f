"""The lock of a folder: exclusive, taken over from the dead, never from another host unasked."""

from __future__ import annotations

import copy
import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from shard_builder.checks import check_targets
from shard_builder.errors import CkError, InputError
from shard_builder.lock import LockedError, lock_path, locked, read_holder, this_process

PROGRAM = """
import sys, time
from pathlib import Path
from shard_builder.errors import InputError
from shard_builder.lock import locked
try:
    with locked(Path(sys.argv[1])):
        print("mine", flush=True)
        sys.stdin.read()
except InputError as error:
    print(error, flush=True)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.communicate()


def write_holder(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(asdict(replace(this_process(), **changes))))  # type: ignore[arg-type]


def test_one_of_many_processes_gets_the_folder(tmp_path: Path) -> None:
    processes = [start(tmp_path / "out") for _ in range(4)]
    answers = [first_line(process) for process in processes]
    assert answers.count("mine") == 1
    winner = processes[answers.index("mine")]
    others = [answer for answer in answers if answer != "mine"]
    assert all(f"is being written by process {winner.pid} on " in answer for answer in others)
    end(*processes)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_the_same_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    holder = start(tmp_path / "link")
    assert first_line(holder) == "mine"
    with pytest.raises(InputError, match="is being written"), locked(tmp_path / "real"):
        pass
    end(holder)


def test_the_lock_of_a_killed_process_is_taken_over_once(tmp_path: Path) -> None:
    dead = start(tmp_path / "out")
    assert first_line(dead) == "mine"
    dead.kill()  # not waited for: it stays as a zombie
    assert dead.stdout is not None and dead.stdout.read() == ""
    assert lock_path(tmp_path / "out").exists()
    processes = [start(tmp_path / "out") for _ in range(4)]
    assert [first_line(process) for process in processes].count("mine") == 1
    end(*processes, dead)


@pytest.mark.parametrize(
    "change", [{"host": "elsewhere"}, {"machine": "other"}, {"space": "pid:[1]"}], ids=str
)
def test_what_cannot_be_asked_is_taken_over_on_demand_only(
    change: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_holder(lock_path(out), pid=7, **change)
    expected = r"process 7 on .* since \d{4}-[\s\S]*take_over=True"
    with pytest.raises(InputError, match=expected), locked(out):
        pass
    assert lock_path(out).exists()
    with locked(out, take_over=True):
        assert read_holder(lock_path(out)) is not None
    assert not lock_path(out).exists()


def test_a_living_process_of_this_host_is_never_robbed(tmp_path: Path) -> None:
    holder = start(tmp_path / "out")
    assert first_line(holder) == "mine"
    with pytest.raises(InputError) as refusal, locked(tmp_path / "out", take_over=True):
        pass
    assert "take_over" not in str(refusal.value)
    end(holder)


@pytest.mark.parametrize("change", [{"ticks": 1}, {"boot": "before"}], ids=str)
def test_a_reused_number_and_a_restart_mean_that_it_died(
    change: dict[str, object], tmp_path: Path
) -> None:
    write_holder(lock_path(tmp_path / "out"), pid=os.getpid(), **change)
    with locked(tmp_path / "out"):
        holder = read_holder(lock_path(tmp_path / "out"))
        assert holder is not None and not holder.is_gone


def test_no_hard_links_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    with locked(tmp_path / "out"):
        pass


def test_a_thread_may_take_its_lock_again_another_may_not(tmp_path: Path) -> None:
    refused = []

    def take() -> None:
        try:
            with locked(tmp_path / "out"):
                pass
        except InputError as error:
            refused.append(error)

    with locked(tmp_path / "out"):
        with locked(tmp_path / "out"):
            pass
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        assert lock_path(tmp_path / "out").exists()
    assert len(refused) == 1


def test_a_lock_that_another_host_took_over_is_not_given_back(tmp_path: Path) -> None:
    with locked(tmp_path / "out"):
        write_holder(lock_path(tmp_path / "out"), host="elsewhere")
    assert lock_path(tmp_path / "out").exists()


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "out"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    with pytest.raises(InputError, match=r"file/out: cannot be written"), locked(out):
        pass


@pytest.mark.parametrize("kind", ["fifo", "link", "dangling link", "folder"])
def test_what_is_no_lock_file_is_named_and_never_waited_for(kind: str, tmp_path: Path) -> None:
    path = lock_path(tmp_path / "out")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        target = tmp_path / "target"
        path.symlink_to(target)
        if kind == "link":
            write_holder(target, pid=7, host="elsewhere")
    with (
        pytest.raises(InputError, match=r"\.out\.lock: is (a link|not a regular).*\n.*Remove it"),
        locked(tmp_path / "out"),
    ):
        pass


def test_a_lock_of_nonsense_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shard_builder.lock.PATIENCE_S", 0.1)
    for change in ({"pid": -1}, {"pid": 1 << 70}, {"since": 5}):
        write_holder(lock_path(tmp_path / "out"), **change)
        with pytest.raises(InputError, match="which names no process"), locked(tmp_path / "out"):
            pass


def test_the_holder_is_known_to_whom_it_refuses(tmp_path: Path) -> None:
    write_holder(lock_path(tmp_path / "out"), pid=7, host="else\nwhere")
    with pytest.raises(LockedError) as refusal, locked(tmp_path / "out"):
        pass
    error = copy.copy(refusal.value)  # as a pool does it that carries it to another process
    assert error.holder.pid == 7 and str(error.holder).startswith("process 7 on else\\nwhere since")


def test_a_full_disk_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", fill)
    for write in (lambda path: locked(path).__enter__(), check_targets):
        with pytest.raises(CkError, match=r"out: cannot be written \(the disk is full\)") as fault:
            write(tmp_path / "out")
        assert fault.value.exit_code == 1
