"""A fold's lock: exclusive among processes, taken over from the dead, never from another host."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from train.evaluation.fold_lock import Holder, claim, read_holder, this_process

PROGRAM = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from train.evaluation.fold_lock import claim
    with claim(Path(sys.argv[1])) as other:
        print("mine" if other is None else f"held by {other.pid}", flush=True)
        sys.stdin.readline()
    """)


def start(lock: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=30)


def test_one_of_many_processes_gets_the_lock(tmp_path: Path) -> None:
    processes = [start(tmp_path / "fold.lock") for _ in range(4)]
    answers = [process.stdout.readline().strip() for process in processes if process.stdout]
    assert answers.count("mine") == 1
    winner = processes[answers.index("mine")]
    assert answers.count(f"held by {winner.pid}") == 3
    for process in processes:
        finish(process)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over_once(tmp_path: Path) -> None:
    lock = tmp_path / "fold.lock"
    dead = start(lock)
    assert dead.stdout and dead.stdout.readline().strip() == "mine"
    dead.kill()
    dead.communicate(timeout=30)
    assert lock.exists()
    processes = [start(lock) for _ in range(3)]
    answers = [process.stdout.readline().strip() for process in processes if process.stdout]
    assert answers.count("mine") == 1
    for process in processes:
        finish(process)


def test_the_lock_of_another_host_is_left_alone(tmp_path: Path) -> None:
    lock = tmp_path / "fold.lock"
    lock.write_text(json.dumps(asdict(Holder(host="elsewhere", pid=1, started=0))))
    with claim(lock) as holder:
        assert holder is not None and holder.host == "elsewhere"
    assert lock.exists()


def test_a_reused_pid_is_not_the_old_process(tmp_path: Path) -> None:
    mine = this_process()
    assert not mine.is_gone
    assert replace(mine, started=mine.started + 1).is_gone


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    lock = tmp_path / "fold.lock"
    with pytest.raises(KeyError), claim(lock) as holder:
        assert holder is None and read_holder(lock) == this_process()
        raise KeyError
    assert list(tmp_path.iterdir()) == []
