"""A dataset in a store gives the batches of the same dataset in a folder, bit for bit."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import Reading, Sampling, make_loader, open_dataset
from pipelines.remote_members import RemoteMembers
from shard_builder.errors import InputError
from tests.object_server import ObjectServer
from tests.pipelines.remote_batches import assert_equal, batches_of, own_cache, put, server

__all__ = ["own_cache", "server"]


def test_a_sample_is_one_request_and_what_is_read_ahead_is_bounded(
    tiny_dataset: Path, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = put(server, tiny_dataset)
    with open_dataset(address) as remote, make_loader(
        remote, "flow", training=True, batch_size=2, sampling=Sampling(stack_length=3),
        reading=Reading(engine="cpu", num_threads=1, prefetch_depth=1, read_ahead=3),
    ) as loader:  # fmt: skip
        next(iter(loader))
        assert len(server.ranges) <= 2 * (1 + 1 + 3 + 1)
        loader.close()
    monkeypatch.setattr("pipelines.read_ahead.READ_AHEAD_BYTES", 1)
    server.ranges.clear()  # nothing is in flight any more
    with open_dataset(address) as remote:
        batches_of(remote, batch_size=6, rows=np.arange(18))
        # A request a sample: of 3 batches, and of 2 of the next epoch, which are in progress.
        assert 18 <= len(server.ranges) <= 30


def test_planes_in_memory_are_not_asked_for(tiny_dataset: Path, server: ObjectServer) -> None:
    with open_dataset(put(server, tiny_dataset)) as remote, open_dataset(tiny_dataset) as local:
        words = {"cache": "ram", "read_ahead": 0, "batch_size": 3, "epochs": 4}
        words["sampling"] = Sampling(stack_length=11)
        assert_equal(batches_of(remote, **words), batches_of(local, **words))
        assert len(server.ranges) < 1.8 * len(range(0, len(local), 2))


def test_s3_by_its_own_environment(
    tiny_dataset: Path, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "KEY-OF-THIS-TEST",
        "AWS_SECRET_ACCESS_KEY": "SECRET-OF-THIS-TEST",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    put(server, tiny_dataset)
    with open_dataset(tiny_dataset) as local, open_dataset("s3://bucket/faces") as remote:
        assert_equal(batches_of(remote), batches_of(local))
        text = pickle.dumps(remote)
        assert b"OF-THIS-TEST" not in text
        with pickle.loads(text) as again:  # noqa: S301
            assert again.address == "s3://bucket/faces" and len(again) == len(local)
    assert any("KEY-OF-THIS-TEST" in headers for headers in server.headers)


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_google_and_azure_by_their_own_environment(
    scheme: str, small_dataset: Path, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"gcs_base_url": server.url, "disable_oauth": True}
    key |= {"client_email": "", "private_key": "", "private_key_id": ""}
    for name, value in {
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key),
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURITE_BLOB_STORAGE_URL": server.url,
        f"{'GOOGLE' if scheme == 'gs' else 'AZURE'}_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    put(server, small_dataset, "bucket/faces" if scheme == "gs" else "devstoreaccount1/b/faces")
    address = "gs://bucket/faces" if scheme == "gs" else "az://b/faces"
    own = {"rows": np.arange(21)}
    with open_dataset(small_dataset) as local, open_dataset(address) as remote:
        assert_equal(batches_of(remote, **own), batches_of(local, **own))
    server.always = {"manifest.json": "403"}
    with open_dataset(address) as remote:
        assert f"{address}/manifest.json: access denied" in remote.notices[0]


def test_another_machine_reads_a_file_address(tiny_dataset: Path) -> None:
    with open_dataset(f"file://{tiny_dataset}") as dataset:
        assert dataset.path == tiny_dataset and dataset.store is None


@pytest.mark.parametrize(
    "address", ["http://user:pass-word@host/x", "https://host/x?sig=pass-word", "s3://a:b@c/x"]
)
def test_an_address_with_a_credential_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="environment") as caught:
        open_dataset(address)
    assert "pass-word" not in str(caught.value) and "a:b" not in str(caught.value)


def test_a_forked_process_is_told(tiny_dataset: Path, server: ObjectServer) -> None:
    import os

    with open_dataset(put(server, tiny_dataset)) as remote:
        child = os.fork()
        if child == 0:
            try:
                remote.read_member("flow", 0, 0)
            except InputError as error:
                os._exit(0 if "forked" in str(error) else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert len(remote.read_member("flow", 0, 0))


def test_what_is_here_is_not_waited_for_when_it_is_asked_for_again(
    tiny_dataset: Path, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an epoch's border a row is needed now and asked for once more, for the coming epoch."""
    with open_dataset(put(server, tiny_dataset)) as remote, open_dataset(tiny_dataset) as local:
        members, may_answer = remote.members("flow"), threading.Event()
        assert isinstance(members, RemoteMembers)
        first = members.ask(3, range(2))
        first.data.result()
        fetch = members._fetch_kept

        def fetch_late(*words: Any) -> Any:
            assert may_answer.wait(60)
            return fetch(*words)

        monkeypatch.setattr(members, "_fetch_kept", fetch_late)
        second = members.ask(3, range(1, 3))
        assert np.array_equal(members.read(3, 1), local.members("flow").read(3, 1))
        assert not second.data.done()
        may_answer.set()
        num_requests = len(server.ranges) + 1
        for held in (first, second):
            assert np.array_equal(members.read(3, 2), local.members("flow").read(3, 2))
            members.drop([held])
        assert len(server.ranges) == num_requests and not members._fetched
