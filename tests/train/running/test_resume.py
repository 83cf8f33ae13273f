"""A run resumed: stopped by a signal or done, with other options, after a kill."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from models.build import build_model
from pipelines.dataset import open_dataset
from shard_builder.errors import InputError
from shard_builder.split import make_split, write_split
from tests.train.tiny_net import (
    ENVIRONMENT,
    WAIT_IN_STEP,
    Cktrain,
    Train,
    command,
    same,
    wait_for_step,
    weights,
)
from train.running.checkpoint import read_checkpoint
from train.running.run_folder import read_metrics

LONG = (
    *("--epochs", 4, "--deterministic", "--save-every", 1, "--sampling", "balanced"),
    *("--ema", 0.9, "--optimizer", "adamw", "--schedule", "one-cycle", "--label-smoothing", 0.1),
    *("--aug", "strong"),
)


def test_resuming_keeps_the_options_of_the_run(train: Train) -> None:
    whole = train("whole", epochs=4)
    train("parts", epochs=2)
    parts = train("parts", epochs=4, resume=True)
    assert same(weights(whole), weights(parts))
    rows = [[row for row in read_metrics(run) if row["kind"] == "epoch"] for run in (whole, parts)]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]


def test_resume_drops_the_rows_that_a_kill_left_behind(train: Train) -> None:
    run = train(epochs=2)
    ahead = {"kind": "epoch", "epoch": 3, "step": 6, "loss": 9.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "step", "epoch": 3, "step": 5, "loss": 9.0}) + "\n")
        file.write(json.dumps(ahead) + "\n" + '{"kind": "st')
    train(epochs=3, resume=True)
    epochs = [row["epoch"] for row in read_metrics(run) if row["kind"] == "epoch"]
    assert epochs == [1, 2, 3]
    assert all(row["loss"] != 9.0 for row in read_metrics(run))


def test_resume_drops_a_line_that_a_kill_cut_short(train: Train) -> None:
    run = train(epochs=1)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "st')
    train(epochs=2, resume=True)
    assert [row["epoch"] for row in read_metrics(run) if row["kind"] == "epoch"] == [1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 6}, "batch_size=6, but the run was begun with 5"),
        ({"lr": 0.1}, "lr=0.1, but the run was begun with 0.05"),
        ({"stack_length": 3}, "stack_length=3, but the run was begun with 5"),
        ({"subject": "S005"}, "subject='S005', but the run was begun without it"),
        ({"epochs": 1}, "epochs=1, but 2 are done"),
        ({"stream": "rgb"}, "is a run of the flow stream, expected rgb"),
    ],
)
def test_resume_refuses_another_experiment(
    train: Train, options: dict[str, object], words: str
) -> None:
    run = train(epochs=2)
    before = (run / "config.json").read_bytes()
    with pytest.raises(InputError, match=words):
        train(resume=True, **{"epochs": 2} | options)
    assert (run / "config.json").read_bytes() == before


def test_what_a_resumed_run_does_otherwise_is_said(
    cktrain: Cktrain, tiny_dataset: Path, tmp_path: Path
) -> None:
    words = command(tiny_dataset, tmp_path / "run", "--resume")[2:]
    for more, said in (
        (("--epochs", 1), [f"no run in {tmp_path / 'run'} yet: it is begun"]),
        (
            ("--epochs", 2, "--val-every", 2),
            ["--epochs 2 from", "--val-every 2 from here on, 1 be"],
        ),
        (("--epochs", 2, "--val-every", 2), []),
    ):
        code, printed, err = cktrain(*words, *more)
        notices = [line for line in printed.splitlines() if line.startswith("notice: ")]
        assert code == 0 and len(notices) == len(said), (err, notices)
        assert all(any(word in line for line in notices) for word in said), notices


def test_resume_refuses_a_file_of_other_content(
    train: Train, tiny_dataset: Path, tmp_path: Path
) -> None:
    """The name was compared only: the run went on with what it had read before."""
    split_file, weights_file = tmp_path / "split.json", tmp_path / "weights.pt"
    given = {"split": str(split_file), "weights": str(weights_file)}

    def write(fold: int) -> None:
        with open_dataset(tiny_dataset) as dataset:
            write_split(split_file, make_split(dataset, folds=3, fold=fold))
        torch.manual_seed(fold)
        net = build_model("tiny", "flow", num_classes=7, weights="none")
        torch.save(net.state_dict(), weights_file)

    write(0)
    train(epochs=1, **given)
    kept = weights_file.read_bytes()
    write(1)
    with pytest.raises(InputError, match=r"split='.*split\.json': other sequences than"):
        train(resume=True, **given)
    with pytest.raises(InputError, match=r"weights='.*weights\.pt': another file than"):
        train(resume=True)
    weights_file.write_bytes(kept)
    train(resume=True, epochs=2)


def test_resume_needs_the_weights_it_began_with_only_before_the_first_checkpoint(
    train: Train, tmp_path: Path
) -> None:
    weights_file = tmp_path / "weights.pt"
    net = build_model("tiny", "flow", num_classes=7, weights="none")
    torch.save(net.state_dict(), weights_file)
    content = weights_file.read_bytes()
    begun = {"weights": str(weights_file), "epochs": 2}
    whole = train("whole", **begun)
    parts = train("parts", **begun | {"epochs": 1})
    weights_file.unlink()
    train("parts", resume=True, **begun)
    assert same(weights(whole), weights(parts))
    known = json.loads((parts / "config.json").read_text())["weights_sha256"]
    assert known == hashlib.sha256(content).hexdigest()
    (parts / "last.pt").unlink()
    with pytest.raises(InputError, match=r"weights='.*weights\.pt': another file than"):
        train("parts", resume=True)


@pytest.mark.slow
def test_stopped_and_resumed_a_run_ends_in_the_same_weights(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    """In the middle of an epoch by what ends its next step, and by what ends it at once."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    for step, number in ((2, signal.SIGTERM), (4, signal.SIGINT), (7, signal.SIGKILL)):
        process = subprocess.Popen(
            command(tiny_dataset, parts, *LONG, "--resume"),
            env=ENVIRONMENT | {WAIT_IN_STEP: str(step)},
            **pipes,
        )
        wait_for_step(parts, step, process)
        process.send_signal(number)
        output, _ = process.communicate()
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 128 + number, output
            assert "is saved, resume with --resume" in output
            assert read_checkpoint(parts / "last.pt").progress.step == step + 1
    for run in (parts, whole):
        done = subprocess.run(
            command(tiny_dataset, run, *LONG, "--resume"), env=ENVIRONMENT, **pipes
        )
        assert done.returncode == 0, done.stdout
    assert same(weights(parts), weights(whole))
    losses = [
        [row["loss"] for row in read_metrics(run) if row["kind"] == "epoch"]
        for run in (parts, whole)
    ]
    assert len(losses[0]) == 4 and losses[0] == losses[1]
