"""Training from a store that fails: at once to an end, one line, and nothing learned is lost."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

import shard_builder.cloud.store as store_module
from shard_builder.cloud.pool import DaemonPool
from shard_builder.cloud.store import Store
from tests.object_server import ObjectServer, serving
from tests.train.store_programs import WORDS, interrupt_when_hanging
from tests.train.tiny_net import Cktrain
from train.running.run_folder import read_metrics


@pytest.fixture
def server(
    tmp_path: Path, small_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectServer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(store_module, "LONGEST_PAUSE_S", 0.002)
    shutil.copytree(small_dataset, tmp_path / "objects/bucket/faces")
    with serving(tmp_path / "objects") as running:
        yield running


@pytest.mark.parametrize("where", ["inspect", "push", "pull"])
def test_an_interrupt_in_a_request_that_hangs_ends_at_once(
    where: str, small_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    address, other = f"{server.url}/bucket/faces", f"{server.url}/bucket/other"
    server.always = {"manifest.json" if where == "inspect" else "flow-000000.tar": "hang"}
    words: dict[str, list[object]] = {
        "inspect": [address],
        "push": [small_dataset, other],
        "pull": [address, tmp_path / "back"],
    }
    code, text = interrupt_when_hanging([where, *words[where]], server, tmp_path)
    assert code == 130 and "Traceback" not in text, text


@pytest.mark.slow
def test_an_interrupt_of_what_uses_a_run_ends_at_once_and_loses_nothing(
    cktrain: Cktrain, server: ObjectServer, tmp_path: Path
) -> None:
    address, run, out = f"{server.url}/bucket/faces", tmp_path / "run", tmp_path / "out"
    assert cktrain("flow", address, "--out", run, *WORDS)[0] == 0
    before = read_metrics(run)
    commands: dict[str, list[object]] = {
        "test": [run, address, "--out", out],
        "report": [run, "--out", tmp_path / "page.html"],
        "cv": ["flow", address, "--out", tmp_path / "cv", *WORDS],
        "bench": [address, "--batch-size", 2, "--threads", 1],
    }
    server.always = {".tar": "hang"}
    for name, words in commands.items():
        code, text = interrupt_when_hanging([name, *words], server, tmp_path)
        assert code == 130 and "Traceback" not in text and "rror" not in text, text
    assert read_metrics(run) == before and not (tmp_path / "page.html").exists()
    server.always = {}
    code, _, error = cktrain("test", run, address, "--out", out)
    assert code == 0 and (out / "test.json").exists(), error


def test_an_interrupted_and_a_refused_run_are_resumed_where_they_were(
    cktrain: Cktrain, server: ObjectServer, small_dataset: Path, tmp_path: Path
) -> None:
    address, run = f"{server.url}/bucket/faces", tmp_path / "run"
    assert cktrain("flow", small_dataset, "--out", tmp_path / "local", *WORDS)[0] == 0
    # 7 samples are the first step and half of the second: its sum is begun again.
    words = ["flow", address, "--out", run, *WORDS, "--read-ahead", 0]
    server.faults.extend([("manifest.json", "")] + [(".tar", "")] * 7)
    server.always = {".tar": "hang"}
    code, text = interrupt_when_hanging(words, server, tmp_path)
    assert code == 130 and "Traceback" not in text and (run / "last.pt").exists(), text
    server.faults.clear()
    server.faults.extend([(".tar", "")] * 5)
    server.always = {".tar": "403"}
    code, _, error = cktrain("flow", address, "--out", run, "--resume")
    assert code == 1 and len(error.strip().splitlines()) == 1, error
    assert "access denied" in error and ".tar, bytes" in error
    before = read_metrics(run)
    server.faults.clear()
    server.always = {}
    assert cktrain("flow", address, "--out", run, "--resume")[0] == 0
    found, expected = (
        [row["loss"] for row in read_metrics(folder)] for folder in (run, tmp_path / "local")
    )
    # Another number of threads rounds differently; a batch lost or used twice is no such thing.
    assert 0 < len(before) < len(found) and found == pytest.approx(expected, rel=1e-4)


def test_offline_a_warm_cache_is_enough_and_a_cold_one_is_one_line(
    cktrain: Cktrain, small_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    address = f"{server.url}/bucket/faces"
    warm = ["--shard-cache", tmp_path / "blocks"]
    assert cktrain("flow", address, "--out", tmp_path / "first", *warm, *WORDS)[0] == 0
    server.always = {"": "reset"}
    code, text, error = cktrain("flow", address, "--out", tmp_path / "second", *warm, *WORDS)
    assert code == 0 and "notice: " in text + error, error
    losses = [
        [row["loss"] for row in read_metrics(tmp_path / name)] for name in ("first", "second")
    ]
    assert losses[0] == losses[1] and losses[0]
    cold = ["--shard-cache", tmp_path / "empty"]
    code, _, error = cktrain("flow", address, "--out", tmp_path / "third", *cold, *WORDS)
    faults = [line for line in error.splitlines() if not line.startswith("notice: ")]
    assert code == 1 and len(faults) == 1 and ".tar, bytes" in faults[0], error
    config = json.loads((tmp_path / "second/config.json").read_text())
    assert config["dataset"]["path"] == address


def test_a_store_that_is_stopped_while_it_closes_is_closed_at_once(server: ObjectServer) -> None:
    """An interrupt stops it from a thread: what it interrupts may come to the end before that."""
    store = Store(f"{server.url}/bucket/faces", timeout_s=3600)
    server.always = {"manifest.json": "hang"}
    store.submit(store.head, "manifest.json")
    assert server.is_hanging.wait(60)
    closing = threading.Thread(target=store.close, daemon=True)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    store.stop()
    closing.join(60)
    assert not closing.is_alive()


def test_a_pool_cancels_what_has_not_begun() -> None:
    pool, may_end, has_begun = DaemonPool(1, "some"), threading.Event(), threading.Event()
    nobody_waits: Future[None] = Future()
    nobody_waits.set_result(None)

    def wait() -> int:
        has_begun.set()
        may_end.wait()
        return 7

    first, second = pool.submit(wait), pool.submit(wait)
    assert has_begun.wait(60)
    pool.shutdown(unless=nobody_waits)
    assert second.cancelled() and not first.done()
    may_end.set()
    assert first.result(60) == 7
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(wait)
