"""What a store does wrong: asked again where that helps, else one error with object and range."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines import open_dataset
from shard_builder.errors import DamagedMemberError, DatasetError, StoreError
from tests.object_server import ObjectServer, serving
from tests.pipelines.remote_batches import assert_equal, batches_of, own_cache, put, server

__all__ = ["own_cache", "server"]


@pytest.mark.parametrize(
    "fault",
    ["503-SlowDown", "429", "400-RequestTimeout", "reset", "cut", "short", "lie", "corrupt"],
)
def test_a_passing_fault_is_asked_again(
    fault: str, lz4_dataset: Path, server: ObjectServer
) -> None:
    address = put(server, lz4_dataset)
    for name in ("manifest.json", "index.arrow"):
        if fault not in ("lie", "corrupt", "short"):  # wrong bytes of these are refused
            server.faults.append((name, fault))
    server.faults.extend([(".tar", fault)] * 2)
    with open_dataset(lz4_dataset) as local, open_dataset(address) as remote:
        assert_equal(batches_of(remote), batches_of(local))
        assert not server.faults and remote.store is not None
        assert remote.store.take_figures()["store_retries"] >= 2


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("s3 503-SlowDown", StoreError, "status 503 SlowDown"),
        ("s3 400-ExpiredToken", StoreError, "expired"),
        ("s3 403-RequestTimeTooSkewed", StoreError, r"denied.*\(status 403 RequestTimeTooSkewed\)"),
        ("s3 301-PermanentRedirect", StoreError, "AWS_REGION"),
        ("s3 400-AuthorizationHeaderMalformed", StoreError, "AWS_REGION.* 400 Auth"),
        ("s3 404-NoSuchBucket", DatasetError, "no such bucket"),
        ("s3 404", DatasetError, "no such object"),
        ("s3 whole", StoreError, "ranges"),
        ("503", StoreError, "status 503"),
        ("400-ExpiredToken", StoreError, "expired"),
        ("403", StoreError, "access denied"),
        ("401", StoreError, "access denied"),
        ("404", DatasetError, "no such object"),
        ("whole", StoreError, "ranges"),
        ("short", StoreError, "another range|of .* bytes"),
        ("elsewhere", StoreError, "another range"),
        ("416", StoreError, "status 416"),
        ("cut", StoreError, "cut short"),
        ("reset", StoreError, "reset|broke"),
        ("corrupt", DamagedMemberError, "CRC-32"),
        ("lie", DamagedMemberError, "CRC-32"),
    ],
)
def test_a_lasting_fault_is_one_error_with_object_and_range(
    fault: str,
    kind: type[Exception],
    words: str,
    tiny_dataset: Path,
    server: ObjectServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = put(server, tiny_dataset)
    scheme, _, fault = fault.rpartition(" ")
    if scheme == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY-OF-THIS-TEST")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET-OF-THIS-TEST")
        address = "s3://bucket/faces"
    server.always["flow-000001.tar"] = fault
    with open_dataset(address) as remote, pytest.raises(kind, match=words) as caught:
        batches_of(remote)
    message = str(caught.value)
    assert type(caught.value) is kind and "flow-000001.tar" in message and address in message
    assert "bytes" in message and "OF-THIS-TEST" not in message and "Debug" not in message
    assert len(server.ranges) < 800


def test_wrong_bytes_of_manifest_and_index_are_refused(
    tiny_dataset: Path, server: ObjectServer
) -> None:
    address = put(server, tiny_dataset)
    for name, fault in {"manifest.json": "short", "index.arrow": "corrupt"}.items():
        server.always = {name: fault}
        with pytest.raises(DatasetError, match=name):
            open_dataset(address)
    server.always = {}
    with pytest.raises(DatasetError, match="no such object"):
        open_dataset(f"{server.url}/bucket/other")
    with open_dataset(address):
        pass


def test_a_replaced_dataset_is_not_trained_on(
    tiny_dataset: Path, lz4_dataset: Path, server: ObjectServer
) -> None:
    address = put(server, tiny_dataset)
    with open_dataset(address) as remote:
        shutil.rmtree(server.folder / "bucket/faces")
        put(server, lz4_dataset)
        with pytest.raises(DatasetError, match="was replaced"):
            batches_of(remote)


def test_without_the_store_a_known_dataset_opens_with_a_notice(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path) as server:
        address = put(server, tiny_dataset)
        with open_dataset(address) as remote:
            assert not remote.notices
    with open_dataset(address) as remote, pytest.raises(StoreError, match="refused"):
        assert "refused" in remote.notices[0] and len(remote) > 0
        batches_of(remote)
    for folder in (tmp_path / "cache/ckshard/datasets").glob("*/index.arrow"):
        folder.write_bytes(b"x")
    with pytest.raises(StoreError, match="refused"):
        open_dataset(address)
    with pytest.raises(StoreError, match="DNS"):
        open_dataset("http://no-such-host.invalid/faces")
