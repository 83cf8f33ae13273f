"""A Dask scheduler with two workers, one killed on the way, gives the bytes of a local build."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.programs import CKSHARD, assert_refused, ckshard, digests

OPTIONS = ["--shard-bytes", "1000000"]


def start(*words: str, pattern: str) -> tuple[subprocess.Popen[str], re.Match[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        match = re.search(pattern, line)
        if match:
            return process, match
    raise AssertionError(f"{words} did not start")


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_local_bytes(
    tiny_release: Path, tmp_path: Path
) -> None:
    local = ckshard("build", tiny_release, tmp_path / "local", *OPTIONS)
    assert local.returncode == 0, local.stderr
    running: list[subprocess.Popen[str]] = []
    try:
        scheduler, match = start(
            *("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            pattern=r"(tcp://127\.0\.0\.1:\d+)",
        )
        running.append(scheduler)
        for _ in range(2):
            words = ("dask_worker", match[1], "--nthreads", "1", "--no-nanny", "--no-dashboard")
            running.append(
                start(*words, "--local-directory", str(tmp_path), pattern=r"Registered to:")[0]
            )
        command = [CKSHARD, "build", str(tiny_release), str(tmp_path / "cluster"), *OPTIONS]
        build = subprocess.Popen(
            [*command, "--scheduler", match[1]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while len(list((tmp_path / "cluster").glob("*.tar"))) < 2:
            assert build.poll() is None
            time.sleep(0.01)
        os.killpg(running[-1].pid, signal.SIGKILL)
        _, errors = build.communicate()
        assert build.returncode == 0, errors
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
    built = digests(tmp_path / "cluster")
    assert built == digests(tmp_path / "local") and len(built) > 10


def test_a_scheduler_that_does_not_answer_is_one_clear_line(
    tiny_release: Path, tmp_path: Path
) -> None:
    words = ("build", tiny_release, tmp_path / "dataset", "--scheduler", "tcp://127.0.0.1:9")
    assert_refused(ckshard(*words), "--scheduler tcp://127.0.0.1:9: no scheduler answers")
    assert not (tmp_path / "dataset").exists()
