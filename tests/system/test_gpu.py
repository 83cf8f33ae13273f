"""The engines on a GPU against the cpu engine on the CPU; they skip without a GPU, and fail without
one under REQUIRE_GPU=1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.dataset import Dataset, open_dataset
from pipelines.loader import Loader
from tests.pipelines.flat_loader import ENGINES, flat_loader

pytestmark = pytest.mark.gpu

# Levels: the two resizes round differently by one; nvJPEG's inverse DCT is not libjpeg-turbo's, and
# colour adds its own conversion.
TOLERANCE = {
    ("raw", "flow"): 1,
    ("raw", "rgb"): 1,
    ("png", "flow"): 1,
    ("lz4", "flow"): 1,
    ("jpg", "flow"): 4,
    ("jpg", "rgb"): 8,
}


def loader_of(dataset: Dataset, *, engine: str, device: str, **options: object) -> Loader:
    arguments: dict[str, object] = {
        "stream": "flow",
        "training": True,
        "batch_size": 8,
        "seed": 9,
        "dtype": torch.uint8,
    }
    arguments |= {"rows": dataset.rows_of(dataset.keys[:20])}
    return flat_loader(dataset, engine=engine, device=device, **(arguments | options))  # type: ignore[arg-type]


def epochs(loader: Loader, num: int = 2) -> list[tuple[tuple[str, ...], list[int], torch.Tensor]]:
    batches = []
    for _ in range(num):
        batches += [
            # A copy even of float32 on the CPU: its buffer is written again.
            (batch.keys, batch.labels.tolist(), batch.images.to("cpu", torch.float32, copy=True))
            for batch in loader
        ]
    return batches


@pytest.mark.parametrize("batch_size", [8, 1])
@pytest.mark.parametrize(("codec", "stream"), list(TOLERANCE))
@pytest.mark.parametrize("engine", ENGINES)
def test_a_gpu_gives_what_the_cpu_gives(
    engine: str,
    codec: str,
    stream: str,
    batch_size: int,
    build_tiny: object,
    tiny_dataset: Path,
    raw_dataset: Path,
    lz4_dataset: Path,
) -> None:
    folders = {"jpg": tiny_dataset, "raw": raw_dataset, "lz4": lz4_dataset}
    folder = folders.get(codec) or build_tiny(codec=codec, shard_bytes=32 << 20)  # type: ignore[operator]
    with open_dataset(folder) as dataset:
        options = {"stream": stream, "batch_size": batch_size}
        with loader_of(dataset, engine="cpu", device="cpu", **options) as loader:
            expected = epochs(loader)
        with loader_of(dataset, engine=engine, device="cuda", **options) as loader:
            found = epochs(loader)
    # Planes in device memory were decoded on the CPU, so only the resize differs.
    allowed = {"cpu": 0, "resident": 1, "dali": TOLERANCE[codec, stream]}[engine]
    for (keys, labels, images), (other_keys, other_labels, other) in zip(
        expected, found, strict=True
    ):
        assert (keys, labels) == (other_keys, other_labels)
        assert (images - other).abs().max() <= allowed
        assert (images - other).abs().mean() <= 0.15 * allowed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("engine", ENGINES)
def test_floats_are_channels_last_on_the_gpu(
    engine: str, dtype: torch.dtype, raw_dataset: Path
) -> None:
    with open_dataset(raw_dataset) as dataset:
        with loader_of(dataset, engine="cpu", device="cpu", dtype=torch.float32) as loader:
            expected = epochs(loader, 1)
        with loader_of(dataset, engine=engine, device="cuda", dtype=dtype) as loader:
            for (keys, _, images), batch in zip(expected, loader, strict=True):
                assert (
                    batch.images.device.type
                    == batch.labels.device.type
                    == batch.valid.device.type
                    == "cuda"
                )
                assert batch.images.dtype == dtype
                assert batch.images.is_contiguous(memory_format=torch.channels_last)
                assert batch.keys == keys
                # The cpu engine rounds to levels before it normalises, from 8-bit weights.
                one_level = 1.02 / 255 / 0.226
                assert (
                    batch.images.cpu().float() - images
                ).abs().max() <= one_level + 4 * torch.finfo(dtype).eps


def test_dali_hands_over_half_precision_without_a_copy(raw_dataset: Path) -> None:
    """torch's own allocator does not grow: the batch is DALI's memory."""
    with open_dataset(raw_dataset) as dataset:
        with loader_of(dataset, engine="dali", device="cuda", dtype=torch.float16) as loader:
            iterator = iter(loader)
            first = next(iterator).images.sum().item()
            before = torch.cuda.memory_allocated()
            batch = next(iterator)
            grown = torch.cuda.memory_allocated() - before
        assert first == first and grown < batch.images.nbytes / 4


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16])
@pytest.mark.parametrize("engine", ENGINES)
def test_batches_keep_their_values_while_the_gpu_is_busy(
    engine: str, dtype: torch.dtype, raw_dataset: Path
) -> None:
    """Sums that are queued behind long work see their own batch, not one that was written over
    it."""
    with open_dataset(raw_dataset) as dataset:
        options = {"rows": dataset.rows_of(dataset.keys * 2), "batch_size": 4, "dtype": dtype}
        with loader_of(dataset, engine="cpu", device="cpu", **options) as loader:
            expected = [float(batch.images.sum(dtype=torch.float64)) for batch in loader]
        busy = torch.rand(4096, 4096, device="cuda")
        sums = []
        with loader_of(dataset, engine=engine, device="cuda", **options) as loader:
            for batch in loader:
                for _ in range(20):
                    busy = torch.tanh(busy @ busy)
                sums.append(batch.images.sum(dtype=torch.float64))
                del batch
            found = [float(value) for value in sums]
    # A fiftieth of a level in the mean, where resizes round differently; the cpu engine's own
    # pixels are only summed in another order.
    level = 1.0 if dtype == torch.uint8 else 1 / 255 / 0.226
    tolerance = (1e-6 if engine == "cpu" else 0.02) * level * 4 * 10 * 224 * 224
    assert all(abs(a - b) <= tolerance for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_dali_takes_cached_planes(stream: str, tiny_dataset: Path) -> None:
    """Planes kept in memory were decoded on the CPU, so nvJPEG adds nothing to the tolerance."""
    with open_dataset(tiny_dataset) as dataset:
        with loader_of(dataset, engine="cpu", device="cpu", stream=stream) as loader:
            expected = epochs(loader)
        with loader_of(dataset, engine="dali", device="cuda", stream=stream, cache="ram") as loader:
            found = epochs(loader)
    for (keys, _, images), (other_keys, _, other) in zip(expected, found, strict=True):
        assert keys == other_keys and (images - other).abs().max() <= TOLERANCE["raw", stream]


@pytest.mark.parametrize("stream", ["flow", "rgb"])
@pytest.mark.parametrize("engine", ["dali", "cpu", "resident"])
def test_strong_on_a_gpu_is_that_of_the_cpu(engine: str, stream: str, raw_dataset: Path) -> None:
    options = {"stream": stream, "augmentation": "strong"}
    with open_dataset(raw_dataset) as dataset:
        with loader_of(dataset, engine="cpu", device="cpu", **options) as loader:
            expected = epochs(loader)
        with loader_of(dataset, engine=engine, device="cuda", **options) as loader:
            found = epochs(loader)
    for (keys, _, images), (other_keys, _, other) in zip(expected, found, strict=True):
        assert keys == other_keys and (images - other).abs().max() <= 1


def test_auto_takes_dali(raw_dataset: Path) -> None:
    from pipelines.engines.dali import DaliEngine

    with (
        open_dataset(raw_dataset) as dataset,
        loader_of(dataset, engine="auto", device="cuda") as loader,
    ):
        assert isinstance(loader._engine, DaliEngine)
