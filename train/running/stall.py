"""Stall accounting: how much of the time the device waited for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from pipelines.batch import Batch

DATA_BOUND_PCT = 10.0
FREE_PCT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StallTimes:
    """Sums over some steps.

    Wait and compute fill an epoch, from asking for its first batch to the end of its last step.
    What comes between two epochs is neither, so it is in no share and no speed. Nor is the wait for
    the very first batch, which is the start of the loader: kernels are compiled, files opened.

    Args:
        num_samples: Samples over all ranks.
        wait_s: Seconds the device had nothing to do because no batch was there: from the end of
            the work before to the moment when the batch may be used, its copy included. On the CPU
            from asking for a batch to having it.
        compute_s: Seconds between receiving a batch and being ready for the next: forward,
            backward, the step, the exchange between ranks, and what the loop does besides, such as
            a line of metrics.jsonl or a checkpoint within an epoch.
        between_s: Seconds between epochs: validation, checkpoints, rows and figures; up to the
            first batch that is asked for, and after the last epoch to the end.
        start_s: Seconds until the first batch of all was there.
    """

    num_samples: int = 0
    wait_s: float = 0.0
    compute_s: float = 0.0
    between_s: float = 0.0
    start_s: float = 0.0

    def __add__(self, other: StallTimes) -> StallTimes:
        return StallTimes(
            num_samples=self.num_samples + other.num_samples,
            wait_s=self.wait_s + other.wait_s,
            compute_s=self.compute_s + other.compute_s,
            between_s=self.between_s + other.between_s,
            start_s=self.start_s + other.start_s,
        )

    @property
    def data_wait_pct(self) -> float:
        """Share of the time spent waiting for data, in percent."""
        total = self.wait_s + self.compute_s
        return 100 * self.wait_s / total if total else 0.0

    @property
    def samples_per_s(self) -> float:
        """Samples per second, waiting included."""
        total = self.wait_s + self.compute_s
        return self.num_samples / total if total else 0.0

    @property
    def compute_samples_per_s(self) -> float:
        """Samples per second if data never made the device wait."""
        return self.num_samples / self.compute_s if self.compute_s else 0.0

    def to_record(self) -> dict[str, float]:
        """Return the figures of a metrics row; ``between_s``, ``start_s`` are before the epoch."""
        return {
            "data_wait_pct": round(self.data_wait_pct, 3),
            "samples_per_s": round(self.samples_per_s, 3),
            "compute_samples_per_s": round(self.compute_samples_per_s, 3),
            "between_s": round(self.between_s, 3),
            "start_s": round(self.start_s, 3),
        }


def bound_by(data_wait_pct: float) -> str:
    """Say what bounds a run that waits for data so much of its time, in percent."""
    if data_wait_pct >= DATA_BOUND_PCT:
        return "data"
    return "compute" if data_wait_pct < FREE_PCT else "compute, with a small stall"


class StallTimer:
    """Iterates over batches and notes when each was asked for and when it came.

    On a GPU the marks are CUDA events on the stream that computes: an event recorded before asking
    for a batch is reached when the work before it is done, the one after it when the batch may be
    used, so their distance is the time the GPU idled, however far the host runs ahead. On the CPU
    the marks are readings of the monotonic clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []
        self._num_samples = 0
        self._taken_at: float | None = None
        self._between_s = 0.0
        self._has_started = False

    def iterate(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches."""
        iterator = iter(batches)
        while True:
            self._mark()
            batch = next(iterator, None)
            if batch is None:
                return
            self._mark()
            self._num_samples += batch.global_size
            yield batch

    def take(self) -> StallTimes:
        """Wait until the last batch has been computed; return the times since the last call."""
        if len(self._marks) % 2 == 0:  # the loop was left between two batches: end the computation
            self._mark()
        seconds = self._distances()
        waits, start_s = seconds[0::2], 0.0
        if waits and not self._has_started:
            start_s, *waits = waits
            self._has_started = True
        times = StallTimes(
            num_samples=self._num_samples,
            wait_s=sum(waits),
            compute_s=sum(seconds[1::2]),
            between_s=self._between_s,
            start_s=start_s,
        )
        self._marks, self._num_samples, self._between_s = [], 0, 0.0
        self._taken_at = time.perf_counter()
        return times

    def _mark(self) -> None:
        if self._taken_at is not None:  # the device has been idle since, so the host's clock serves
            self._between_s += time.perf_counter() - self._taken_at
            self._taken_at = None
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def _distances(self) -> list[float]:
        """Return the seconds between each two marks."""
        if self._device.type != "cuda":
            return [end - begin for begin, end in pairwise(self._marks)]
        if self._marks:
            self._marks[-1].synchronize()
        return [begin.elapsed_time(end) / 1000 for begin, end in pairwise(self._marks)]
