"""Samples a second of the engines, beside the usual PNG tree and this machine's ceilings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from pipelines.dataset import Dataset
from pipelines.engines.planes import open_planes
from pipelines.loader import make_loader
from pipelines.plan.sampling import Sampling
from pipelines.reading import Cache, EngineName, Reading, has_dali
from pipelines.streams import kind_of
from pipelines.throughput.png_tree import PngTree, make_png_loader, write_png_tree
from pipelines.throughput.turns import Contender, machine_facts, measure_in_turns, spread
from shard_builder.checks import check_integer, check_number
from shard_builder.format.streams import StreamName
from shard_builder.provenance import package_versions

MIN_REPEATS = 5
MIN_EPOCH_SAMPLES = 512
TREE_SAMPLES = 64


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRecord:
    """One line of the result; ``samples_per_s`` is a :func:`spread`."""

    name: str
    engine: str
    stream: str
    codec: str
    dtype: str
    batch_size: int
    threads: int
    samples_per_s: dict[str, Any]
    machine: dict[str, str | int | None]
    versions: dict[str, str | None]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


def run_bench(
    dataset: Dataset,
    options: BenchOptions,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[BenchRecord]:
    """Measure everything that this machine has, in turns.

    ``raw`` planes and cached ones need no decoding, so only ``jpg`` and ``png`` have a decode-only
    ceiling.

    Raises:
        InputError: If the dataset does not have a stream or is too small for a batch.
    """
    records = []
    for number, stream in enumerate(options.streams):
        with ExitStack() as stack:
            contenders = [
                stack.enter_context(context) for context in _contenders(dataset, stream, options)
            ]
            rates = measure_in_turns(
                contenders,
                repeats=options.repeats,
                seconds=options.seconds,
                on_progress=lambda done, total, number=number: on_progress(  # type: ignore[misc]
                    number * total + done, len(options.streams) * total
                ),
            )
            records += [
                _record(contender, stream, rates[contender.name], options)
                for contender in contenders
            ]
    return records


def _contenders(dataset: Dataset, stream: StreamName, options: BenchOptions) -> Iterator[Any]:
    codec = dataset.stream(stream).codec
    yield _png_tree(dataset, stream, options)
    yield _loader(dataset, stream, "cpu", "cpu", "none", options)
    if codec != "raw":
        yield _loader(dataset, stream, "cpu", "cpu", "ram", options)
    if has_dali():
        yield _loader(dataset, stream, "dali", "cpu", "none", options)
    if options.device != "cpu":
        yield _loader(dataset, stream, "cpu", options.device, "none", options)
        yield _loader(dataset, stream, "dali", options.device, "none", options)
    if codec != "raw":
        yield _ceiling(dataset, stream, options, with_decoding=True)
    yield _ceiling(dataset, stream, options, with_decoding=False)


@contextmanager
def _loader(
    dataset: Dataset,
    stream: StreamName,
    engine: EngineName,
    device: str,
    cache: Cache,
    options: BenchOptions,
) -> Iterator[Contender]:
    rows = np.arange(len(dataset), dtype=np.int64)
    rows = np.tile(rows, -(-max(MIN_EPOCH_SAMPLES, options.batch_size) // len(rows)))
    with make_loader(
        dataset,
        stream,
        rows=rows,
        training=True,
        batch_size=options.batch_size,
        sampling=Sampling(stack_length=options.stack_length),
        reading=Reading(
            engine=engine,
            device=device,
            dtype=options.dtype,
            num_threads=options.num_threads,
            cache=cache,
        ),
    ) as loader:

        def run_epoch(epoch: int) -> int:
            # Each loop is the next epoch, read ahead over the border as in training.
            num_samples = sum(len(batch.keys) for batch in loader)
            if device != "cpu":
                torch.cuda.synchronize(device)
            return num_samples

        kind = "cpu" if device == "cpu" else "gpu"
        name = {
            "dali": f"dali on the {kind}",
            "cpu": "cpu" if kind == "cpu" else "cpu, to the gpu",
        }[engine]
        yield Contender(
            name=name + (", cached" if cache == "ram" else ""),
            engine=engine,
            codec=dataset.stream(stream).codec,
            dtype=str(options.dtype).removeprefix("torch."),
            run_epoch=run_epoch,
            end_turn=loader._stop_reading,
        )


@contextmanager
def _png_tree(dataset: Dataset, stream: StreamName, options: BenchOptions) -> Iterator[Contender]:
    reader = open_planes(dataset, kind_of(stream), stack_length=options.stack_length)
    with tempfile.TemporaryDirectory(prefix="ckshard-bench-") as folder:
        samples = write_png_tree(reader, Path(folder), num_samples=min(TREE_SAMPLES, len(dataset)))
        length = max(TREE_SAMPLES, options.batch_size * options.num_threads)
        tree = PngTree(samples, reader.kind, size=(reader.width, reader.height), length=length)
        loader = make_png_loader(
            tree, batch_size=options.batch_size, num_workers=options.num_threads
        )
        yield Contender(
            name="png tree, DataLoader",
            engine="png-tree",
            codec="png",
            dtype="uint8",
            run_epoch=lambda epoch: sum(len(images) for images in loader),
        )


@contextmanager
def _ceiling(
    dataset: Dataset, stream: StreamName, options: BenchOptions, *, with_decoding: bool
) -> Iterator[Contender]:
    """Threads that only decode windows, or only copy the planes of decoded ones."""
    codec = dataset.stream(stream).codec
    reader = open_planes(dataset, kind_of(stream), stack_length=options.stack_length)
    num_rows, num_threads = len(dataset), options.num_threads
    kept = (
        []
        if with_decoding
        else [reader.window(row, 0) for row in range(min(num_rows, TREE_SAMPLES))]
    )
    targets = [
        np.empty((reader.num_channels, reader.height, reader.width), np.uint8)
        for _ in range(num_threads)
    ]

    def work(part: int) -> int:
        for number in range(part, MIN_EPOCH_SAMPLES, num_threads):
            if with_decoding:
                reader.window(number % num_rows, 0)
                continue
            target = targets[part]
            np.copyto(target.reshape(reader.shape), kept[number % len(kept)])
        return len(range(part, MIN_EPOCH_SAMPLES, num_threads))

    cv2.setNumThreads(1)
    with ThreadPoolExecutor(num_threads, thread_name_prefix="ckshard-bench") as pool:
        yield Contender(
            name="ceiling: decoding alone" if with_decoding else "ceiling: copying alone",
            engine="decode-only" if with_decoding else "copy-only",
            codec=codec,
            dtype="uint8",
            run_epoch=lambda epoch: sum(pool.map(work, range(num_threads))),
        )


def _record(
    contender: Contender, stream: str, rates: list[float], options: BenchOptions
) -> BenchRecord:
    return BenchRecord(
        name=contender.name,
        engine=contender.engine,
        stream=stream,
        codec=contender.codec,
        dtype=contender.dtype,
        batch_size=options.batch_size,
        threads=options.num_threads,
        samples_per_s=spread(rates),
        machine=machine_facts(),
        versions=package_versions(),
    )
