"""A few hundred hostile copies of folders and files; the command behind it runs thousands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("of", "num_cases"), [("dataset", 220), ("run", 48), ("folds", 6), ("export", 12)]
)
def test_hostile_copies_do_no_harm(of: str, num_cases: int) -> None:
    """In a process of its own: it forks, and this one has threads."""
    command = [sys.executable, "-m", "tests.system.mutations", "--of", of]
    done = subprocess.run(
        [*command, "--cases", str(num_cases), "--verbose"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
    assert f"cases {num_cases} " in done.stdout
