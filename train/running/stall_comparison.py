"""``cktrain bench``: the stall test. The same steps on a batch that is there already, on cached
data and on real data.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from models.build import build_model
from pipelines.batch import Batch
from pipelines.dataset import Dataset, open_dataset
from pipelines.loader import Loader, make_loader
from shard_builder.errors import InputError
from shard_builder.files import write_atomically
from shard_builder.provenance import command_line, package_versions
from train.config import TrainConfig
from train.device import DTYPES, choose_device, choose_precision, device_name
from train.running.amp import autocast, make_scaler, optimizer_step
from train.running.optimizer import make_optimizer
from train.running.stall import StallTimer

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
        engine: ``cpu`` or ``dali``; empty for synthetic.
        precision: ``bf16``, ``fp16`` or ``fp32``.
        channels_last: Memory layout of net and images; False is NCHW.
    """

    name: str
    data: str
    engine: str
    precision: str
    channels_last: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What a case measured.

    Args:
        case: The case.
        samples_per_s: Of each repeat, data wait included.
        data_wait_pct: Of each repeat.
    """

    case: Case
    samples_per_s: tuple[float, ...]
    data_wait_pct: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median samples per second."""
        return statistics.median(self.samples_per_s)

    def to_record(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {
            "median_samples_per_s": self.median,
            "median_data_wait_pct": statistics.median(self.data_wait_pct),
        }


def bench_cases(device: torch.device, precision: str, *, with_baseline: bool) -> list[Case]:
    """List what is compared: synthetic against cached and real, each engine, and fp32 NCHW as the
    original trains.
    """
    engines = ["cpu", "dali"] if device.type == "cuda" else ["cpu"]
    cases = [Case(name="synthetic", data="synthetic", engine="", precision=precision)]
    cases += [Case(name="cached, cpu engine", data="cached", engine="cpu", precision=precision)]
    cases += [
        Case(name=f"real, {engine} engine", data="real", engine=engine, precision=precision)
        for engine in engines
    ]
    if with_baseline:
        cases.append(
            Case(
                name="synthetic, fp32 NCHW",
                data="synthetic",
                engine="",
                precision="fp32",
                channels_last=False,
            )
        )
    return cases


def run_bench(
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
            f"--repeats {repeats}, --steps {steps}, --warmup {warmup}, expected at least 3, 1 and 1"
        )
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    cases = bench_cases(device, precision, with_baseline=with_baseline)
    speeds: dict[str, list[float]] = {case.name: [] for case in cases}
    waits: dict[str, list[float]] = {case.name: [] for case in cases}
    with open_dataset(dataset_dir) as dataset:
        runners = [_CaseRunner(case, config, dataset, device) for case in cases]
        try:
            for runner in runners:
                runner.run(warmup)
            for repeat, runner in itertools.product(range(repeats), runners):
                speed, wait = runner.run(steps)
                speeds[runner.case.name].append(speed)
                waits[runner.case.name].append(wait)
                on_progress(
                    repeat * len(runners) + runners.index(runner) + 1, repeats * len(runners)
                )
        finally:
            for runner in runners:
                runner.close()
        codec = dataset.stream(config.stream).codec
    results = [
        CaseResult(
            case=case, samples_per_s=tuple(speeds[case.name]), data_wait_pct=tuple(waits[case.name])
        )
        for case in cases
    ]
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
        "num_cores": (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "command": command_line(),
        "versions": package_versions(),
        "results": [result.to_record() for result in results],
    }


def write_bench(path: Path, record: dict[str, Any]) -> None:
    """Write the record as JSON."""
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


class _CaseRunner:
    """A net, its optimizer and its source of batches, kept warm over all repeats."""

    def __init__(
        self, case: Case, config: TrainConfig, dataset: Dataset, device: torch.device
    ) -> None:
        self.case, self._device = case, device
        layout = torch.channels_last if case.channels_last else torch.contiguous_format
        torch.manual_seed(config.seed)
        self._model = build_model(
            config.arch,
            config.stream,
            num_classes=len(dataset.class_names),
            stack_length=config.stack_length,
            weights="none",
            dropout=config.dropout,
        ).to(device, memory_format=layout)  # type: ignore[call-overload]
        self._model.train()
        self._optimizer = make_optimizer(self._model, config)
        self._scaler = make_scaler(device, case.precision)
        self._layout = layout
        self._loader = self._make_loader(config, dataset)
        self._batches = self._iterate()

    def close(self) -> None:
        """Stop the loader."""
        self._batches.close()
        self._loader.close()

    def run(self, steps: int) -> tuple[float, float]:
        """Train some steps; return samples per second and the share of waiting in percent."""
        timer = StallTimer(self._device)
        begin = time.perf_counter()
        for batch in timer.iterate(itertools.islice(self._batches, steps)):
            self._step(batch)
        times = timer.take()
        return times.num_samples / (time.perf_counter() - begin), times.data_wait_pct

    def _step(self, batch: Batch) -> None:
        with autocast(self._device, self.case.precision):
            outputs = self._model(batch.images)
        loss = functional.cross_entropy(outputs.float(), batch.labels)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        optimizer_step(self._model.parameters(), self._optimizer, self._scaler, clip_grad=0)

    def _iterate(self) -> Generator[Batch, None, None]:
        if self.case.data == "synthetic":
            batch = next(iter(self._loader))
            images = batch.images.clone().contiguous(memory_format=self._layout)
            held = Batch(
                images=images,
                labels=batch.labels.clone(),
                valid=batch.valid.clone(),
                keys=batch.keys,
                positions=batch.positions,
                global_size=batch.global_size,
            )
            yield from itertools.repeat(held)
        if self.case.data == "cached":
            for epoch in range(CACHE_EPOCHS):
                self._loader.set_epoch(epoch)
                for _ in self._loader:
                    pass
        for epoch in itertools.count():
            self._loader.set_epoch(epoch)
            yield from (batch for batch in self._loader if batch.global_size == len(batch.keys))

    def _make_loader(self, config: TrainConfig, dataset: Dataset) -> Loader:
        return make_loader(
            dataset,
            stream=config.stream,
            rows=dataset.rows_of(dataset.keys),
            training=True,
            batch_size=config.batch_size,
            stack_length=config.stack_length,
            seed=config.seed,
            engine=self.case.engine or "cpu",
            device=self._device,
            dtype=DTYPES[self.case.precision],
            num_threads=config.workers or None,
            cache="ram" if self.case.data == "cached" else "none",
        )


def ratio_to(results: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
    """Return each case's median speed over that of the named one."""
    medians = {result["case"]["name"]: result["median_samples_per_s"] for result in results}
    return (
        {case: median / medians[name] for case, median in medians.items()}
        if name in medians
        else {}
    )
