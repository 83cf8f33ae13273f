"""A few hundred hostile copies of folders and files; the command behind it runs thousands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NUM_CASES = {"dataset": 220, "run": 40, "folds": 6, "export": 10}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hostile_copies_do_no_harm() -> None:
    """In a process of its own: it forks, and this one has threads."""
    words = [f"--{of}={number}" for of, number in NUM_CASES.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.mutations", *words, "--verbose"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
    assert f"all cases {sum(NUM_CASES.values())} " in done.stdout
