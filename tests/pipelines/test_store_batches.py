"""Every engine, codec, world size and resume point: a store gives the samples of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import (
    Batch,
    Dataset,
    Loader,
    Reading,
    Sampling,
    make_loader,
    make_view_loader,
    open_dataset,
)
from tests.conftest import BuildDataset
from tests.object_server import ObjectServer
from tests.pipelines.remote_batches import ENGINES, own_cache, put, server

__all__ = ["own_cache", "server"]

CODECS: dict[str, dict[str, str]] = {
    "raw": {"codec": "raw"},
    "jpg": {"codec": "jpg"},
    "png": {"codec": "png"},
    "lz4": {"codec": "jpg", "flow_codec": "lz4"},
}
NUM_ROWS, NUM_TAKEN = 21, 5
"""Rows of the dataset, which are an epoch; samples that are taken at least before the resume."""
Samples = dict[tuple[int, int], tuple[str, int, np.ndarray]]
"""Key, label and image by (epoch, position)."""


def loader_of(dataset: Dataset, stream: str, rank: int, world_size: int, **words: Any) -> Loader:
    return make_loader(
        dataset,
        stream,  # type: ignore[arg-type]
        training=True,
        batch_size=12 if world_size == 3 else 4,
        sampling=Sampling(stack_length=3),
        reading=Reading(dtype=torch.uint8, num_threads=1, **words),
        rank=rank,
        world_size=world_size,
    )


def add(samples: Samples, batch: Batch) -> None:
    """Note a batch's samples; none may come twice."""
    for number in np.flatnonzero(batch.valid.numpy()):
        place = (batch.epoch, int(batch.positions[number]))
        assert place not in samples
        image = batch.images[number].numpy().copy()
        samples[place] = batch.keys[number], int(batch.labels[number]), image


def samples_of(
    dataset: Dataset, stream: str, *, before: int = 1, after: int = 1, **words: Any
) -> Samples:
    """All samples of two epochs: some by one loader for each rank of a world, then, with a state
    in the middle of the first epoch, all others by those of another."""
    samples: Samples = {}
    states = []
    for rank in range(before):
        with loader_of(dataset, stream, rank, before, **words) as loader:
            for batch in loader:
                add(samples, batch)
                if loader.position >= NUM_TAKEN:
                    break
            states.append(loader.state_dict())
    assert all(state == states[0] for state in states) and 0 < states[0]["position"] < NUM_ROWS
    for rank in range(after):
        with loader_of(dataset, stream, rank, after, **words) as loader:
            loader.load_state_dict(states[0])
            for _ in range(2):
                for batch in loader:
                    add(samples, batch)
    return samples


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", CODECS)
def test_samples_are_those_of_the_folder(
    kind: str, engine: str, server: ObjectServer, build_small: BuildDataset, tmp_path: Path
) -> None:
    """From 1 to 4 ranks to another number of them: every engine meets each number on both sides."""
    folder, place = build_small(**CODECS[kind]), list(CODECS).index(kind)
    before, after = place + 1, (place + list(ENGINES).index(engine) + 1) % 4 + 1
    words = ENGINES[engine]
    with open_dataset(folder) as local, open_dataset(put(server, folder)) as remote:
        for stream in ("flow",) if kind == "lz4" else ("flow", "rgb"):
            expected = samples_of(local, stream, **words)
            assert expected.keys() == {(e, p) for e in range(2) for p in range(NUM_ROWS)}
            found = samples_of(remote, stream, before=before, after=after, **words)
            assert found.keys() == expected.keys()
            for at, (key, label, image) in expected.items():
                assert found[at][:2] == (key, label) and np.array_equal(found[at][2], image), at
    assert server.requests["GET", "manifest.json"] == server.requests["GET", "index.arrow"] == 1


@pytest.mark.parametrize("kind", CODECS)
def test_views_are_those_of_the_folder(
    kind: str, server: ObjectServer, build_small: BuildDataset
) -> None:
    folder, rows = build_small(**CODECS[kind]), np.arange(2)
    with open_dataset(folder) as local, open_dataset(put(server, folder)) as remote:
        for stream in ("flow", "rgb"):
            found, expected = (
                [batch.images.numpy() for batch in make_view_loader(dataset, stream, rows=rows)]
                for dataset in (remote, local)
            )
            assert expected and all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("kind", CODECS)
def test_a_filled_shard_cache_needs_no_request(
    kind: str, server: ObjectServer, build_small: BuildDataset, tmp_path: Path
) -> None:
    """Neither in the second epoch nor in the next run, of another engine."""
    folder, blocks = build_small(**CODECS[kind]), tmp_path / "blocks"
    address = put(server, folder)
    with open_dataset(folder) as local:
        expected = {name: samples_of(local, "flow", **words) for name, words in ENGINES.items()}
    for engine, words in ENGINES.items():
        with open_dataset(address) as remote:
            if engine == "cpu":
                with loader_of(remote, "flow", 0, 1, **words, shard_cache=blocks) as loader:
                    for _ in loader:
                        pass
                    assert server.ranges
                    server.ranges.clear()
                    for _ in loader:
                        pass
                    assert loader.epoch == 1 and not server.ranges
            found = samples_of(remote, "flow", **words, shard_cache=blocks)
        for at, (key, label, image) in expected[engine].items():
            assert found[at][:2] == (key, label) and np.array_equal(found[at][2], image), at
    assert not server.ranges
