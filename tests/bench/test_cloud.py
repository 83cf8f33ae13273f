"""The cloud benchmark: what it serves, counts and shows; never how fast anything is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench.cloud as cloud
import bench.nginx
from bench.cloud import cloud_blocks, measure_epochs, measure_stall
from bench.harness import provenance
from bench.loaders.__main__ import Own
from bench.loaders.windows import Windows
from bench.nginx import Server, serve_files
from pipelines.dataset import open_dataset

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin") is None, reason="needs nginx"
)


@pytest.fixture
def files(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small dataset, as it is served."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(tiny_dataset, tmp_path / "files" / "jpg")
    return tmp_path / "files"


@pytest.fixture
def server(files: Path, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "nginx").mkdir()
    with serve_files(files, tmp_path / "nginx") as running:
        yield running


@needs_nginx
def test_what_is_kept_is_not_requested_again(
    files: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(Own("ours", "cpu", "jpg"), is_kept) for is_kept in (False, True)]
    monkeypatch.setattr(cloud, "ROWS", rows)
    monkeypatch.setattr(cloud, "DEVICE_MS", 1)
    with open_dataset(files / "jpg") as dataset:
        windows = Windows(folder=files, num_samples=len(dataset), num_workers=1)
    records = measure_epochs(server, windows, tmp_path, "delayed", repeats=1)
    assert [record["is_kept"] for record in records] == [False, True]
    assert all(record["requests"][0] >= len(dataset) for record in records)
    assert records[0]["requests"][1] > 0 and records[1]["requests"][1] == 0
    monkeypatch.setattr("models.build._torchvision_model", None)
    stalls = [measure_stall(server, "jpg", tmp_path, is_kept, 1) for is_kept in (False, True)]
    assert [stall["second"]["store_requests"]["max"] > 0 for stall in stalls] == [True, False]
    for stall in stalls:
        assert stall["first"]["store_requests"]["median"] >= 10
        assert 0 <= stall["first"]["data_wait_pct"]["median"] <= 100
        assert stall["first"]["store_p50_ms"]["median"] > 20 and stall["memory_bytes"] >= 0
    record = {"batch_size": 32, "threads": 1, "repeats": 1, "num_samples": len(dataset)}
    record |= {"records": records}
    blocks = cloud_blocks(json.loads(json.dumps(provenance() | record | {"stalls": stalls})))
    assert blocks["cloud-epochs"].count("\n| ") == 1 + 2
    assert "| **ours, on disk** | jpg | 20 ms |" in blocks["cloud-epochs"]
    assert blocks["cloud-stall"].count("\n| ") == 2 * 2


@needs_nginx
def test_the_latency_is_of_each_request_and_ranges_are_kept(server: Server) -> None:
    import obstore
    from obstore.store import from_url

    for way, least in cloud.WAYS.items():
        address = f"{server.endpoint}/{way}/jpg"
        store = from_url(address, client_options={"allow_http": True})  # type: ignore[call-overload]
        assert len(obstore.get_range(store, "flow-000000.tar", start=512, end=600)) == 88
        (seconds,) = server.take_seconds()
        assert seconds >= least / 1000 - 0.002


def test_without_nginx_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.nginx, "CONFIG", "no configuration")
    with (
        pytest.raises(SystemExit, match="apt-get install nginx-light"),
        serve_files(tmp_path, tmp_path),
    ):
        pass
