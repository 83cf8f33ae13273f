"""The stall test: the same steps on a batch that is there already, on cached and on real data."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from models.build import switch_to_training
from pipelines.batch import Batch
from pipelines.dataset import Dataset, open_dataset
from pipelines.reading import Cache, EngineName
from shard_builder.checks import check_integer
from shard_builder.machine import num_usable_cores
from shard_builder.provenance import package_versions, shared_command_line
from shard_builder.split import Split
from train.config import TrainConfig
from train.device import choose_device, choose_precision, device_name
from train.distributed import Ranks
from train.running.session import open_session
from train.running.stall import StallTimer, StallTimes
from train.running.step import iter_steps

UNMEASURED_EPOCHS = {"cached": 4, "resident": 1, "real": 0}
"""Epochs read before a case is measured. Windows are random, so that one epoch decodes only part of
the pairs; the first one of planes that are resident brings them all."""
CACHES: dict[str, Cache] = {
    "synthetic": "none",
    "cached": "ram",
    "resident": "device",
    "real": "none",
}

LEAST = {"repeats": 3, "steps": 1, "warmup": 1}
MOST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to train that is measured.

    Args:
        name: For the table.
        data: ``synthetic`` (one batch on the device, again and again), ``cached`` (planes decoded
            in memory), ``resident`` (planes decoded on the device) or ``real``.
        engine: ``cpu`` or ``dali``; ``auto`` for planes on the device.
        precision: ``bf16``, ``fp16`` or ``fp32``.
        channels_last: Memory layout of net and images; False is NCHW.
    """

    name: str
    data: Literal["synthetic", "cached", "resident", "real"]
    engine: EngineName = "cpu"
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
        cases += [
            Case(name="real, dali engine", data="real", engine="dali", precision=precision),
            Case(
                name="real, in device memory", data="resident", engine="auto", precision=precision
            ),
        ]
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
        config: arch, stream, batch size and so on. Each case trains as ``cktrain`` does with it,
            from random weights, on sequences that fill whole steps.
        dataset_dir: Dataset folder.
        steps: Measured steps of the optimizer of a repeat, of ``iter_size`` batches.
        warmup: Steps before the first repeat of a case.
        repeats: Repeats of each case, at least 3.
        with_baseline: Also train fp32 NCHW.
        on_progress: Called with (done, total).

    Raises:
        InputError: If a number cannot be, or the dataset does not fit.
    """
    for name, value in (("repeats", repeats), ("steps", steps), ("warmup", warmup)):
        check_integer(name, value, low=LEAST[name], high=MOST)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    cases = stall_cases(device, precision, with_baseline=with_baseline)
    with ExitStack() as stack:
        dataset = stack.enter_context(open_dataset(dataset_dir))
        codec = dataset.stream(config.stream).codec
        runners = [
            stack.enter_context(closing(_CaseRunner(case, config, dataset, str(device))))
            for case in cases
        ]
        for runner in runners:
            runner.run(warmup)
        for done, runner in enumerate(runners * repeats, start=1):
            runner.measure(steps)
            on_progress(done, len(runners) * repeats)
    return {
        "format": "ckshard-train-bench",
        "version": 2,
        "arch": config.arch,
        "stream": config.stream,
        "stack_length": config.stack_length,
        "batch_size": config.batch_size,
        "iter_size": config.iter_size,
        "codec": codec,
        "steps": steps,
        "device": str(device),
        "device_name": device_name(device),
        "num_cores": num_usable_cores(),
        "command": shared_command_line(),
        "versions": package_versions(),
        "results": [runner.result() for runner in runners],
    }


class _CaseRunner:
    """A training session of one case, kept warm over all repeats."""

    def __init__(self, case: Case, config: TrainConfig, dataset: Dataset, device: str) -> None:
        options = replace(
            config,
            device=device,
            precision=case.precision,  # type: ignore[arg-type]
            weights="none",
            loader=case.engine,
            cache=CACHES[case.data],
        )
        self._case = case
        self._session = open_session(
            options, dataset, whole_steps(dataset, config), Ranks(), is_validated=False
        )
        self._timer = StallTimer(self._session.device)
        switch_to_training(self._session.model)
        self._layout = torch.channels_last if case.channels_last else torch.contiguous_format
        self._session.model.to(memory_format=self._layout)
        self._steps = iter_steps(
            self._session, self._timer.iterate(self._batches()), is_asked_to_stop=lambda: False
        )
        self._speeds: list[float] = []
        self._waits: list[float] = []

    def close(self) -> None:
        """Stop the loaders."""
        self._session.close()

    def run(self, steps: int) -> StallTimes:
        """Train some steps; return what they took."""
        for _ in itertools.islice(self._steps, steps):
            pass
        return self._timer.take()

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

    def _batches(self) -> Iterable[Batch]:
        """Return batches without end: the loader's, read ahead over the borders of epochs."""
        loader = self._session.train_loader
        if self._case.data == "synthetic":
            batch = next(iter(loader)).clone()
            loader.set_epoch(0)
            images = batch.images.contiguous(memory_format=self._layout)
            return itertools.repeat(replace(batch, images=images))
        for _ in range(UNMEASURED_EPOCHS[self._case.data]):
            for _batch in loader:
                pass
        return itertools.chain.from_iterable(itertools.repeat(loader))


def whole_steps(dataset: Dataset, config: TrainConfig) -> Split:
    """Return a split of which every epoch is whole steps, or one step of whole batches: a short
    batch or step, which real data has and one batch again and again has not, is no stall.
    """
    num = len(dataset.keys)
    unit = config.step_size if num >= config.step_size else config.batch_size
    num_used = num // unit * unit or num  # fewer than a batch: the loader says so
    return Split(kind="list", train=tuple(dataset.keys[:num_used]), val=())
