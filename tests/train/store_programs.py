"""Commands in processes of their own that read from a store, to be interrupted or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.object_server import ObjectServer
from tests.train.tiny_net import ENVIRONMENT, OPTIONS

WORDS = [
    word
    for name, value in (OPTIONS | {"epochs": 1, "batch_size": 2, "iter_size": 2}).items()
    for word in (f"--{name.replace('_', '-')}", value)
]
PROGRAM = """
import sys
import shard_builder.cloud.store as store
store.Store.__init__.__kwdefaults__["timeout_s"] = 3600
if sys.argv[1] in ("flow", "cv", "test", "report"):
    import models.build
    from tests.train.tiny_net import make_tiny_net
    models.build._torchvision_model = make_tiny_net
    from train.cli import main
else:
    from shard_builder.cli import main
main()
"""
"""Either command, which waits an hour for an answer."""


@contextmanager
def running(words: list[object], cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command, at most until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        env=ENVIRONMENT | {"XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def interrupt_when_hanging(
    words: list[object], server: ObjectServer, tmp_path: Path
) -> tuple[int, str]:
    """Send Ctrl-C to a command whose request hangs; return its exit code and what it printed."""
    server.is_hanging.clear()
    with running(words, tmp_path / "cache") as process:
        while not server.is_hanging.wait(0.1):
            assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate()
        return process.returncode, text


def kill_at_request(
    number: int,
    words: list[object],
    server: ObjectServer,
    tmp_path: Path,
    is_ready: Callable[[], object] = lambda: True,
) -> None:
    """Kill a command in its so-many-th request, once it left behind what a test waits for."""
    with running(words, tmp_path / "cache") as process:
        numbers = count(1)

        def fault_of(_name: str) -> str:
            if next(numbers) == number:
                while not is_ready() and process.poll() is None:
                    time.sleep(0.01)
                os.kill(process.pid, signal.SIGKILL)
            return ""

        server.fault_of = fault_of  # type: ignore[method-assign]
        text, _ = process.communicate()
        del server.fault_of
        assert process.returncode == -signal.SIGKILL, text
