"""cktrain with the address of a dataset: as with its folder, and nothing secret is written down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import shard_builder.cloud.store as store_module
from tests.object_server import ObjectServer, serving
from tests.train.tiny_net import OPTIONS, SHORT, Cktrain

SECRETS = ("KEY-OF-THIS-TEST", "SECRET-OF-THIS-TEST", "TOKEN-OF-THIS-TEST")
ADDRESS = "s3://bucket/faces"


@pytest.fixture
def server(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectServer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(tiny_dataset, tmp_path / "objects/bucket/faces")
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    with serving(tmp_path / "objects") as running:
        for name, value in zip(names, SECRETS, strict=True):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        yield running


def test_a_run_from_a_bucket_is_the_run_from_the_folder(
    cktrain: Cktrain, server: ObjectServer, tiny_dataset: Path, tmp_path: Path
) -> None:
    words = [
        w for n, v in (OPTIONS | {"epochs": 1}).items() for w in (f"--{n.replace('_', '-')}", v)
    ]
    out, results = "", []
    for name, place in (("local", tiny_dataset), ("remote", ADDRESS)):
        run, test = tmp_path / name, tmp_path / f"{name}-test"
        code, text, error = cktrain("flow", place, "--out", run, "--read-ahead", 3, *words)
        assert code == 0, error
        out += text
        code, text, error = cktrain("test", run, place, "--out", test)
        assert code == 0, error
        out += text
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        results.append(([row["loss"] for row in metrics], (test / "predictions.jsonl").read_text()))
    assert results[0] == results[1]
    epoch = next(row for row in metrics if row["kind"] == "epoch")
    assert epoch["store_requests"] >= 42 and epoch["store_retries"] == 0
    assert 0 < epoch["store_p50_ms"] <= epoch["store_p99_ms"] and epoch["store_mb_per_s"] > 0
    assert f"The store in the last epoch: {epoch['store_requests']} requests" in " ".join(
        out.split()
    )
    server.delay_s = 0.2
    code, text, error = cktrain(
        "flow", ADDRESS, "--out", tmp_path / "slow", *words, "--read-ahead", 1
    )
    assert code == 0 and "is bound by the store" in " ".join(text.split()), text + error
    server.delay_s = 0.0
    run = tmp_path / "remote"
    code, text, error = cktrain("flow", ADDRESS, "--out", run, "--resume", "--epochs", 2)
    assert code == 0, error
    assert json.loads((run / "config.json").read_text())["dataset"]["path"] == ADDRESS
    code, text, error = cktrain("report", run, "--out", tmp_path / "report.html")
    assert code == 0 and "No pictures" not in (tmp_path / "report.html").read_text(), error
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in SECRETS:
        assert secret in str(server.headers) or secret == SECRETS[1]
        assert secret not in out + text and not any(secret.encode() in data for data in written)
    server.always = {"rgb-000000.tar": "403", "flow-000000.tar": "400-ExpiredToken"}
    code, text, error = cktrain("flow", ADDRESS, "--out", tmp_path / "new", *words)
    assert code == 1 and len(error.strip().splitlines()) == 1, error
    assert "flow-000000.tar, bytes" in error and "expired" in error and ADDRESS in error


def test_both_and_cv_take_an_address(
    cktrain: Cktrain, server: ObjectServer, tiny_dataset: Path, tmp_path: Path
) -> None:
    words = [w for n, v in (SHORT | {"folds": 2}).items() for w in (f"--{n.replace('_', '-')}", v)]
    scores = []
    for name, place in (("local", tiny_dataset), ("remote", ADDRESS)):
        code, _, error = cktrain("both", place, "--out", tmp_path / name, *words)
        assert code == 0, error
        scores.append((tmp_path / name / "test/predictions.jsonl").read_text())
    assert scores[0] == scores[1]
    code, _, error = cktrain("cv", "rgb", ADDRESS, "--out", tmp_path / "folds", *words)
    assert code == 0, error
    (series,) = json.loads((tmp_path / "folds/cv.json").read_text())["series"]
    assert series["pooled"]["num_sequences"] == sum(series["fold_sizes"]) > 0
    streams = {name.partition("-")[0] for name, _, _ in server.ranges}
    assert streams == {"flow", "rgb"}


@pytest.mark.parametrize(
    ("fault", "words"), [("dns", "its host is not found (DNS)"), ("301", "AWS_ENDPOINT_URL")]
)
def test_a_store_that_is_not_there_is_one_line_of_every_command(
    fault: str,
    words: str,
    cktrain: Cktrain,
    server: ObjectServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(store_module, "LONGEST_PAUSE_S", 0.002)
    server.always = {"manifest.json": "301-PermanentRedirect"}
    if fault == "dns":  # no name is so long: no name server is asked
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{64 * 'a'}.invalid")
    for command in (["rgb"], ["flow"], ["both"], ["cv", "flow"]):
        code, _, error = cktrain(*command, ADDRESS, "--out", tmp_path / "run", "--weights", "none")
        assert code == 1 and len(error.strip().splitlines()) == 1, error
        assert f"{ADDRESS}/manifest.json: " in error and words in error
