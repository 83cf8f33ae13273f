"""The command itself."""

from __future__ import annotations

import pytest

from tests.programs import run


@pytest.mark.parametrize("program", ["ckshard", "cktrain"])
def test_help_answers_at_once(program: str) -> None:
    done = run(program, "--help", timeout=20)
    assert done.returncode == 0 and "Commands" in done.stdout
