"""Many ranks by torchrun: the same curve as one process, and one that dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from tests.train.tiny_net import ENVIRONMENT, PROGRAM, command, wait_for_rows, weights
from train.running.run_folder import read_metrics


def torchrun(*words: str, ranks: int = 2) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        *words[1:],
    ]


@pytest.mark.slow
def test_two_ranks_give_the_loss_curve_of_one_process(tiny_dataset: Path, tmp_path: Path) -> None:
    """The same global batch of 4, on one rank and on two, with remainders: 28 samples in steps of
    12, 12 and 4."""
    one, two = tmp_path / "one", tmp_path / "two"
    more = ("--batch-size", 4, "--dropout", 0, "--epochs", 3)
    single = subprocess.run(
        command(tiny_dataset, one, *more), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert single.returncode == 0, single.stderr
    double = subprocess.run(
        torchrun(*command(tiny_dataset, two, *more)),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert double.returncode == 0, double.stderr
    assert double.stdout.count("epoch 3/3") == 1, "only the first rank speaks"
    rows = [[row for row in read_metrics(run) if row["kind"] == "epoch"] for run in (one, two)]
    for left, right in zip(*rows, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-5)
        assert left["val_loss"] == pytest.approx(right["val_loss"], rel=1e-5)
        assert left["val_accuracy"] == right["val_accuracy"]
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(two)[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_ranks_train_with_partial_bn(tiny_dataset: Path, tmp_path: Path) -> None:
    """A wrapped net waits for the gradients of every weight that it was wrapped with."""
    out = tmp_path / "run"
    more = ("--arch", "tiny-norm", "--partial-bn", "--batch-size", 4)
    done = subprocess.run(
        torchrun(*command(tiny_dataset, out, *more)),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert max(row["step"] for row in read_metrics(out)) == 6
    trained = weights(out)
    assert torch.equal(trained["second_norm.running_mean"], torch.zeros(8))
    assert torch.equal(trained["second_norm.weight"], torch.ones(8))
    assert not torch.equal(trained["first_norm.running_mean"], torch.zeros(8))
    assert not torch.equal(trained["first_norm.weight"], torch.ones(8))


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_job_with_a_message(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        torchrun(*command(tiny_dataset, out, "--batch-size", 4, "--epochs", 100000)),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_rows(out, 2, process)
    ranks = [
        child for child in psutil.Process(process.pid).children() if str(PROGRAM) in child.cmdline()
    ]
    assert len(ranks) == 2
    ranks[1].kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "cktrain: error" in output or "Signal 9 (SIGKILL)" in output
