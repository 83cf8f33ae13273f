"""The stall timer: what counts as wait, what as compute, what as neither; on a GPU and on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train.running.stall
from pipelines.batch import Batch
from tests.pipelines.fake_cuda import GPU, FakeCuda
from train.running.stall import StallTimer, StallTimes


def a_batch() -> Batch:
    empty = torch.empty(0)
    return Batch(
        images=empty,
        labels=empty,
        valid=empty,
        keys=(),
        positions=np.empty(0, np.int64),
        epoch=0,
        global_size=10,
    )


def batches(take: Callable[[float], None], seconds: list[float]) -> Iterator[Batch]:
    """Yield a batch after each of these times."""
    for duration in seconds:
        take(duration)
        yield a_batch()


def train_epoch(
    timer: StallTimer, take: Callable[[float], None], *, waits: list[float], compute: float
) -> StallTimes:
    for _ in timer.iterate(batches(take, waits)):
        take(compute)
    return timer.take()


def test_a_gpu_waits_from_the_end_of_its_work_to_the_batch_and_the_host_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = FakeCuda()
    cuda.take(monkeypatch)
    monkeypatch.setattr(FakeCuda, "clock_s", 0.0)

    def work(seconds: float) -> None:
        """Let the computing stream be busy, or wait for a copy, for so long."""
        cuda.compute.enqueue(lambda: setattr(FakeCuda, "clock_s", FakeCuda.clock_s + seconds))
        assert not cuda.compute.num_done, "the host waited for the device"

    times = train_epoch(StallTimer(GPU), work, waits=[3.0, 0.0, 1.0], compute=2.0)
    assert times.num_samples == 30
    assert (times.start_s, times.wait_s, times.compute_s) == pytest.approx((3.0, 1.0, 6.0))
    assert times.data_wait_pct == pytest.approx(100 / 7)


def test_between_epochs_is_neither_wait_nor_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr(train.running.stall, "time", clock)
    timer = StallTimer(torch.device("cpu"))
    first = train_epoch(timer, work, waits=[3.0, 1.0], compute=2.0)
    work(7.0)  # validation and a checkpoint
    second = train_epoch(timer, work, waits=[1.0], compute=2.0)
    work(5.0)
    last = timer.take()
    assert (first.wait_s, first.compute_s, first.between_s) == (1.0, 4.0, 0.0)
    assert (second.wait_s, second.compute_s, second.between_s) == (1.0, 2.0, 7.0)
    assert (last.wait_s, last.compute_s, last.between_s) == (0.0, 0.0, 5.0)
    total = first + second + last
    assert (first.start_s, second.start_s, last.start_s) == (3.0, 0.0, 0.0), "of a process"
    assert (total.start_s, total.between_s) == (3.0, 12.0)
    assert total.samples_per_s == pytest.approx(30 / 8)


def test_leaving_between_two_batches_ends_the_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the stall test's repeats and a stop signal do; a repeat goes on with the next batch."""
    now = 0.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(train.running.stall, "time", SimpleNamespace(perf_counter=lambda: now))
    timer = StallTimer(torch.device("cpu"))
    iterator = timer.iterate(batches(work, [1.0, 2.0, 3.0]))
    for start, wait in ((1.0, 0.0), (0.0, 2.0), (0.0, 3.0)):
        next(iterator)
        work(4.0)
        times = timer.take()
        assert (times.start_s, times.wait_s, times.compute_s) == (start, wait, 4.0)
        assert times.num_samples == 10
