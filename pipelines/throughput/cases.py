"""The loaders that are measured: engines, caches and devices that a machine and a codec allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pipelines.dataset import Dataset
from pipelines.loader import Loader, make_loader
from pipelines.plan.permutation import Int64
from pipelines.plan.sampling import Sampling
from pipelines.reading import Cache, Reading, has_dali
from shard_builder.checks import check_integer, check_number
from shard_builder.format.streams import StreamName

MIN_REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to measure.

    Args:
        streams: Streams of the dataset.
        batch_size: Samples of a batch.
        stack_length: Flow pairs of a sample.
        num_threads: Threads of the engines, and worker processes of the PNG tree.
        dtype: Of the engines' images.
        device: Where ``dali`` and ``cpu`` hand batches over; with CUDA both also run on the CPU.
        repeats: Measurements of each, at least 5.
        seconds: Least duration of a measurement.
    """

    streams: tuple[StreamName, ...]
    batch_size: int = 32
    stack_length: int = 5
    num_threads: int = 2
    dtype: torch.dtype = torch.uint8
    device: str = "cpu"
    repeats: int = MIN_REPEATS
    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_integer("repeats", self.repeats, low=MIN_REPEATS, high=10_000)
        check_integer("threads", self.num_threads, low=1, high=4096)
        check_integer("batch_size", self.batch_size, low=1, high=1 << 24)
        check_number("seconds", self.seconds, low=0, high=3600)

    @property
    def dtype_name(self) -> str:
        """The dtype without torch's name."""
        return str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderCase:
    """A loader to measure.

    Args:
        name: For the table.
        engine: ``cpu``, ``dali``, or ``resident``: planes on the device, cut there.
        device: Where batches go.
        cache: ``ram`` keeps decoded planes.
    """

    name: str
    engine: Literal["cpu", "dali", "resident"]
    device: str
    cache: Cache = "none"

    def open(
        self, dataset: Dataset, stream: StreamName, rows: Int64, options: BenchOptions
    ) -> Loader:
        """Make the loader, in training, of some rows."""
        return make_loader(
            dataset,
            stream,
            rows=rows,
            training=True,
            batch_size=options.batch_size,
            sampling=Sampling(stack_length=options.stack_length),
            reading=Reading(
                engine="auto" if self.engine == "resident" else self.engine,
                device=self.device,
                dtype=options.dtype,
                num_threads=options.num_threads,
                cache=self.cache,
            ),
        )


def loader_cases(codec: str, device: str) -> list[LoaderCase]:
    """List the loaders of a stream; raw planes need no decoding, so caching them does nothing."""
    cases = [LoaderCase(name="cpu", engine="cpu", device="cpu")]
    if codec != "raw":
        cases.append(LoaderCase(name="cpu, cached", engine="cpu", device="cpu", cache="ram"))
    if has_dali():
        cases.append(LoaderCase(name="dali on the cpu", engine="dali", device="cpu"))
    if device != "cpu":
        cases += [
            LoaderCase(name="cpu, to the gpu", engine="cpu", device=device),
            LoaderCase(name="dali on the gpu", engine="dali", device=device),
            LoaderCase(name="planes on the gpu", engine="resident", device=device, cache="device"),
        ]
    return cases
