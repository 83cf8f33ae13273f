"""The graph that DALI builds for a GPU, run by its CPU operators against the cpu engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import lz4.block
import numpy as np
import pytest
import torch
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

import pipelines.engines.dali_graph as graph
from pipelines.dataset import open_dataset
from pipelines.streams import KINDS
from tests.pipelines.fake_cuda import FakeCuda
from tests.pipelines.flat_loader import NUM, loader_of

DTYPES = [torch.uint8, torch.float32, torch.float16, torch.bfloat16]


class Notes:
    """What the graph and the engine asked of DALI."""

    def __init__(self) -> None:
        self.decoders: list[dict[str, Any]] = []
        self.sources: list[dict[str, Any]] = []
        self.run_streams: list[object] = []
        self.handover_streams: list[object] = []


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> Notes:
    """DALI's GPU operators are its CPU operators, ``.gpu()`` is nothing, and outputs say that they
    lie on a GPU."""
    notes = Notes()
    decode, feed = fn.decoders.image, fn.external_source

    def image(member: DataNode, *, device: str, **options: Any) -> DataNode:
        notes.decoders.append({"device": device, **options})
        return decode(member, device="cpu", **options)

    def inflate(member: DataNode, *, shape: list[int]) -> DataNode:
        def decode_block(data: np.ndarray) -> np.ndarray:
            block = lz4.block.decompress(data, uncompressed_size=math.prod(shape))
            return np.frombuffer(block, np.uint8).reshape(shape)

        return fn.python_function(member, function=decode_block)

    def external_source(**options: Any) -> Any:
        notes.sources.append(options)
        return feed(**options)

    class Output:
        def __init__(self, tensor: Any) -> None:
            self._tensor = tensor

        def as_tensor(self) -> Output:
            return self

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, stream: object = None, **options: Any) -> Any:
            notes.handover_streams.append(stream)
            return self._tensor.__dlpack__()

    class CpuPipeline(graph.Pipeline):  # type: ignore[misc]
        def __init__(self, *, device_id: int | None, **options: Any) -> None:
            assert device_id == 0
            super().__init__(**options, device_id=None)

        def run(self, stream: object = None) -> Any:
            notes.run_streams.append(stream)
            return tuple(Output(output.as_tensor()) for output in super().run())

    monkeypatch.setattr(DataNode, "gpu", lambda node: node)
    monkeypatch.setattr(fn.decoders, "image", image)
    monkeypatch.setattr(fn.decoders, "inflate", inflate)
    monkeypatch.setattr(fn, "external_source", external_source)
    monkeypatch.setattr(graph, "Pipeline", CpuPipeline)
    return notes


@pytest.fixture
def folder_of(
    build_tiny: Callable[..., Path], tiny_dataset: Path, raw_dataset: Path, lz4_dataset: Path
) -> Callable[[str], Path]:
    known = {"jpg": tiny_dataset, "raw": raw_dataset, "lz4": lz4_dataset}
    return lambda codec: known.get(codec) or build_tiny(codec=codec, shard_bytes=32 << 20)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cache", ["none", "ram"])
@pytest.mark.parametrize(
    ("codec", "stream"), [*product(("raw", "png", "jpg"), ("flow", "rgb")), ("lz4", "flow")]
)
def test_every_variant_gives_what_the_cpu_engine_gives(
    codec: str,
    stream: str,
    cache: str,
    dtype: torch.dtype,
    folder_of: Callable[[str], Path],
    notes: Notes,
    cuda: FakeCuda,
) -> None:
    options = {"stream": stream, "dtype": dtype, "batch_size": 8, "rgb_apex_frames": 2}
    with (
        open_dataset(folder_of(codec)) as dataset,
        loader_of(dataset, **options) as expected,
        loader_of(dataset, **options, engine="dali", device="cuda", cache=cache) as loader,
    ):
        # The cpu engine rounds to levels before it normalises, from 8-bit weights.
        one_level = 1 if dtype == torch.uint8 else 1.02 / 255 / min(KINDS[stream].deviation)
        rounding = 0 if dtype == torch.uint8 else 4 * torch.finfo(dtype).eps
        num = 0
        for _ in range(2):
            for wanted, batch in zip(expected, loader, strict=True):
                cuda.compute.synchronize()
                assert (batch.keys, batch.labels.tolist()) == (wanted.keys, wanted.labels.tolist())
                assert batch.images.dtype == dtype
                assert batch.images.is_contiguous(memory_format=torch.channels_last)
                apart = (batch.images.float() - wanted.images.float()).abs()
                assert apart.max() <= one_level + rounding
                assert apart.mean() <= 0.15 * one_level + rounding
                num += len(batch.keys)
        assert num == 2 * NUM
    assert set(notes.run_streams) == {cuda.compute}
    assert set(notes.handover_streams) == {-1}, "DALI orders by run() alone"
    assert notes.sources[-1]["no_copy"] is True
    assert cuda.num_unpinned == 0 and max(cuda.copied_bytes) <= 8 * 8, "torch copies labels only"


@pytest.mark.parametrize(
    ("codec", "stream"), [("jpg", "flow"), ("lz4", "flow"), ("raw", "flow"), ("jpg", "rgb")]
)
def test_strong_is_that_of_the_cpu_engine(
    codec: str, stream: str, folder_of: Callable[[str], Path], notes: Notes, cuda: FakeCuda
) -> None:
    options = {"stream": stream, "batch_size": 8, "augmentation": "strong", "num": 8}
    with (
        open_dataset(folder_of(codec)) as dataset,
        loader_of(dataset, **options) as expected,
        loader_of(dataset, **options, engine="dali", device="cuda") as loader,
    ):
        wanted, batch = next(iter(expected)).images, next(iter(loader)).images
        cuda.compute.synchronize()
        assert (batch.int() - wanted.int()).abs().max() <= 1
    assert notes.sources[-1]["no_copy"] is True


@pytest.mark.parametrize(("stream", "num_decoders"), [("flow", 5), ("rgb", 1)])
def test_nvjpeg_takes_a_quarter_of_a_gigabyte_at_most(
    stream: str, num_decoders: int, tiny_dataset: Path, notes: Notes
) -> None:
    """By its defaults two pipelines of five decoders and 16 threads take 2.5 GiB of each kind."""
    with open_dataset(tiny_dataset) as dataset:
        for training in (True, False):
            options = {"engine": "dali", "device": "cuda", "num_threads": 16}
            loader_of(dataset, stream=stream, training=training, **options).close()
    assert len(notes.decoders) == 2 * num_decoders
    on_device, pinned = 0, 0
    for decoder in notes.decoders:
        assert decoder["device"] == "mixed"
        on_device += 16 * decoder["device_memory_padding"]
        pinned += 2 * 16 * decoder["host_memory_padding"]  # nvJPEG doubles its host buffers
        shape = (2 * 256, 340) if stream == "flow" else (256, 340, 3)
        assert decoder["device_memory_padding"] >= 3 * math.prod(shape)
    assert on_device <= 256 << 20 and pinned <= 512 << 20


@pytest.mark.parametrize(("codec", "no_copy"), [("raw", False), ("jpg", True)])
def test_dali_copies_only_what_is_written_again(
    codec: str, no_copy: bool, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU raw windows are cut into buffers that the next batch uses again."""
    fed = []
    feed = fn.external_source
    monkeypatch.setattr(fn, "external_source", lambda **o: fed.append(o) or feed(**o))
    with open_dataset(folder_of(codec)) as dataset:
        loader_of(dataset, engine="dali").close()
    assert [options["no_copy"] for options in fed] == [no_copy]
