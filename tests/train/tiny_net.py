"""Nets of few layers in the place of torchvision's; as a program, cktrain with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import models.build
from train.running.run_folder import RunFolder, read_metrics
from train.running.step import Row
from train.running.stop import StopSignal

PROGRAM = Path(__file__)
ROOT = PROGRAM.parent.parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
WAIT_IN_STEP = "TINY_NET_WAITS_IN_STEP"
OPTIONS = {
    "arch": "tiny",
    "weights": "none",
    "epochs": 2,
    "batch_size": 5,
    "iter_size": 3,
    "folds": 3,
    "lr": 0.05,
    "precision": "fp32",
    "dropout": 0.5,
    "workers": 1,
    "val_every": 1,
    "log_every": 1,
}
SHORT = {"arch": "tiny", "weights": "none", "epochs": 1, "batch_size": 7, "iter_size": 1}
SHORT |= {"workers": 1, "precision": "fp32"}
"""Options of a run that is only there to be tested or to be one fold."""
Train = Callable[..., Path]
Cktrain = Callable[..., tuple[int, str, str]]


class TinyNet(nn.Module):
    """Conv2d, ReLU, mean, Linear: its first layer and its last are what build_model looks for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 7, stride=4)
        self.fc = nn.Linear(8, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).relu().mean(dim=(2, 3)))


class TinyNormNet(nn.Module):
    """The same with two BatchNorm layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 7, stride=4)
        self.first_norm, self.second_norm = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normal = self.second_norm(self.first_norm(self.conv(images)).relu())
        return self.fc(normal.relu().mean(dim=(2, 3)))


def make_tiny_net(arch: str) -> nn.Module:
    """Make the net called ``tiny`` or ``tiny-norm``."""
    return TinyNormNet() if arch == "tiny-norm" else TinyNet()


def command(dataset: Path, out: Path, *more: object, stream: str = "flow") -> list[str]:
    """The words of ``cktrain flow`` with the tiny net and OPTIONS, for a process of its own."""
    words: list[object] = [sys.executable, PROGRAM, stream, dataset, "--out", out]
    for name, value in OPTIONS.items():
        words += [f"--{name.replace('_', '-')}", value]
    return [str(word) for word in (*words, *more)]


def weights(run: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return torch.load(run / name, weights_only=True)["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def wait_for_step(
    run: Path, step: int, process: subprocess.Popen[str] | subprocess.Popen[bytes]
) -> None:
    """Wait until a run has logged a step; the test's own timeout ends it."""
    while all(row["step"] < step for row in read_metrics(run)):
        assert process.poll() is None, "training ended before it could be stopped"
        time.sleep(0.01)


def wait_in_step(number: int) -> None:
    """Let training wait, once it has logged a step, until it is asked to stop."""
    log = RunFolder.log

    def log_and_wait(folder: RunFolder, row: Row) -> None:
        log(folder, row)
        stop: StopSignal = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
        while row["step"] == number and stop.number is None:
            time.sleep(0.01)

    RunFolder.log = log_and_wait  # type: ignore[method-assign]


if __name__ == "__main__":
    models.build._torchvision_model = make_tiny_net
    if WAIT_IN_STEP in os.environ:
        wait_in_step(int(os.environ[WAIT_IN_STEP]))
    from train.cli import main

    main()
