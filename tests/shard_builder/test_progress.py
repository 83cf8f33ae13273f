"""A progress bar shows its times and counts on a terminal of 80 columns."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from shard_builder.progress import progress_bar
from train.commands.display import training_display

TIME = re.compile(r"-:--:--|\d:\d\d:\d\d")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm")
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def last_line(terminal: Console) -> str:
    shown = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", cast(io.StringIO, terminal.file).getvalue())
    return [line for line in re.split(r"[\r\n]+", shown) if line.strip()][-1]


def test_the_bar_gives_way(terminal: Console) -> None:
    with progress_bar("preparing sequences", console=terminal) as report:
        report(20_000, 40_000)
    line = last_line(terminal)
    assert len(TIME.findall(line)) == 2 and "20000/40000" in line and "50%" in line, line
    assert "…" not in line


def test_training_shows_its_times(terminal: Console) -> None:
    config = SimpleNamespace(epochs=250)
    session: Any = SimpleNamespace(config=config, steps_per_epoch=31, epoch=0)
    row: dict[str, Any] = {"epoch": 100, "loss": 12.3456, "accuracy": 1.0, "lr": 0.001}
    speeds = {"samples_per_s": 12345.6, "data_wait_pct": 12.34, "num_damaged": 0, "val_loss": None}
    with training_display(terminal, session) as show:
        show(row | speeds | {"kind": "epoch"})
        show(row | {"kind": "step", "step": 3100})
    line = last_line(terminal)
    assert len(TIME.findall(line)) == 2 and "epoch 100/250 loss 12.346 acc 100 %" in line, line
