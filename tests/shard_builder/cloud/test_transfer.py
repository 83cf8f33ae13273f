"""ckshard push and pull: whole or not to be opened, resumed where they were, every byte checked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import shard_builder.cloud.store as store_module
from pipelines import open_dataset
from shard_builder import verify_dataset
from shard_builder.cli import app
from shard_builder.cloud.transfer import pull_dataset, push_dataset
from shard_builder.errors import DatasetError, InputError, StoreError
from tests.object_server import ObjectServer, serving


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(store_module, "LONGEST_PAUSE_S", 0.002)
    monkeypatch.setattr(store_module, "MOST_TRIES", 3)
    with serving(tmp_path / "objects") as running:
        for name, value in {
            "AWS_ENDPOINT_URL": running.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "KEY-OF-THIS-TEST",
            "AWS_SECRET_ACCESS_KEY": "SECRET-OF-THIS-TEST",
        }.items():
            monkeypatch.setenv(name, value)
        yield running


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_there_and_back_the_bytes_are_the_same(
    tiny_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    back, address = tmp_path / "back", "s3://bucket/faces"
    order: list[str] = []
    server.on_put = order.append

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, (words, result.output, result.exception)
        return " ".join(result.output.split())

    assert "files sent" in run("push", tiny_dataset, address)
    assert order[-1] == "manifest.json" and len(order) == len(contents(tiny_dataset))
    assert "0 files sent" in run("push", tiny_dataset, address)
    assert contents(server.folder / "bucket/faces") == contents(tiny_dataset)
    assert "no fault found" in run("verify", address)
    assert "sequences" in run("inspect", address)
    run("inspect", address, "--html", tmp_path / "page.html")
    run("split", address, "--folds", 3, "--out", tmp_path / "split.json")
    assert (tmp_path / "page.html").exists() and (tmp_path / "split.json").exists()
    run("pull", address, f"file://{back}")
    assert contents(back) == contents(tiny_dataset) and not verify_dataset(back).faults
    assert "0 files fetched" in run("pull", address, f"file://{back}")


@pytest.mark.parametrize("has_md5", [True, False])
def test_what_went_wrong_on_the_way_is_sent_again(
    has_md5: bool, tiny_dataset: Path, server: ObjectServer
) -> None:
    server.has_md5 = has_md5
    address, there = "s3://bucket/faces", server.folder / "bucket/faces"
    server.always = {"flow-000001.tar": "503"}
    with pytest.raises(StoreError, match=r"flow-000001.tar: status 503 \(3 tries\)"):
        push_dataset(tiny_dataset, address)
    with pytest.raises(DatasetError, match="no such object"):
        open_dataset(address)
    server.always = {}
    (there / "flow-000000.tar").write_bytes(
        b"x" * (tiny_dataset / "flow-000000.tar").stat().st_size
    )
    data = (there / "index.arrow").read_bytes() if (there / "index.arrow").exists() else b"xx"
    there.mkdir(parents=True, exist_ok=True)
    (there / "index.arrow").write_bytes(data[:-1])
    server.faults.append(("rgb-000000.tar", "503"))
    push_dataset(tiny_dataset, address)
    assert contents(there) == contents(tiny_dataset)
    server.keeps = lambda data: data[:-1] + b"!"
    (there / "flow-000000.tar").unlink()
    with pytest.raises(DatasetError, match="other bytes than were sent"):
        push_dataset(tiny_dataset, address)


def test_another_dataset_is_not_replaced(
    tiny_dataset: Path, lz4_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    address = "s3://bucket/faces"
    push_dataset(tiny_dataset, address)
    with pytest.raises(InputError, match="holds another dataset"):
        push_dataset(lz4_dataset, address)
    assert contents(server.folder / "bucket/faces") == contents(tiny_dataset)
    shutil.copytree(lz4_dataset, tmp_path / "other")
    before = contents(tmp_path / "other")
    with pytest.raises(InputError, match="holds another dataset"):
        pull_dataset(address, tmp_path / "other")
    assert contents(tmp_path / "other") == before
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_dataset, damaged)
    data = bytearray((damaged / "flow-000000.tar").read_bytes())
    data[9999] ^= 1
    (damaged / "flow-000000.tar").write_bytes(data)
    with pytest.raises(DatasetError, match=r"flow-000000\.tar: other bytes"):
        push_dataset(damaged, "s3://bucket/damaged")
    assert not (server.folder / "bucket/damaged/manifest.json").exists()
    with pytest.raises(InputError, match="is a folder"):
        CliRunner().invoke(app, ["pull", str(damaged), "out"], catch_exceptions=False)
