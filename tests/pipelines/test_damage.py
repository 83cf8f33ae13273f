"""Damaged members: named, skipped and counted, whatever the engine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.dataset import open_dataset
from pipelines.engines.damage import DamagePolicy
from pipelines.plan.requests import BatchRequest, iter_requests
from shard_builder.errors import DamagedMemberError, DatasetError
from tests.pipelines.flat_loader import ENGINES, NUM, loader_of


def damaged_copy(source: Path, target: Path) -> tuple[str, str, int]:
    """Copy a dataset and flip bytes in a pair from the middle of its fourth sequence; return key,
    member and offset."""
    shutil.copytree(source, target)
    with open_dataset(source) as dataset:
        key, member = dataset.keys[3], f"flow-{dataset.num_pairs[3] // 2:03d}.jpg"
    for index in sorted(target.glob("flow-*.idx")):
        for line in index.read_text().splitlines()[1:]:
            words = line.split()
            for extension, offset, size, name in zip(
                words[::4], words[1::4], words[2::4], words[3::4], strict=True
            ):
                if name.endswith(f"{key}.{member}") and extension == member:
                    with index.with_suffix(".tar").open("r+b") as tar:
                        tar.seek(int(offset) + int(size) // 2)
                        tar.write(b"\x00\xff" * 8)
                    return key, member, int(offset)
    raise AssertionError(f"no member {key}.{member}")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_damaged_member_is_named_with_shard_offset_member_and_key(
    engine: str, tiny_dataset: Path, tmp_path: Path
) -> None:
    key, member, offset = damaged_copy(tiny_dataset, tmp_path / "broken")
    with open_dataset(tmp_path / "broken") as dataset:
        loader = loader_of(dataset, engine=engine, batch_size=14, training=False)
        with loader, pytest.raises(DamagedMemberError) as raised:
            list(loader)
    error = raised.value
    assert (error.key, error.member, error.offset) == (key, f"{key}.{member}", offset)
    assert re.fullmatch(r"flow-\d{6}\.tar", error.shard)
    assert all(
        word in str(error) for word in (key, error.shard, str(offset), "CRC-32", "ckshard verify")
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_skip_takes_a_neighbour_and_counts(
    engine: str, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.engines.damage.MAX_FRACTION", 0.2)
    key, _, _ = damaged_copy(tiny_dataset, tmp_path / "broken")
    with open_dataset(tmp_path / "broken") as dataset:
        with loader_of(
            dataset, engine=engine, on_error="skip", batch_size=7, training=False
        ) as loader:
            keys = [k for batch in loader for k in batch.keys]
            assert [error.key for error in loader.errors] == [key]
            assert len(keys) == NUM and key not in keys
            assert keys[3] == dataset.keys[4], "the neighbour in the plan stands in"
            loader.set_epoch(0)
            labels = [label for batch in loader for label in batch.labels.tolist()]
        assert labels[3] == dataset.labels[4]


@pytest.mark.parametrize("engine", ENGINES)
def test_more_than_one_percent_stops_the_run(
    engine: str, tiny_dataset: Path, tmp_path: Path
) -> None:
    damaged_copy(tiny_dataset, tmp_path / "broken")
    with open_dataset(tmp_path / "broken") as dataset:
        loader = loader_of(dataset, engine=engine, on_error="skip", training=False)
        with (
            loader,
            pytest.raises(
                DatasetError, match="1 of 28 samples of this epoch are damaged, over the 1%"
            ),
        ):
            list(loader)


def policy_and_request(tiny_dataset: Path) -> tuple[DamagePolicy, BatchRequest]:
    """A policy over 200 samples, and a request of the first 28 of them."""
    rows = np.resize(np.arange(28), 200)
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset, rows=rows) as loader:
        plan = loader.plan
    place = {"epoch": 0, "position": 0, "batch_size": 28, "rank": 0, "world_size": 1}
    return DamagePolicy(plan, "skip"), next(iter_requests(plan, **place))


def read_damaged(policy: DamagePolicy, request: BatchRequest, index: int) -> None:
    """Let a policy read a sample whose own window is damaged and whose neighbours are not."""
    draws = request.draws()

    def read(row: int, start: int) -> str:
        if (row, start) == draws[index][:2]:
            place = {"shard": "flow-000000.tar", "offset": 512, "member": "a.flow-000.jpg"}
            raise DamagedMemberError("bad", key="a", **place)
        return "neighbour"

    sample, draw = policy.read(request, index, draws[index], read)
    assert sample == "neighbour" and draw != draws[index]


def test_one_percent_is_allowed(tiny_dataset: Path) -> None:
    policy, request = policy_and_request(tiny_dataset)
    read_damaged(policy, request, 3)
    read_damaged(policy, request, 7)
    with pytest.raises(DatasetError, match="3 of 200"):
        read_damaged(policy, request, 11)
    policy.start_epoch(1)
    assert policy.errors(0) == policy.errors(1) == []


def test_a_sample_that_is_met_twice_counts_once(tiny_dataset: Path) -> None:
    policy, request = policy_and_request(tiny_dataset)
    for index in (7, 7, 8, 7):
        read_damaged(policy, request, index)
    assert len(policy.errors(0)) == 2


def test_undecodable_bytes_with_a_right_checksum_do_not_kill_dali(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CRC of a member that was damaged before it was packed is right; DALI fails on it, and the
    engine mends its pipeline."""
    monkeypatch.setattr("pipelines.engines.damage.MAX_FRACTION", 0.2)
    monkeypatch.setattr("pipelines.members.zlib.crc32", lambda data: 0)
    key, _, offset = damaged_copy(tiny_dataset, tmp_path / "broken")
    tar = next(p for p in sorted((tmp_path / "broken").glob("flow-*.tar")) if has_key(p, key))
    with tar.open("r+b") as file:
        file.seek(offset)
        tables = file.read(2000).index(b"\xff\xc4")  # what follows the header, which is whole
        file.seek(offset + tables)
        file.write(b"\x00" * 600)
    with open_dataset(tmp_path / "broken") as dataset:
        members = dataset.members("flow")
        members._crcs = np.zeros_like(members._crcs)
        with loader_of(
            dataset, engine="dali", on_error="skip", training=False, batch_size=7
        ) as loader:
            keys = [k for batch in loader for k in batch.keys]
            assert len(keys) == NUM and key not in keys
            assert [error.key for error in loader.errors] == [key]
        loader = loader_of(dataset, engine="dali", training=False, batch_size=7)
        with loader, pytest.raises(DamagedMemberError, match="cannot be decoded"):
            list(loader)


def has_key(tar: Path, key: str) -> bool:
    return f"{key}." in tar.with_suffix(".idx").read_text()


def test_a_missing_tar_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_dataset, tmp_path / "broken")
    (tmp_path / "broken" / "flow-000000.tar").unlink()
    with open_dataset(tmp_path / "broken") as dataset:
        loader = loader_of(dataset, on_error="skip")
        with loader, pytest.raises(DatasetError, match=r"flow-000000\.tar"):
            list(loader)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_read_ahead_of_a_damaged_batch_is_handed_over_first(
    engine: str, tiny_dataset: Path, tmp_path: Path
) -> None:
    """The engine reads ahead; the error comes where the damaged batch is due, not before."""
    key, _, _ = damaged_copy(tiny_dataset, tmp_path / "broken")
    with open_dataset(tmp_path / "broken") as dataset:
        options = {"engine": engine, "training": False, "batch_size": 1, "prefetch_depth": 4}
        with loader_of(dataset, **options) as loader:
            batches, keys = iter(loader), []
            with pytest.raises(DamagedMemberError) as raised:
                for batch in batches:
                    keys += batch.keys
            assert keys == dataset.keys[:3]
            assert loader.position == 3 and raised.value.key == key
            loader.set_epoch(0)
            assert next(iter(loader)).keys == (dataset.keys[0],), "the loader can be used again"
