"""The demo: commands that exist, and steps that are reused or started over."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

from bench.demo import run_steps, step_commands
from shard_builder.cli import app as ckshard_app
from train.cli import app as cktrain_app
from train.commands.options import training_config

APPS = {"ckshard": ckshard_app, "cktrain": cktrain_app}


def test_every_step_is_a_command_whose_options_exist() -> None:
    parsed = {}
    for name, line in step_commands(Path("demo"), seed=7).items():
        words = line.split()
        assert f"demo/{name}" in words
        if words[0] in APPS:
            group = typer.main.get_command(APPS[words[0]])
            command = group.commands[words[1]]  # type: ignore[attr-defined]
            parsed[name] = command.make_context(words[1], words[2:])
    assert list(parsed) == ["release", "dataset", "flow", "rgb", "test"]
    for stream in ("flow", "rgb"):
        context = parsed[stream]
        own = {"dataset", "out", "resume", "take_over"}
        options = {name: value for name, value in context.params.items() if name not in own}
        config, _ = training_config(context, stream, options)
        assert (config.seed, config.weights) == (7, "demo/weights/efficientnet_lite0.pth")


def test_finished_steps_are_reused_and_changed_ones_start_over_with_all_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log, options = tmp_path / "log", {"a": "1", "b": "1", "c": "1"}
    write = "import sys, pathlib; out = pathlib.Path(sys.argv[1]); out.mkdir();"
    write += " open(sys.argv[2], 'a').write(out.name + sys.argv[3])"

    def commands(out: Path, seed: int) -> dict[str, str]:
        return {
            name: shlex.join(["python", "-c", write, str(out / name), str(log), option])
            for name, option in options.items()
        }

    monkeypatch.setattr("bench.demo.step_commands", commands)

    def run() -> str:
        assert run_steps(tmp_path, 0) >= 0
        written = log.read_text() if log.exists() else ""
        log.unlink(missing_ok=True)
        lines = capfd.readouterr().out.splitlines()
        return f"{written} reused: {sum(line.startswith('reused ') for line in lines)}"

    assert run() == "a1b1c1 reused: 0"
    assert run() == " reused: 3"
    options["b"] = "2"
    assert run() == "b2c1 reused: 1"
    (tmp_path / "c").rmdir()
    assert run() == "c1 reused: 2"
