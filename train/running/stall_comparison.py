"""The stall test: the same steps on a batch that is there already, on cached and on real data."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional

from models.build import build_model
from pipelines.batch import Batch
from pipelines.dataset import Dataset, open_dataset
from pipelines.loader import make_loader
from pipelines.plan.sampling import Sampling
from pipelines.reading import Reading
from shard_builder.errors import InputError
from shard_builder.machine import num_usable_cores
from shard_builder.provenance import command_line, package_versions
from train.config import TrainConfig
from train.device import DTYPES, choose_device, choose_precision, device_name
from train.running.amp import autocast, make_scaler, optimizer_step
from train.running.optimizer import make_optimizer
from train.running.stall import StallTimer, StallTimes

CACHE_EPOCHS = 4
"""Epochs read before the cached case is measured: windows are random, so that one epoch decodes
only part of the pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to train that is measured.

    Args:
        name: For the table.
        data: ``synthetic`` (one batch on the device, again and again), ``cached`` (planes decoded
            in memory) or ``real``.
        engine: ``cpu`` or ``dali``.
        precision: ``bf16``, ``fp16`` or ``fp32``.
        channels_last: Memory layout of net and images; False is NCHW.
    """

    name: str
    data: Literal["synthetic", "cached", "real"]
    engine: Literal["cpu", "dali"] = "cpu"
    precision: str
    channels_last: bool = True


def stall_cases(device: torch.device, precision: str, *, with_baseline: bool) -> list[Case]:
    """List what is compared; the baseline is fp32 NCHW, as the original trains."""
    cases = [
        Case(name="synthetic", data="synthetic", precision=precision),
        Case(name="cached, cpu engine", data="cached", precision=precision),
        Case(name="real, cpu engine", data="real", precision=precision),
    ]
    if device.type == "cuda":
        cases.append(
            Case(name="real, dali engine", data="real", engine="dali", precision=precision)
        )
    if with_baseline:
        name = "synthetic, fp32 NCHW"
        cases.append(Case(name=name, data="synthetic", precision="fp32", channels_last=False))
    return cases


def compare_stalls(
    config: TrainConfig,
    dataset_dir: Path,
    *,
    steps: int,
    warmup: int,
    repeats: int,
    with_baseline: bool,
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Measure every case ``repeats`` times, interleaved, and return the record.

    Args:
        config: arch, stream, batch size and so on; each step is one batch.
        dataset_dir: Dataset folder.
        steps: Measured steps of a repeat.
        warmup: Steps before the first repeat of a case.
        repeats: Repeats of each case, at least 3.
        with_baseline: Also train fp32 NCHW.
        on_progress: Called with (done, total).

    Raises:
        InputError: If there are too few repeats, or the dataset does not fit.
    """
    if repeats < 3 or steps < 1 or warmup < 1:
        raise InputError(
            f"repeats={repeats}, steps={steps}, warmup={warmup}, expected at least 3, 1 and 1"
        )
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    cases = stall_cases(device, precision, with_baseline=with_baseline)
    with ExitStack() as stack:
        dataset = stack.enter_context(open_dataset(dataset_dir))
        codec = dataset.stream(config.stream).codec
        runners = [
            stack.enter_context(closing(_CaseRunner(case, config, dataset, device)))
            for case in cases
        ]
        for runner in runners:
            runner.run(warmup)
        for done, runner in enumerate(runners * repeats, start=1):
            runner.measure(steps)
            on_progress(done, len(runners) * repeats)
    return {
        "format": "ckshard-train-bench",
        "version": 1,
        "arch": config.arch,
        "stream": config.stream,
        "stack_length": config.stack_length,
        "batch_size": config.batch_size,
        "codec": codec,
        "steps": steps,
        "device": str(device),
        "device_name": device_name(device),
        "num_cores": num_usable_cores(),
        "command": command_line(),
        "versions": package_versions(),
        "results": [runner.result() for runner in runners],
    }


class _CaseRunner:
    """A net, its optimizer and its source of batches, kept warm over all repeats."""

    def __init__(
        self, case: Case, config: TrainConfig, dataset: Dataset, device: torch.device
    ) -> None:
        self._case, self._device = case, device
        self._layout = torch.channels_last if case.channels_last else torch.contiguous_format
        torch.manual_seed(config.seed)
        self._model = build_model(
            config.arch,
            config.stream,
            num_classes=len(dataset.class_names),
            stack_length=config.stack_length,
            weights="none",
            dropout=config.dropout,
        ).to(device, memory_format=self._layout)  # type: ignore[call-overload]
        self._model.train()
        self._optimizer = make_optimizer(self._model, config)
        self._scaler = make_scaler(device, case.precision)
        self._loader = make_loader(
            dataset,
            config.stream,
            training=True,
            batch_size=config.batch_size,
            sampling=Sampling(stack_length=config.stack_length, seed=config.seed),
            reading=Reading(
                engine=case.engine,
                device=device,
                dtype=DTYPES[case.precision],
                num_threads=config.workers or None,
                cache="ram" if case.data == "cached" else "none",
            ),
        )
        self._batches = self._iterate()
        self._speeds: list[float] = []
        self._waits: list[float] = []

    def close(self) -> None:
        """Stop the loader."""
        self._batches.close()
        self._loader.close()

    def run(self, steps: int) -> StallTimes:
        """Train some steps; return what they took."""
        timer = StallTimer(self._device)
        for batch in timer.iterate(itertools.islice(self._batches, steps)):
            with autocast(self._device, self._case.precision):
                outputs = self._model(batch.images)
            loss = functional.cross_entropy(outputs.float(), batch.labels)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            optimizer_step(self._model.parameters(), self._optimizer, self._scaler, clip_grad=0)
        return timer.take()

    def measure(self, steps: int) -> None:
        """Train some steps and note their speed and their share of waiting."""
        begin = time.perf_counter()
        times = self.run(steps)
        self._speeds.append(times.num_samples / (time.perf_counter() - begin))
        self._waits.append(times.data_wait_pct)

    def result(self) -> dict[str, Any]:
        """Return the case, and the speed and the share of waiting of each repeat."""
        return {
            "case": asdict(self._case),
            "samples_per_s": self._speeds,
            "data_wait_pct": self._waits,
            "median_samples_per_s": statistics.median(self._speeds),
            "median_data_wait_pct": statistics.median(self._waits),
        }

    def _iterate(self) -> Generator[Batch, None, None]:
        if self._case.data == "synthetic":
            batch = next(iter(self._loader))
            images = batch.images.clone().contiguous(memory_format=self._layout)
            yield from itertools.repeat(replace(batch.clone(), images=images))
        num_unmeasured = CACHE_EPOCHS if self._case.data == "cached" else 0
        for epoch in itertools.count():
            for batch in self._loader:  # the next epoch each time, read ahead over the border
                if epoch >= num_unmeasured and batch.global_size == len(batch.keys):
                    yield batch
