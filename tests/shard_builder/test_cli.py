"""The commands themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.programs import run

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("program", ["ckshard", "cktrain"])
def test_help_answers_at_once(program: str) -> None:
    done = run(program, "--help")
    assert done.returncode == 0 and "Commands" in done.stdout and "--version" in done.stdout


@pytest.mark.parametrize("program", ["ckshard", "cktrain"])
def test_the_version_is_shown(program: str) -> None:
    done = run(program, "--version")
    assert (done.returncode, done.stdout) == (0, f"ckshard {version('ckshard')}\n")


@pytest.mark.parametrize(
    ("program", "own"),
    [("cktrain", "train.py"), ("cktrain", "models/__init__.py"), ("ckshard", "pipelines.py")],
)
def test_a_module_of_the_users_that_hides_one_of_ours_is_named(
    program: str, own: str, tmp_path: Path
) -> None:
    """As a script of pip calls it, from a folder that PYTHONPATH puts first."""
    text = (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[1]
    module, name = text.split(f'{program} = "')[1].split('"')[0].split(":")
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / own).write_text("raise SystemExit('the wrong one')")
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import {name}; {name}()", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f".{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith(f"{program}: error: ") and str(tmp_path / own) in done.stderr
    assert "hides the package" in done.stderr and "rename that file" in done.stderr
