"""Training under faults: two writers, a full disk, a closed terminal, a checkpoint by time."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.tensor_file import load_tensors
from shard_builder.errors import InputError, TrainingError
from shard_builder.lock import locked
from tests.train.tiny_net import ENVIRONMENT, Cktrain, Train, command, wait_for_step
from train.evaluation.evaluate import evaluate_runs
from train.running import loop
from train.running.checkpoint import read_checkpoint, write_checkpoint
from train.running.stop import StopSignal


def words_of(dataset: Path, out: Path, *more: object) -> list[str]:
    return command(dataset, out, *more)[2:]


def test_a_run_that_is_being_written_is_refused(
    cktrain: Cktrain, tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with _held(out):
        for more in ((), ("--resume",)):
            code, _, err = cktrain(*words_of(tiny_dataset, out, *more))
            assert code == 2 and f"is being written by process {os.getpid()} on " in err, err
    assert not out.exists()


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_good_one(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "last.pt"
    write_checkpoint(path, {"model": torch.zeros(8)})
    expected = (
        r"last\.pt: the checkpoint cannot be written: .*larger[\s\S]*as it was before.*resume"
    )
    with pytest.raises(TrainingError, match=expected), largest_file(4096):
        write_checkpoint(path, {"model": torch.zeros(1 << 16)}, also=tmp_path / "epoch-0001.pt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]
    assert len(load_tensors(path, what="a checkpoint", sealed=True)["model"]) == 8
    with pytest.raises(TrainingError, match="There is none yet"), largest_file(4096):
        write_checkpoint(tmp_path / "best.pt", {"model": torch.zeros(1 << 16)})


def test_a_second_name_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    write_checkpoint(tmp_path / "last.pt", {"epoch": 1}, also=tmp_path / "epoch-0001.pt")
    copy = load_tensors(tmp_path / "epoch-0001.pt", what="a checkpoint", sealed=True)
    assert copy["epoch"] == 1


def test_a_full_disk_is_one_sentence_and_resume_goes_on(
    tiny_dataset: Path, tmp_path: Path, cktrain: Cktrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "add_confusion", lambda *_, **__: None)  # larger than the tiny net
    out = tmp_path / "run"
    words = words_of(tiny_dataset, out, "--save-every", 1)
    assert cktrain(*words, "--epochs", 1)[0] == 0
    size = (out / "last.pt").stat().st_size
    with largest_file(size // 2):
        code, _, err = cktrain(*words, "--resume", "--epochs", 3)
    assert code == 1 and "unexpected" not in err and "--resume" in err, err
    assert (
        ".pt: the checkpoint cannot be written: " in err
        and (out / "last.pt").stat().st_size == size
    )
    assert not list(out.glob("*.tmp"))
    code, printed, err = cktrain(*words, "--resume", "--epochs", 3)
    assert code == 0 and "resumed after epoch 1" in printed, err


def test_a_disk_that_is_full_of_events_is_one_sentence_too(
    tiny_dataset: Path, tmp_path: Path, cktrain: Cktrain
) -> None:
    """TensorBoard's thread printed its traceback, and closing it hid what had been said."""
    words = words_of(tiny_dataset, tmp_path / "run")
    with largest_file(16_000):
        code, printed, err = cktrain(*words)
    assert code == 1 and "Traceback" not in printed + err, err
    assert "larger than this process may write" in err and "--resume" in err


def test_a_closed_terminal_saves(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(tiny_dataset, out, "--epochs", 100000, "--val-every", 100000),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_step(out, 2, process)
    process.send_signal(signal.SIGHUP)
    printed, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGHUP and "last.pt is saved" in printed, printed
    assert read_checkpoint(out / "last.pt").progress.step >= 2


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_does_not_cost_the_checkpoint() -> None:
    def show(row: loop.Row) -> None:
        raise OSError(5, "Input/output error")

    stop, saved = StopSignal(), list[int]()
    shown = loop.shown_while_anyone_looks(show, stop, save=lambda: saved.append(1))
    with pytest.raises(TrainingError, match=r"Input/output error.*\n.*last\.pt is saved at step 7"):
        shown({"step": 7})
    stop.number = signal.SIGHUP
    shown({"step": 8})
    assert len(saved) == 1  # of a stop the loop saves itself


def test_a_reader_that_ends_does_not_cost_the_training(tiny_dataset: Path, tmp_path: Path) -> None:
    """As with ``cktrain flow ... | head -1``: half an hour of steps went with the pipe."""
    out = tmp_path / "run"
    words = command(tiny_dataset, out, "--epochs", 100000, "--val-every", 100000)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=ENVIRONMENT, **pipes) as process:
        assert process.stdout and process.stderr
        assert b" stream: " in process.stdout.readline()
        wait_for_step(out, 1, process)
        process.stdout.close()
        err = process.stderr.read().decode()
    assert process.returncode == 1
    assert "last.pt is saved at step" in err and "Traceback" not in err, err
    assert read_checkpoint(out / "last.pt").progress.step >= 1


def test_last_is_written_by_time_too(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    save = loop.save

    def note(session, folder, name, **more):  # type: ignore[no-untyped-def]
        saved.append(name)
        save(session, folder, name, **more)

    monkeypatch.setattr(loop, "save", note)
    monkeypatch.setattr(loop, "SAVE_AT_LEAST_S", 0.0)
    train(epochs=1, val_every=9)
    assert saved.count("last.pt") > 1


def test_messages_state_what_is(tiny_dataset: Path, tmp_path: Path, cktrain: Cktrain) -> None:
    out = tmp_path / "run"
    words = words_of(tiny_dataset, out)
    code, _, err = cktrain(*words, "--lr", "1e30")
    assert code == 1 and "No checkpoint had been written yet" in err, err
    code, printed, err = cktrain(*words, "--resume", "--lr", "1e30")
    assert "no checkpoint had been written yet: training begins again" in printed
    assert "resumed after" not in printed


def test_a_resumed_run_says_what_it_is_now(
    tiny_dataset: Path, raw_dataset: Path, tmp_path: Path, cktrain: Cktrain
) -> None:
    out = tmp_path / "run"
    words = words_of(tiny_dataset, out)
    assert cktrain(*words, "--epochs", 1)[0] == 0
    assert cktrain("report", out)[0] == 0
    tested = json.loads((out / "test" / "test.json").read_text())
    assert cktrain(*words, "--resume", "--epochs", 2)[0] == 0
    record = json.loads((out / "config.json").read_text())
    assert record["options"]["epochs"] == 2 and "--resume" in record["command"]
    assert len(record["earlier_commands"]) == 1
    assert cktrain("report", out)[0] == 0
    again = json.loads((out / "test" / "test.json").read_text())
    assert tested["origin"] != again["origin"], "the test of other weights is not shown as its own"
    assert "tested again" in (out / "report.html").read_text()
    with pytest.raises(InputError, match="is being written"), _held(out / "test"):
        evaluate_runs([out], tiny_dataset, out=out / "test")
    (out / "last.pt").unlink()
    code, _, err = cktrain("flow", raw_dataset, "--out", out, "--resume")
    assert code == 2 and "is another dataset than the run was begun with" in err


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    import threading

    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(folder):
            ready.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_target_that_cannot_be_written_is_exit_2_with_its_path(
    tiny_dataset: Path, tmp_path: Path, cktrain: Cktrain
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = cktrain(*words_of(tiny_dataset, tmp_path / "file" / "run"))
    assert code == 2 and "file/run: cannot be written" in err
    assert "unexpected" not in err and "--debug" not in err
