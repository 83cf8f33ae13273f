"""What the cpu engine copies to a GPU, on a fake one that runs everything as late as it may."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from pipelines.reading import Reading
from pipelines.views import make_view_loader
from tests.pipelines.fake_cuda import FakeCuda
from tests.pipelines.flat_loader import loader_of


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_busy_gpu_sees_every_batch_and_the_host_never_waits_for_it(
    depth: int, tiny_dataset: Path, cuda: FakeCuda
) -> None:
    """The computation runs only after two epochs were queued, and then on the right pixels, labels
    and marks of validity."""
    with open_dataset(tiny_dataset) as dataset:
        with loader_of(dataset, prefetch_depth=depth) as loader:
            expected = [
                (int(batch.images.sum()), batch.labels.tolist(), batch.valid.tolist())
                for _ in range(2)
                for batch in loader
            ]
        found = []
        with loader_of(dataset, prefetch_depth=depth, device="cuda") as loader:
            next(iter(loader))  # a loop that is left leaves copies in progress behind
            loader.set_epoch(0)
            for _ in range(2):
                for batch in loader:
                    cuda.compute.enqueue(
                        lambda batch=batch: found.append(
                            (int(batch.images.sum()), batch.labels.tolist(), batch.valid.tolist())
                        )
                    )
            assert not found, "the host waited for the computation"
            cuda.compute.synchronize()
    assert found == expected
    assert cuda.num_unpinned == 0
    assert len(cuda.recorded) == 1 + len(expected) and set(cuda.recorded) == {cuda.compute}


def test_the_next_batch_is_copied_while_one_is_computed(
    tiny_dataset: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Threads that are always as far as they can be: whoever asks waits for them.
    monkeypatch.setattr(Future, "done", lambda future: future.exception() is None)
    pixels = 6 * 10 * 224 * 224
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset, device="cuda") as loader:
        for number, _ in zip(range(1, 4), loader, strict=False):
            assert cuda.copied_bytes.count(pixels) == number + 1


def test_views_go_through_pinned_memory(raw_dataset: Path, cuda: FakeCuda) -> None:
    rows = np.array([5, 0, 9])
    with open_dataset(raw_dataset) as dataset:
        found = []
        for device in ("cpu", "cuda"):
            reading = Reading(dtype=torch.uint8, device=device)
            with make_view_loader(
                dataset, "flow", rows=rows, batch_size=2, reading=reading
            ) as loader:
                batches = list(loader)
            cuda.compute.synchronize()
            found.append([(int(b.images.sum()), b.labels.tolist()) for b in batches])
    assert found[0] == found[1]
    assert cuda.num_unpinned == 0 and len(cuda.copied_bytes) == 4
