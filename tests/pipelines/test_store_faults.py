"""What a store does wrong: asked again where that helps, else one error with object and range."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shard_builder.cloud.store as store_module
from pipelines import Dataset, Loader, Reading, Sampling, make_loader, open_dataset
from shard_builder.cloud.faults import RequestFault, fault_of
from shard_builder.errors import DamagedMemberError, DatasetError, RangeError, StoreError
from tests.conftest import BuildDataset
from tests.object_server import ObjectServer, serving
from tests.pipelines.remote_batches import (
    ENGINES,
    assert_equal,
    batches_of,
    kept,
    own_cache,
    put,
    server,
)

__all__ = ["own_cache", "server"]

NO_HOST = f"http://{64 * 'a'}.invalid/faces"
"""No name is so long: no name server is asked, whose answer may take its time."""


def loader_of(dataset: Dataset, **words: Any) -> Loader:
    """A loader of what ``batches_of`` gives, which asks for nothing long before it is needed."""
    reading = Reading(dtype=torch.uint8, prefetch_depth=1, read_ahead=0, **words)
    return make_loader(
        dataset,
        "flow",
        rows=np.arange(len(dataset))[::2],
        training=True,
        batch_size=2,
        sampling=Sampling(stack_length=3),
        reading=reading,
    )


@pytest.mark.parametrize(
    "fault",
    ["503-SlowDown", "429", "400-RequestTimeout", "reset", "cut", "short", "lie", "corrupt"],
)
def test_a_passing_fault_is_asked_again(
    fault: str, build_small: BuildDataset, server: ObjectServer
) -> None:
    folder = build_small(codec="jpg", flow_codec="lz4")
    address = put(server, folder)
    for name in ("manifest.json", "index.arrow"):
        if fault not in ("lie", "corrupt", "short"):  # wrong bytes of these are refused
            server.faults.append((name, fault))
    server.faults.extend([(".tar", fault)] * 2)
    with open_dataset(folder) as local, open_dataset(address) as remote:
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
        ("short", RangeError, "another range|of .* bytes"),
        ("elsewhere", RangeError, "another range"),
        ("416", RangeError, "status 416"),
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
    small_dataset: Path,
    server: ObjectServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = put(server, small_dataset)
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
    small_dataset: Path, server: ObjectServer
) -> None:
    address = put(server, small_dataset)
    for name, fault in {"manifest.json": "short", "index.arrow": "corrupt"}.items():
        server.always = {name: fault}
        with pytest.raises(DatasetError, match=name):
            open_dataset(address)
    server.always = {}
    with pytest.raises(DatasetError, match="no such object"):
        open_dataset(f"{server.url}/bucket/other")
    with open_dataset(address):
        pass


@pytest.mark.parametrize(
    ("engine", "fault", "kind", "words"),
    [
        ("cpu", "dns", StoreError, r"its host is not found \(DNS\)"),
        ("cpu", "301-PermanentRedirect", StoreError, "AWS_REGION"),
        ("cpu", "400-ExpiredToken", StoreError, "denied.*expired"),
        ("cpu", "replaced", DatasetError, "was replaced"),
        ("dali", "400-ExpiredToken", StoreError, "denied.*expired"),
        ("dali", "replaced", DatasetError, "was replaced"),
        ("resident", "gone", DatasetError, "no such object"),
        ("cpu", "all gone", DatasetError, "replaced while.* manifest.json is gone"),
    ],
)
def test_what_begins_in_the_middle_ends_a_loop_after_whole_batches_and_it_goes_on_later(
    engine: str,
    fault: str,
    kind: type[Exception],
    words: str,
    small_dataset: Path,
    build_small: BuildDataset,
    server: ObjectServer,
) -> None:
    other = build_small(codec="png")
    there, apart = server.folder / "bucket/faces", server.folder / "apart"
    address = put(server, small_dataset)
    with (
        open_dataset(small_dataset) as local,
        open_dataset(address) as remote,
        loader_of(remote, **ENGINES[engine]) as loader,
    ):
        expected = batches_of(local, epochs=3, batch_size=2, **ENGINES[engine])
        found, store = [], remote.store
        assert store is not None
        own, batches = store._store, iter(loader)
        found.append(kept(next(batches)))
        if fault == "dns":
            store._store = store_module._open(NO_HOST, 30)
        elif fault[0].isdigit():
            server.always = {".tar": fault}
        else:
            there.rename(apart)
            if fault == "replaced":
                put(server, other)
            elif fault == "gone":
                there.mkdir()
                (there / "manifest.json").write_bytes((apart / "manifest.json").read_bytes())
        with pytest.raises(kind, match=words) as caught:
            found.extend(map(kept, chain(batches, loader, loader)))
        assert type(caught.value) is kind and address in str(caught.value)
        assert 0 < len(found) < len(expected)
        if fault == "dns":
            store._store = own
        elif fault[0].isdigit():
            server.always = {}
        else:
            shutil.rmtree(there, ignore_errors=True)
            apart.rename(there)
        loader.load_state_dict(loader.state_dict())
        while len(found) < len(expected):
            found.extend(map(kept, loader))
    assert_equal(found, expected)


def test_a_name_that_is_not_found_for_a_while_is_asked_for_again(
    small_dataset: Path, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_dataset(small_dataset) as local, open_dataset(put(server, small_dataset)) as remote:
        store = remote.store
        assert store is not None
        own, faults = store._store, []
        store._store = store_module._open(NO_HOST, 30)

        def note(error: Exception) -> RequestFault:
            store._store = own
            faults.append(fault_of(error).what)
            return fault_of(error)

        monkeypatch.setattr(store_module, "fault_of", note)
        assert_equal(batches_of(remote), batches_of(local))
        assert set(faults) == {"its host is not found (DNS)"}
        assert store.take_figures()["store_retries"] == len(faults)


def test_without_the_store_a_known_dataset_opens_with_a_notice(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path) as server:
        address = put(server, small_dataset)
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
        open_dataset(NO_HOST)
