"""Batches of a dataset in a store, for the tests that compare them with a folder's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shard_builder.cloud.store as store_module
from pipelines import Batch, Dataset, Reading, Sampling, make_loader
from tests.object_server import ObjectServer, serving

Batches = list[tuple[np.ndarray, np.ndarray, tuple[str, ...]]]
ENGINES: dict[str, dict[str, Any]] = {
    "cpu": {"engine": "cpu"},
    "dali": {"engine": "dali"},
    "resident": {"engine": "auto", "cache": "device"},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(store_module, "LONGEST_PAUSE_S", 0.002)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ObjectServer]:
    (tmp_path / "objects").mkdir()
    with serving(tmp_path / "objects") as running:
        yield running


def put(server: ObjectServer, dataset: Path, name: str = "bucket/faces") -> str:
    shutil.copytree(dataset, server.folder / name)
    return f"{server.url}/{name}"


def batches_of(
    dataset: Dataset,
    stream: str = "flow",
    *,
    epochs: int = 1,
    state: object = None,
    **words: object,
) -> Batches:
    names = ("engine", "cache", "read_ahead", "shard_cache", "shard_cache_bytes")
    reading = {name: words.pop(name) for name in names if name in words}
    options = {"training": True, "batch_size": 6, "sampling": Sampling(stack_length=3)}
    options |= {"rows": np.arange(len(dataset))[::2]} | words
    reading = Reading(dtype=torch.uint8, num_threads=2, **{"engine": "cpu"} | reading)  # type: ignore[arg-type]
    with make_loader(dataset, stream, reading=reading, **options) as loader:  # type: ignore[arg-type]
        if state is not None:
            loader.load_state_dict(state)  # type: ignore[arg-type]
        return [kept(batch) for _ in range(epochs) for batch in loader]


def kept(batch: Batch) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    return batch.images.numpy().copy(), batch.labels.numpy().copy(), batch.keys


def assert_equal(found: Batches, expected: Batches) -> None:
    assert [keys for _, _, keys in found] == [keys for _, _, keys in expected]
    for (images, labels, _), (own_images, own_labels, _) in zip(found, expected, strict=True):
        assert np.array_equal(images, own_images) and np.array_equal(labels, own_labels)
