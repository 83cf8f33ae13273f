"""make_loader: ranks, epochs, short sequences, any prefetch depth, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from shard_builder.errors import InputError
from tests.pipelines.flat_loader import ENGINES, NUM, loader_of

LONG = 10


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


@pytest.mark.parametrize("engine", ENGINES)
def test_each_loop_is_the_next_epoch_in_another_order(engine: str, tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset, engine=engine) as loader:
        orders = []
        for epoch in range(3):
            batches = [(batch.epoch, batch.keys) for batch in loader]
            assert {number for number, _ in batches} == {epoch} == {loader.epoch}
            assert len(batches) == len(loader) == 5 and loader.position == NUM
            orders.append([key for _, keys in batches for key in keys])
        loader.set_epoch(1)
        assert [key for batch in loader for key in batch.keys] == orders[1]
    assert all(sorted(order) == sorted(dataset_keys(orders[0])) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def dataset_keys(order: list[str]) -> list[str]:
    assert len(set(order)) == NUM
    return order


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loop_that_was_left_does_not_shorten_the_next(engine: str, tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset, engine=engine) as loader:
        loader.set_epoch(1)
        expected = [batch.keys for batch in loader]
        loader.set_epoch(0)
        for _ in loader:
            break
        assert [batch.keys for batch in loader] == expected


def test_a_mask_of_rows_takes_its_true_rows(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset:
        mask = dataset.labels == 2
        with loader_of(dataset, rows=mask, training=False, batch_size=2) as loader:
            keys = [key for batch in loader for key in batch.keys]
        assert keys == [key for key, wanted in zip(dataset.keys, mask, strict=True) if wanted]
        with loader_of(dataset, rows=None, training=False, batch_size=2) as loader:
            assert loader.num_samples == len(dataset)


def test_a_string_is_no_list_of_keys(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, pytest.raises(InputError, match="several keys"):
        dataset.rows_of(dataset.keys[0])


def test_rows_and_keys_are_not_taken_for_each_other(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset:
        with pytest.raises(InputError, match="keys: 3 is no key"):
            dataset.rows_of([3])  # type: ignore[list-item]
        mask = dataset.labels == 2
        wanted = tuple(dataset.keys[row] for row in np.flatnonzero(mask))
        assert dataset.keys_of(mask) == wanted  # type: ignore[arg-type]
        with pytest.raises(InputError, match="dtype float64"):
            dataset.keys_of(np.array([0.5]))  # type: ignore[arg-type]


def test_numpys_numbers_give_a_state_of_plain_values(tiny_dataset: Path) -> None:
    options = {"batch_size": np.int64(7), "seed": np.uint64(3), "stack_length": np.int64(2)}
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset, **options) as loader:
        loader.set_epoch(np.int64(2))  # type: ignore[arg-type]
        next(iter(loader))
        assert json.loads(json.dumps(loader.state_dict()))["position"] == 7


@pytest.mark.parametrize("engine", ENGINES)
def test_a_clone_stays_when_the_buffers_are_used_again(engine: str, tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset, engine=engine) as loader:
        clones = [batch.clone() for batch in loader]
        sums = [clone.images.sum().item() for clone in clones]
        loader.set_epoch(0)
        assert [batch.images.sum().item() for batch in loader] == sums
        assert [clone.images.sum().item() for clone in clones] == sums
        assert all(
            clone.images.is_contiguous(memory_format=torch.channels_last) for clone in clones
        )


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
        ({"batch_size": 29}, "batch_size=29, but the training part has 28"),
        ({"batch_size": 5, "world_size": 2}, "batch_size=5, expected a multiple of the 2 ranks"),
        ({"stack_length": 99}, "stack_length=99, but the longest sequence has"),
        ({"stack_length": 0}, "stack_length=0, expected an integer from 1"),
        ({"engine": "ffcv"}, "engine='ffcv', expected one of auto, dali, cpu"),
        ({"cache": "disk"}, "cache='disk'"),
        ({"augmentation": "none"}, "augmentation='none'"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"dtype": torch.int64}, "dtype=torch.int64"),
        ({"prefetch_depth": 0}, "prefetch_depth=0"),
        ({"rank": 2, "world_size": 2}, "rank=2, expected an integer from 0 to 1"),
        ({"device": "cuda:99"}, "device='cuda:99', but torch finds"),
        ({"device": "mps"}, "device='mps', expected cpu or cuda"),
        (
            {"rows": np.array([3, 4, 5, 6, 7, 8, 999])},
            "rows 3 to 999, but the dataset has rows 0 to",
        ),
        ({"batch_size": 10.0}, "batch_size=10.0, expected an integer"),
        ({"batch_size": True}, "batch_size=True, expected an integer"),
        ({"num_threads": -1}, "num_threads=-1, expected an integer from 1"),
        ({"seed": 1 << 64}, "seed=18446744073709551616, expected an integer from 0 to"),
        ({"seed": -1}, "seed=-1"),
        ({"stream": "optical"}, "stream='optical', expected one of rgb, flow"),
        ({"device": "gpu"}, "device='gpu', expected cpu or cuda"),
        ({"rows": np.array([0.5, 1.5])}, "dtype float64, expected row numbers"),
        ({"rows": np.ones(5, bool)}, r"rows of shape \(5,\) and dtype bool"),
        ({"rows": ["S001_001"]}, "expected row numbers"),
        ({"rows": np.array([-1, 2])}, "rows -1 to 2"),
        ({"cache_bytes": -1}, "cache_bytes=-1"),
        ({"training": "val"}, "training='val', expected True or False"),
        ({"batch_size": np.bool_(True)}, "batch_size=.*True.*, expected an integer"),
        ({"stream": "rgb", "rgb_apex_frames": 90}, "rgb_apex_frames=90, expected 1 to"),
    ],
)
def test_what_does_not_fit_is_named(
    options: dict[str, object], words: str, tiny_dataset: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset, pytest.raises(InputError, match=words):
        loader_of(dataset, **options)


def test_a_closed_loader_says_so(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset:
        loader = loader_of(dataset)
        loader.close()
        loader.close()
        with pytest.raises(RuntimeError, match="closed"):
            next(iter(loader))


@pytest.mark.parametrize("engine", ENGINES)
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


def test_a_stream_that_was_not_built_is_named(build_tiny: object) -> None:
    folder = build_tiny(codec="jpg", frames="last", streams=("rgb",))  # type: ignore[operator]
    with (
        open_dataset(folder) as dataset,
        pytest.raises(InputError, match="has no flow stream, expected one of rgb"),
    ):
        loader_of(dataset)
