"""A real object store and the commands as a user runs them: there, trained from, and back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.programs import ckshard, digests
from tests.seaweed import KEY, SECRET
from tests.train.tiny_net import OPTIONS, Cktrain
from train.running.run_folder import read_metrics

ADDRESS = "s3://faces/small"
SECRETS = (KEY.encode(), SECRET.encode())
WORDS = [
    word
    for name, value in (OPTIONS | {"epochs": 1}).items()
    for word in (f"--{name.replace('_', '-')}", value)
]


@pytest.fixture
def store(
    object_store: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    own = object_store | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return own


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    assert SECRET not in result.stdout + result.stderr
    return result.stdout


def test_there_trained_from_and_back(
    cktrain: Cktrain, store: dict[str, str], small_dataset: Path, tmp_path: Path
) -> None:
    num_files, back = len(digests(small_dataset)), tmp_path / "back"
    assert f"; {num_files} files sent" in done(ckshard("push", small_dataset, ADDRESS))
    assert "; 0 files sent" in done(ckshard("push", small_dataset, ADDRESS))
    assert "no fault found" in done(ckshard("verify", ADDRESS))
    losses, num_requests = {}, {}
    for name, place in {"local": small_dataset, "first": ADDRESS, "second": ADDRESS}.items():
        run = tmp_path / name
        more = () if name == "local" else ("--shard-cache", tmp_path / "blocks")
        code, text, error = cktrain("flow", place, "--out", run, *WORDS, *more)
        assert code == 0 and SECRET not in text + error, error
        losses[name] = [row["loss"] for row in read_metrics(run)]
        num_requests[name] = sum(row.get("store_requests", 0) for row in read_metrics(run))
        written = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
        assert written and not any(word in data for data in written for word in SECRETS)
    assert losses["local"] == losses["first"] == losses["second"] and losses["local"]
    assert num_requests["first"] > 14 and num_requests["second"] == 1  # of the manifest
    assert f"; {num_files} files fetched" in done(ckshard("pull", ADDRESS, back))
    assert digests(back) == digests(small_dataset)


@pytest.mark.parametrize(
    ("variable", "value", "place", "code", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "ANOTHER-SECRET", "s3://faces/some", 1, "access denied"),
        ("AWS_REGION", "us-east-1", "s3://faces/nothing", 2, "no such object"),
        ("AWS_REGION", "us-east-1", "s3://no-such-bucket/some", 2, "no such bucket"),
    ],
)
def test_what_it_refuses_is_one_message(
    variable: str,
    value: str,
    place: str,
    code: int,
    words: str,
    store: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    result = ckshard("inspect", place)
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith(f"ckshard: error: {place}/manifest.json: {words}")
    assert "Traceback" not in result.stderr and "ANOTHER-SECRET" not in result.stderr
