"""The installed commands, run as a user runs them, and the digests of what they leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shard_builder.files import digest_file

BIN = Path(sys.executable).parent
CKSHARD = str(BIN / "ckshard")


def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def ckshard(*words: object) -> subprocess.CompletedProcess[str]:
    return run("ckshard", *words)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Make sure that a command ended with one clear message that holds all the words."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("ckshard: error: ") and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def digests(dataset: Path) -> dict[str, str]:
    return {path.name: digest_file(path).sha256 for path in dataset.iterdir() if path.is_file()}
