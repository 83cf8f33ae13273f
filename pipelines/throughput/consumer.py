"""How long a device that takes a given time a batch waits: in one long epoch, and in short ones."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch

from pipelines.dataset import Dataset
from pipelines.loader import Loader
from pipelines.throughput.cases import BenchOptions, LoaderCase, loader_cases
from pipelines.throughput.turns import machine_facts, spread
from shard_builder.checks import check_integer, check_number
from shard_builder.errors import InputError
from shard_builder.format.streams import StreamName
from shard_builder.provenance import package_versions

WARM_UP_EPOCHS = 8
"""Short epochs before anything is measured: caches are full then, and pages of the tars read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """The device that is simulated.

    Args:
        consumer_ms: What it takes for a batch, in ms.
        epoch_samples: Samples of a short epoch; the long one has the same ones, again and again.
    """

    consumer_ms: float
    epoch_samples: int = 80

    def __post_init__(self) -> None:
        check_number("consumer_ms", self.consumer_ms, low=0.001, high=60_000)
        check_integer("epoch_samples", self.epoch_samples, low=1, high=1 << 24)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitRecord:
    """What a device waits for one loader; each figure is a :func:`spread` over the repeats.

    Args:
        long_wait_pct: Share of the time that it waits within one long epoch.
        short_wait_pct: The same over epochs of ``epoch_samples``, their borders included.
        border_points: How much more that is, in points, each repeat against its neighbour.
        first_batch_ms: Wait for the first batch of a short epoch, the median of a repeat.
    """

    name: str
    engine: str
    stream: str
    codec: str
    dtype: str
    batch_size: int
    threads: int
    consumer_ms: float
    epoch_samples: int
    long_wait_pct: dict[str, Any]
    short_wait_pct: dict[str, Any]
    border_points: dict[str, Any]
    first_batch_ms: dict[str, Any]
    machine: dict[str, str | int | None]
    versions: dict[str, str | None]


class Wait(NamedTuple):
    """One batch: how long the device waited for it and worked on it, in seconds."""

    wait_s: float
    work_s: float
    is_first: bool
    is_last: bool


def iter_waits(loader: Loader, consumer_s: float) -> Iterator[Wait]:
    """Consume epochs without end as a device does that works on one batch at a time.

    The host asks for a batch when the one before is done; a host that runs ahead waits less. All
    that is not work is a wait: the end of an epoch belongs to the first batch of the next.
    """
    done = time.perf_counter()
    while True:
        is_first = True
        for batch in loader:
            if batch.images.is_cuda:
                torch.cuda.current_stream(batch.images.device).synchronize()
            came = time.perf_counter()
            time.sleep(consumer_s)
            asked, done = done, time.perf_counter()
            is_last = loader.position == loader.num_samples
            yield Wait(came - asked, done - came, is_first, is_last)
            is_first = False


def measure_turn(
    loader: Loader,
    *,
    consumer_s: float,
    num_unmeasured: int,
    seconds: float,
    has_whole_epochs: bool,
) -> list[Wait]:
    """Consume batches for some time, or until the epoch ends in which it has passed.

    The first batches are not measured: the engine starts anew in each turn.
    """
    waits = iter_waits(loader, consumer_s)
    for _ in islice(waits, num_unmeasured):
        pass
    measured: list[Wait] = []
    begin = time.perf_counter()
    for wait in waits:
        measured.append(wait)
        is_over = time.perf_counter() - begin >= seconds
        if is_over and (wait.is_last or not has_whole_epochs):
            break
    return measured


def share_pct(waits: list[Wait]) -> float:
    """Return the share of the time that was waiting, in percent."""
    waited, worked = sum(w.wait_s for w in waits), sum(w.work_s for w in waits)
    return 100 * waited / (waited + worked)


def run_consumer(
    dataset: Dataset,
    options: BenchOptions,
    consumer: ConsumerOptions,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[WaitRecord]:
    """Measure what the device waits for each loader, long and short epochs in turns.

    Raises:
        InputError: If an epoch is shorter than a batch, or the dataset does not have a stream.
    """
    if consumer.epoch_samples < options.batch_size:
        raise InputError(
            f"epoch_samples={consumer.epoch_samples}, expected batch_size={options.batch_size} or"
            " more"
        )
    records = []
    for number, stream in enumerate(options.streams):
        cases = loader_cases(dataset.stream(stream).codec, options.device)
        with ExitStack() as stack:
            pairs = [_LoaderPair(case, dataset, stream, options, consumer, stack) for case in cases]
            for done, pair in enumerate(pairs * options.repeats, start=1):
                pair.measure()
                total = len(pairs) * options.repeats
                on_progress(number * total + done, len(options.streams) * total)
            records += [pair.record() for pair in pairs]
    return records


class _LoaderPair:
    """A loader of one long epoch and one of short epochs, kept open over all repeats."""

    def __init__(
        self,
        case: LoaderCase,
        dataset: Dataset,
        stream: StreamName,
        options: BenchOptions,
        consumer: ConsumerOptions,
        stack: ExitStack,
    ) -> None:
        self._case, self._stream, self._options, self._consumer = case, stream, options, consumer
        self._codec = dataset.stream(stream).codec
        rows = np.resize(np.arange(len(dataset), dtype=np.int64), consumer.epoch_samples)
        self._num_unmeasured = math.ceil(consumer.epoch_samples / options.batch_size)
        num_batches = 1000 * options.seconds / consumer.consumer_ms + self._num_unmeasured + 2
        num_long = max(WARM_UP_EPOCHS * len(rows), math.ceil(num_batches) * options.batch_size)
        self._long, self._short = (
            stack.enter_context(case.open(dataset, stream, np.resize(rows, num), options))
            for num in (num_long, len(rows))
        )
        for loader in (self._long, self._short):
            for _ in islice(iter_waits(loader, 0), WARM_UP_EPOCHS * self._num_unmeasured):
                pass
            loader._stop_reading()
        self._repeats: list[tuple[float, float, float]] = []

    def measure(self) -> None:
        """Measure one turn of each, one after the other."""
        long, short = (self._turn(loader) for loader in (self._long, self._short))
        first_s = statistics.median(wait.wait_s for wait in short if wait.is_first)
        self._repeats.append((share_pct(long), share_pct(short), 1000 * first_s))

    def _turn(self, loader: Loader) -> list[Wait]:
        waits = measure_turn(
            loader,
            consumer_s=self._consumer.consumer_ms / 1000,
            num_unmeasured=self._num_unmeasured,
            seconds=self._options.seconds,
            has_whole_epochs=loader is self._short,
        )
        loader._stop_reading()  # or it would read ahead in another's turn
        return waits

    def record(self) -> WaitRecord:
        """Return what was measured."""
        long, short, first_ms = (list(values) for values in zip(*self._repeats, strict=True))
        return WaitRecord(
            name=self._case.name,
            engine=self._case.engine,
            stream=self._stream,
            codec=self._codec,
            dtype=self._options.dtype_name,
            batch_size=self._options.batch_size,
            threads=self._options.num_threads,
            consumer_ms=self._consumer.consumer_ms,
            epoch_samples=self._consumer.epoch_samples,
            long_wait_pct=spread(long),
            short_wait_pct=spread(short),
            border_points=spread([b - a for a, b in zip(long, short, strict=True)]),
            first_batch_ms=spread(first_ms),
            machine=machine_facts(),
            versions=package_versions(),
        )
