"""Samples a second of the engines, beside the usual PNG tree and this machine's ceilings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.dataset import Dataset
from pipelines.engines.cutter import CUTTER
from pipelines.engines.planes import open_planes
from pipelines.loader import Loader
from pipelines.streams import kind_of
from pipelines.throughput.cases import BenchOptions, LoaderCase, loader_cases
from pipelines.throughput.ceilings import EPOCH_SAMPLES, copying_alone, decoding_alone
from pipelines.throughput.png_tree import PngTree, make_png_loader, write_png_tree
from pipelines.throughput.turns import Contender, machine_facts, measure_in_turns, spread
from shard_builder.format.streams import StreamName
from shard_builder.provenance import package_versions

TREE_SAMPLES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRecord:
    """One line of the result; ``samples_per_s`` is a :func:`spread`, ``cutter`` cuts its crops."""

    name: str
    engine: str
    stream: str
    codec: str
    dtype: str
    batch_size: int
    threads: int
    cutter: str
    samples_per_s: dict[str, Any]
    machine: dict[str, str | int | None]
    versions: dict[str, str | None]


def run_bench(
    dataset: Dataset,
    options: BenchOptions,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
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
    codec, kind = dataset.stream(stream).codec, kind_of(stream)
    yield _png_tree(dataset, stream, options)
    for case in loader_cases(codec, options.device):
        yield _loader(case, dataset, stream, options)
    reader = open_planes(dataset, kind, stack_length=options.stack_length)
    if codec != "raw":
        yield decoding_alone(reader, len(dataset), num_threads=options.num_threads)
    yield copying_alone(reader, len(dataset), num_threads=options.num_threads)


@contextmanager
def _loader(
    case: LoaderCase, dataset: Dataset, stream: StreamName, options: BenchOptions
) -> Iterator[Contender]:
    rows = np.arange(len(dataset), dtype=np.int64)
    rows = np.tile(rows, -(-max(EPOCH_SAMPLES, options.batch_size) // len(rows)))
    with case.open(dataset, stream, rows, options) as loader:
        names = {"name": case.name, "engine": case.engine, "codec": dataset.stream(stream).codec}
        yield contender_of(loader, device=case.device, dtype=options.dtype, **names)


def contender_of(loader: Loader, *, device: str, dtype: torch.dtype, **names: str) -> Contender:
    """Return an open loader as what is measured: each loop is the next epoch, read ahead over the
    border as in training.
    """

    def run_epoch(_epoch: int) -> int:
        num_samples = sum(len(batch.keys) for batch in loader)
        if device != "cpu":
            torch.cuda.synchronize(device)
        return num_samples

    named = str(dtype).removeprefix("torch.")
    return Contender(**names, dtype=named, run_epoch=run_epoch, end_turn=loader._stop_reading)


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
            run_epoch=lambda _epoch: sum(len(images) for images in loader),
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
        cutter=CUTTER if contender.engine == "cpu" else "",
        samples_per_s=spread(rates),
        machine=machine_facts(),
        versions=package_versions(),
    )
