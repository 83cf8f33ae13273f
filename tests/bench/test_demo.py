"""The demo: commands that exist, and steps that are reused or started over."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console

from bench.demo import run_steps, step_commands
from shard_builder.cli import app as ckshard_app
from train.cli import app as cktrain_app
from train.commands.options import training_config

APPS = {"ckshard": ckshard_app, "cktrain": cktrain_app}


def test_every_step_is_a_command_whose_options_exist() -> None:
    parsed = {}
    for name, folder, words in step_commands(Path("demo"), seed=7):
        assert str(folder) in words
        if words[0] in APPS:
            group = typer.main.get_command(APPS[words[0]])
            command = group.commands[words[1]]  # type: ignore[attr-defined]
            parsed[name] = command.make_context(words[1], words[2:])
    assert list(parsed) == ["synth", "build", "train flow", "train rgb", "test"]
    for stream in ("flow", "rgb"):
        context = parsed[f"train {stream}"]
        own = {"dataset", "out", "resume", "take_over"}
        options = {name: value for name, value in context.params.items() if name not in own}
        config, _ = training_config(context, stream, options)
        assert (config.seed, config.weights) == (7, "demo/weights/efficientnet_lite0.pth")


def test_finished_steps_are_reused_and_changed_ones_start_over_with_all_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, folders = tmp_path / "log", [tmp_path / name for name in "abc"]
    write = "import sys, pathlib; out = pathlib.Path(sys.argv[1]); out.mkdir();"
    write += " open(sys.argv[2], 'a').write(out.name + sys.argv[3])"
    options = ["1", "1", "1"]

    def commands(out: Path, seed: int) -> list[tuple[str, Path, list[str]]]:
        program = Path(sys.executable).name
        return [
            (folder.name, folder, [program, "-c", write, str(folder), str(log), option])
            for folder, option in zip(folders, options, strict=True)
        ]

    monkeypatch.setattr("bench.demo.step_commands", commands)

    def run() -> str:
        text = io.StringIO()
        assert list(run_steps(tmp_path, 0, Console(file=text, width=500))) == ["a", "b", "c"]
        written = log.read_text() if log.exists() else ""
        log.unlink(missing_ok=True)
        lines = text.getvalue().splitlines()
        return f"{written} reused: {sum(line.startswith('reused ') for line in lines)}"

    assert run() == "a1b1c1 reused: 0"
    assert run() == " reused: 3"
    options[1] = "2"
    assert run() == "b2c1 reused: 1"
    folders[2].rmdir()
    assert run() == "c1 reused: 2"
