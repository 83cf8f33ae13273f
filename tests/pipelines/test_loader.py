"""make_loader: ranks, validation coverage, resume, short sequences, damage, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.dataset import Dataset, open_dataset
from pipelines.engines.damage import DamagePolicy
from pipelines.loader import Loader, make_loader
from shard_builder.errors import DamagedMemberError, DatasetError, InputError

NUM = 28
LONG = 10


def loader_of(dataset: Dataset, *, num: int = NUM, **options: object) -> Loader:
    arguments: dict[str, object] = {
        "stream": "flow",
        "training": True,
        "batch_size": 6,
        "seed": 4,
        "engine": "cpu",
    }
    arguments |= {
        "dtype": torch.uint8,
        "num_threads": 1,
        "rows": dataset.rows_of(dataset.keys[:num]),
    }
    return make_loader(dataset, **(arguments | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 6, 7])
def test_ranks_partition_each_global_batch_and_validation_sees_every_sample_once(
    world_size: int, tiny_dataset: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset:
        for training in (True, False):
            size = {"batch_size": 2 * world_size, "training": training}
            with loader_of(dataset, **size) as whole:
                expected = [batch.keys for batch in whole]
            ranks = []
            for rank in range(world_size):
                with loader_of(dataset, rank=rank, world_size=world_size, **size) as loader:
                    ranks.append(
                        [
                            (
                                tuple(
                                    k for k, v in zip(b.keys, b.valid.tolist(), strict=True) if v
                                ),
                                len(b.keys),
                                b.global_size,
                            )
                            for b in loader
                        ]
                    )
            assert len({len(rank) for rank in ranks}) == 1, (
                "all ranks take the same number of steps"
            )
            for step, keys in enumerate(expected):
                parts = [rank[step] for rank in ranks]
                assert sum((part[0] for part in parts), ()) == keys
                assert len({part[1] for part in parts}) == 1, "padding makes all parts equal"
                assert {part[2] for part in parts} == {len(keys)}


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_resume_after_any_step_gives_the_remaining_batches(engine: str, tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset:
        with loader_of(dataset, engine=engine) as loader:
            loader.set_epoch(3)
            batches, states = [], []
            for batch in loader:
                batches.append((batch.keys, batch.images.clone()))
                states.append(json.loads(json.dumps(loader.state_dict())))
        for step, state in enumerate(states):
            with loader_of(dataset, engine=engine) as loader:
                loader.load_state_dict(state)
                rest = [(batch.keys, batch.images.clone()) for batch in loader]
            assert [keys for keys, _ in rest] == [keys for keys, _ in batches[step + 1 :]]
            assert all(
                torch.equal(a[1], b[1]) for a, b in zip(rest, batches[step + 1 :], strict=True)
            )


def test_a_state_loads_in_another_process_at_another_world_size(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset) as loader:
        loader.set_epoch(1)
        iterator = iter(loader)
        next(iterator)
        state = loader.state_dict()
        rest = [list(batch.keys) for batch in iterator]
    program = f"""
import json, torch
from pipelines.dataset import open_dataset
from pipelines.loader import make_loader
dataset = open_dataset({str(tiny_dataset)!r})
parts = []
for rank in range(3):
    loader = make_loader(dataset, stream="flow", rows=dataset.rows_of(dataset.keys[:{NUM}]),
                         training=True, batch_size=6, seed=4, engine="cpu", rank=rank, world_size=3)
    loader.load_state_dict(json.loads({json.dumps(json.dumps(state))}))
    parts.append([[k for k, v in zip(b.keys, b.valid.tolist()) if v] for b in loader])
    loader.close()
print(json.dumps([sum(step, []) for step in zip(*parts)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == rest


def test_epochs_visit_every_sample_in_another_order(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset) as loader:
        orders = []
        for epoch in range(3):
            loader.set_epoch(epoch)
            orders.append([key for batch in loader for key in batch.keys])
            assert len(loader) == 5
    assert all(sorted(order) == sorted(dataset_keys(orders[0])) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def dataset_keys(order: list[str]) -> list[str]:
    assert len(set(order)) == NUM
    return order


def test_short_sequences_repeat_their_last_pair_and_are_counted(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset:
        short = int((dataset.num_pairs[:NUM] < LONG).sum())
        assert 0 < short < NUM
        with loader_of(dataset, stack_length=LONG, training=False, batch_size=NUM) as loader:
            assert loader.num_short == short
            batch = next(iter(loader))
        row = int(np.argmin(dataset.num_pairs[dataset.rows_of(batch.keys)]))
        pairs = int(dataset.num_pairs[dataset.rows_of(batch.keys)][row])
        planes = batch.images[row]
        for number in range(pairs, LONG):
            assert torch.equal(
                planes[2 * number : 2 * number + 2], planes[2 * pairs - 2 : 2 * pairs]
            )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": np.empty(0, np.int64)}, "training part of the split has no sequences"),
        ({"batch_size": 29}, "--batch-size 29, but the training part has 28"),
        ({"batch_size": 5, "world_size": 2}, "--batch-size 5, expected a multiple of the 2 ranks"),
        ({"stack_length": 99}, "--stack-length 99, but the longest sequence has"),
        ({"stack_length": 0}, "--stack-length 0"),
        ({"engine": "ffcv"}, "--loader 'ffcv', expected one of auto, dali, cpu"),
        ({"cache": "disk"}, "--cache 'disk'"),
        ({"aug": "none"}, "--aug 'none'"),
        ({"on_error": "ignore"}, "--on-error 'ignore'"),
        ({"dtype": torch.int64}, "dtype torch.int64"),
        ({"prefetch_depth": 0}, "prefetch_depth 0"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2 ranks, expected 0 to 1"),
        ({"device": "cuda:99"}, "device cuda:99, but torch finds"),
        ({"device": "mps"}, "device mps, expected cpu or cuda"),
        ({"rows": np.array([3, 4, 5, 6, 7, 8, 999])}, "rows 3 to 999, but .* has rows 0 to"),
        ({"stream": "rgb", "rgb_last_frames": 90}, "rgb_last_frames 90, expected 1 to"),
    ],
)
def test_what_does_not_fit_is_named(
    options: dict[str, object], words: str, tiny_dataset: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset, pytest.raises(InputError, match=words):
        loader_of(dataset, **options)


@pytest.mark.parametrize(
    "change", [{"seed": 5}, {"plan_version": 0}, {"num_samples": 27}, {"position": 99}]
)
def test_a_foreign_state_is_refused(change: dict[str, int], tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset) as loader:
        state = loader.state_dict() | change
        with pytest.raises(InputError, match=f"has {next(iter(change))}"):
            loader.load_state_dict(state)


def test_a_closed_loader_says_so(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset:
        loader = loader_of(dataset)
        loader.close()
        loader.close()
        with pytest.raises(RuntimeError, match="closed"):
            next(iter(loader))


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


@pytest.mark.parametrize("engine", ["cpu", "dali"])
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


@pytest.mark.parametrize("engine", ["cpu", "dali"])
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
            labels = [label for batch in loader_pass(loader) for label in batch.labels.tolist()]
        assert labels[3] == dataset.labels[4]


def loader_pass(loader: Loader) -> Loader:
    loader.set_epoch(0)
    return loader


@pytest.mark.parametrize("engine", ["cpu", "dali"])
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


def test_one_percent_is_allowed() -> None:
    policy = DamagePolicy("skip", 200)
    error = DamagedMemberError(
        "bad", shard="flow-000000.tar", offset=512, member="S001_001.flow-000.jpg", key="S001_001"
    )
    policy.report(error)
    policy.report(error)
    with pytest.raises(DatasetError, match="3 of 200"):
        policy.report(error)
    policy.start_epoch()
    assert policy.errors == []


def test_undecodable_bytes_with_a_right_checksum_do_not_kill_dali(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CRC of a member that was damaged before it was packed is right; DALI fails on it, and the
    engine mends its pipeline."""
    monkeypatch.setattr("pipelines.engines.damage.MAX_FRACTION", 0.2)
    monkeypatch.setattr("pipelines.dataset.zlib.crc32", lambda data: 0)
    key, _, offset = damaged_copy(tiny_dataset, tmp_path / "broken")
    tar = next(p for p in sorted((tmp_path / "broken").glob("flow-*.tar")) if has_key(p, key))
    with tar.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x00" * 64)  # not even the JPEG marker is left
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


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_there_is_one_iteration_at_a_time(engine: str, tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset, engine=engine) as loader:
        whole = [batch.keys for batch in loader]
        loader.set_epoch(0)
        first = iter(loader)
        assert next(first).keys == whole[0]
        second = iter(loader)
        assert list(first) == [], "a new iteration ends the old one"
        assert [batch.keys for batch in second] == whole[1:]
        loader.set_epoch(0)
        third = iter(loader)
        next(third)
        loader.set_epoch(0)
        assert list(third) == [], "so does a jump"
        assert [batch.keys for batch in loader] == whole


@pytest.mark.parametrize("engine", ["cpu", "dali"])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_any_prefetch_depth_gives_the_same_batches(
    engine: str, depth: int, tiny_dataset: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset:
        epochs = []
        for prefetch_depth in (2, depth):
            with loader_of(dataset, engine=engine, prefetch_depth=prefetch_depth) as loader:
                epochs.append([(batch.keys, batch.images.clone()) for batch in loader])
        assert len(epochs[0]) == 5
        for (keys, images), (other_keys, other) in zip(*epochs, strict=True):
            assert keys == other_keys and torch.equal(images, other)


def test_a_sample_that_is_met_twice_counts_once() -> None:
    policy = DamagePolicy("skip", 200)
    error = DamagedMemberError(
        "bad", shard="flow-000000.tar", offset=512, member="a.flow-000.jpg", key="a"
    )
    for position in (7, 7, 8, 7):
        policy.report(error, position=position)
    assert len(policy.errors) == 2


def test_a_missing_tar_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_dataset, tmp_path / "broken")
    (tmp_path / "broken" / "flow-000000.tar").unlink()
    with open_dataset(tmp_path / "broken") as dataset:
        loader = loader_of(dataset, on_error="skip")
        with loader, pytest.raises(DatasetError, match=r"flow-000000\.tar"):
            list(loader)


def test_a_stream_that_was_not_built_is_named(build_tiny: object) -> None:
    folder = build_tiny(codec="jpg", frames="last", streams=("rgb",))  # type: ignore[operator]
    with (
        open_dataset(folder) as dataset,
        pytest.raises(InputError, match="has no flow stream, expected one of rgb"),
    ):
        loader_of(dataset)
