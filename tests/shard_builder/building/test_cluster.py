"""Building on a real Dask scheduler with two workers, one killed in the middle, gives the bytes of
a local build."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shard_builder.files import digest_file

BIN = Path(sys.executable).parent
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
    local = subprocess.run(
        [str(BIN / "ckshard"), "build", str(tiny_release), str(tmp_path / "local"), *OPTIONS],
        capture_output=True,
        text=True,
    )
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
        build = subprocess.Popen(
            [
                str(BIN / "ckshard"),
                "build",
                str(tiny_release),
                str(tmp_path / "cluster"),
                *OPTIONS,
                "--scheduler",
                match[1],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "cluster").glob("*.tar"))) < 2:
            assert build.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(running[-1].pid, signal.SIGKILL)
        _, errors = build.communicate(timeout=120)
        assert build.returncode == 0, errors
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
    digests = [
        {
            path.name: digest_file(path).sha256
            for path in (tmp_path / name).iterdir()
            if path.is_file()
        }
        for name in ("local", "cluster")
    ]
    assert digests[0] == digests[1] and len(digests[0]) > 10


def test_a_scheduler_that_does_not_answer_is_one_clear_line(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run(
        [
            str(BIN / "ckshard"),
            "build",
            str(tiny_release),
            str(tmp_path / "dataset"),
            "--scheduler",
            "tcp://127.0.0.1:9",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (
        done.returncode == 2
        and "--scheduler tcp://127.0.0.1:9: no scheduler answers" in done.stderr
    )
    assert "Traceback" not in done.stderr and not (tmp_path / "dataset").exists()
