"""States: exact at any step, at any world size, in any process; what is foreign is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from shard_builder.errors import InputError
from tests.pipelines.flat_loader import ENGINES, NUM, loader_of


@pytest.mark.parametrize("engine", ENGINES)
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


def test_balanced_classes_resume_and_are_the_same_on_any_number_of_ranks(
    tiny_dataset: Path,
) -> None:
    with open_dataset(tiny_dataset) as dataset:
        few = np.flatnonzero((dataset.labels < 2) | (np.arange(len(dataset)) % 5 == 0))
        options: dict[str, Any] = {"rows": few, "class_frequencies": "balanced"}
        with loader_of(dataset, **options) as loader:
            loader.set_epoch(2)
            batches, states = [], []
            for batch in loader:
                batches.append(list(batch.keys))
                states.append(loader.state_dict())
        keys = [key for batch in batches for key in batch]
        rows = dataset.rows_of(keys)
        counts = np.bincount(dataset.labels[rows])
        natural = np.bincount(dataset.labels[few])
        assert np.ptp(counts[natural > 0]) <= 1 < np.ptp(natural[natural > 0])
        for step, state in enumerate(states):
            with loader_of(dataset, **options) as loader:
                loader.load_state_dict(state)
                assert [list(batch.keys) for batch in loader] == batches[step + 1 :]
        parts = []
        for rank in range(2):
            with loader_of(dataset, rank=rank, world_size=2, **options) as loader:
                loader.set_epoch(2)
                parts.append([list(b.keys[: int(b.valid.sum())]) for b in loader])
        assert [one + other for one, other in zip(*parts, strict=True)] == batches
        with loader_of(dataset, rows=few) as loader, pytest.raises(InputError, match="fingerprint"):
            loader.load_state_dict(states[0])


def test_a_state_loads_in_another_process_at_another_world_size(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset) as loader:
        loader.set_epoch(1)
        iterator = iter(loader)
        next(iterator)
        state = loader.state_dict()
        rest = [list(batch.keys) for batch in iterator]
    program = f"""
import json, torch
from pipelines import Reading, Sampling, make_loader, open_dataset
dataset = open_dataset({str(tiny_dataset)!r})
parts = []
for rank in range(3):
    loader = make_loader(dataset, "flow", rows=dataset.rows_of(dataset.keys[:{NUM}]), training=True,
                         batch_size=6, sampling=Sampling(seed=4), reading=Reading(engine="cpu"),
                         rank=rank, world_size=3)
    loader.load_state_dict(json.loads({json.dumps(json.dumps(state))}))
    parts.append([[k for k, v in zip(b.keys, b.valid.tolist()) if v] for b in loader])
    loader.close()
print(json.dumps([sum(step, []) for step in zip(*parts)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == rest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 5}, "has seed 5, expected 4"),
        ({"plan_version": 0}, "has plan_version 0"),
        ({"num_samples": 27}, "has num_samples 27"),
        ({"fingerprint": "0"}, "has fingerprint 0"),
        ({"position": 99}, "has position 99 .* expected a position of 0 to 28"),
        ({"position": 2.5}, "position=2.5, expected an integer"),
        ({"position": None}, "position=None, expected an integer"),
        ({"epoch": "one"}, "epoch='one', expected an integer"),
        ({"epoch": -1}, "epoch=-1"),
        ({"more": 1}, "expected a dict with plan_version"),
    ],
)
def test_a_foreign_state_is_refused(
    change: dict[str, object], words: str, tiny_dataset: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset) as loader:
        with pytest.raises(InputError, match=words):
            loader.load_state_dict(loader.state_dict() | change)
        for malformed in ({}, None, [1], "state", {"position": 3}):
            with pytest.raises(InputError, match="expected a dict with plan_version"):
                loader.load_state_dict(malformed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": np.arange(1, 29)},
        {"stream": "rgb"},
        {"stack_length": 4},
        {"augmentation": "original"},
        {"augmentation": "strong"},
        {"training": False},
    ],
)
def test_a_state_of_other_samples_is_refused(change: dict[str, object], tiny_dataset: Path) -> None:
    """The number of samples and the seed are the same; what they are is not."""
    with open_dataset(tiny_dataset) as dataset:
        with loader_of(dataset) as loader:
            state = loader.state_dict()
        with (
            loader_of(dataset, **change) as other,
            pytest.raises(InputError, match="saved with another dataset, stream, split"),
        ):
            other.load_state_dict(state)


def test_a_dataset_that_was_moved_is_the_same(tiny_dataset: Path, tmp_path: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset) as loader:
        batches = iter(loader)
        next(batches)
        state, following = loader.state_dict(), next(batches).keys
    shutil.copytree(tiny_dataset, tmp_path / "elsewhere")
    with open_dataset(tmp_path / "elsewhere") as dataset, loader_of(dataset) as loader:
        loader.load_state_dict(state)
        assert next(iter(loader)).keys == following


def test_a_state_at_the_very_end_of_an_epoch_gives_an_empty_rest(tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset:
        with loader_of(dataset) as loader:
            for _ in loader:
                pass
            state = loader.state_dict()
            following = [batch.keys for batch in loader]
        with loader_of(dataset) as loader:
            loader.load_state_dict(state)
            assert list(loader) == [] and (loader.epoch, loader.position) == (0, NUM)
            assert [batch.keys for batch in loader] == following and loader.epoch == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_there_is_one_iteration_at_a_time(engine: str, tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset, engine=engine) as loader:
        whole = [[batch.keys for batch in loader] for _ in range(2)]
        loader.set_epoch(0)
        first = iter(loader)
        assert next(first).keys == whole[0][0]
        second = iter(loader)
        assert list(first) == [], "a new iteration ends the old one"
        assert [batch.keys for batch in second] == whole[1]
        loader.set_epoch(0)
        third = iter(loader)
        next(third)
        loader.set_epoch(0)
        assert list(third) == [], "so does a jump"
        assert [batch.keys for batch in loader] == whole[0]
