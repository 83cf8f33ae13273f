"""Stall accounting: how much of the time the device waited for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from pipelines.batch import Batch

DATA_BOUND_PCT = 10.0
FREE_PCT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StallTimes:
    """Sums over some steps.

    Args:
        num_samples: Samples over all ranks.
        wait_s: Seconds the device had nothing to do because no batch was there.
        compute_s: Seconds between receiving a batch and being ready for the next.
    """

    num_samples: int = 0
    wait_s: float = 0.0
    compute_s: float = 0.0

    def __add__(self, other: StallTimes) -> StallTimes:
        return StallTimes(
            num_samples=self.num_samples + other.num_samples,
            wait_s=self.wait_s + other.wait_s,
            compute_s=self.compute_s + other.compute_s,
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
        """Return the three figures of a metrics row."""
        return {
            "data_wait_pct": round(self.data_wait_pct, 3),
            "samples_per_s": round(self.samples_per_s, 3),
            "compute_samples_per_s": round(self.compute_samples_per_s, 3),
        }

    def verdict(self) -> str:
        """Say in one sentence what bounds the run."""
        wait = self.data_wait_pct
        figures = (
            f"{wait:.1f} % of the time went into waiting for data ({self.samples_per_s:.1f}"
            " samples/s)"
        )
        if wait < FREE_PCT:
            return f"This run is bound by compute: {figures}."
        if wait < DATA_BOUND_PCT:
            return f"This run is bound by compute, with a small stall: {figures}."
        return (
            f"This run is bound by data: {figures}; try --cache ram, --workers, or a dataset built"
            " with --codec raw."
        )


class StallTimer:
    """Iterates over batches and notes when each was asked for and when it came.

    On a GPU the marks are CUDA events on the stream that computes: an event recorded before asking
    for a batch is reached when the work before it is done, the one after it when the batch may be
    used, so their distance is the time the GPU idled, however far the host runs ahead. On the CPU
    the marks are readings of the monotonic clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[float | torch.cuda.Event] = []
        self._num_samples = 0

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
        """Return the times since the last call, after the last batch has been computed, and start
        anew.
        """
        if len(self._marks) % 2 == 0:  # the loop was left in the middle: close the last computation
            self._mark()
        marks, self._marks = self._marks, []
        samples, self._num_samples = self._num_samples, 0
        seconds = self._distances(marks)
        return StallTimes(
            num_samples=samples, wait_s=sum(seconds[0::2]), compute_s=sum(seconds[1::2])
        )

    def _mark(self) -> None:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def _distances(self, marks: list[float | torch.cuda.Event]) -> list[float]:
        if marks and isinstance(marks[-1], torch.cuda.Event):
            marks[-1].synchronize()
        distances = []
        for begin, end in pairwise(marks):
            if isinstance(begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
                distances.append(begin.elapsed_time(end) / 1000)
            elif isinstance(begin, float) and isinstance(end, float):
                distances.append(end - begin)
        return distances
