"""``bench/gpu.sh``: what becomes of steps that fail, hang or come too late, options that exist, and
the word where there is no GPU."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

from pipelines.throughput.cli import bench
from shard_builder.cli import app as ckshard_app
from train.cli import app as cktrain_app

ROOT = Path(__file__).parent.parent.parent
LOG_WORDS = 'printf "%s\\n" "${*@Q}" >> "$(dirname "$0")/log"\n'


def run_script(folder: Path, *options: str, python: str, **environment: str) -> tuple[int, str]:
    """Run it with an interpreter that is this program of bash; return its status and its page."""
    fake = folder / "python"
    fake.write_text(f"#!/usr/bin/env bash\n{LOG_WORDS}{python}\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "bench" / "gpu.sh"), *options, str(folder / "out")],
        env=os.environ | {"PYTHON": str(fake)} | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, (folder / "out" / "gpu.md").read_text()


def test_a_step_that_fails_hangs_or_comes_too_late_is_written_down(tmp_path: Path) -> None:
    python = """case "$*" in
      *" synth "*) echo at work;;
      *"-m pytest"*) echo it broke; exit 3;;
      *"--stream rgb"* | *bench.loaders*) echo on it; sleep 60;;
    esac"""
    status, page = run_script(tmp_path, "--cpu", python=python, LIMIT_S="8")
    page = re.sub(r"( after \d+ s)?, \d+ s$", "", page, flags=re.MULTILINE)
    assert status == 1 and "## data: ok\n```\nat work\n```" in page
    assert "## tests: exit status 3\n```\nit broke\n```" in page
    assert "## train-rgb-jpg: stopped\n```\non it\n```" in page
    assert "## loaders: stopped\n" in page
    assert "## waits-raw: not run: time is up\n" in page
    assert (tmp_path / "out" / "logs" / "data.txt").read_text() == "at work\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gpu.md", "logs"}


@pytest.mark.parametrize("options", [[], ["--cpu"]], ids=["gpu", "cpu"])
def test_every_step_is_a_command_whose_options_exist(tmp_path: Path, options: list[str]) -> None:
    status, page = run_script(tmp_path, *options, python="exit 0")
    assert status == 0 and page.count(": ok, ") == 10
    joined = typer.Typer()
    joined.command("bench")(bench)
    joined.callback()(lambda: None)
    apps = {"'ckshard'": ckshard_app, "'cktrain'": cktrain_app}
    parsed, waits = [], []
    for line in (tmp_path / "log").read_text().splitlines():
        program, *words = shlex.split(line)[1:]
        for name, app in apps.items():
            if name in program.replace('"', "'"):
                words = [word for word in words if word != "--debug"]
                is_wait = words[0] == "bench" and app is ckshard_app
                group = typer.main.get_command(joined if is_wait else app)
                context = group.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[attr-defined]
                (waits if is_wait else parsed).append(context.params)
        if program == "pytest":
            assert str(ROOT / "tests" / "system" / "test_gpu.py") in words
    asked = [(p["consumer_ms"], p["epoch_samples"], p["batch_size"]) for p in waits]
    assert asked == 2 * [(5, 80, 10)]
    release, *_ = parsed
    trained = [params for params in parsed if "iter_size" in params]
    streams = [(params["stream"], params["baseline"]) for params in trained]
    assert streams == [("flow", True), ("rgb", True), ("flow", False)]
    for params in trained:
        batch = params["batch_size"] * params["iter_size"]
        assert release["num_subjects"] * 7 % batch == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: this would run for minutes")
def test_without_a_gpu_it_names_the_alternative_and_exits_2(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable}
    command = ["bash", str(ROOT / "bench" / "gpu.sh"), "results"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and not done.stdout
    assert "finds no GPU" in done.stderr and "bash bench/gpu.sh --cpu results" in done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
