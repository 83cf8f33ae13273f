"""Measure contenders in turns, and say what the numbers depend on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shard_builder.machine import num_usable_cores
from shard_builder.provenance import processor_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Something to measure: ``run_epoch(epoch)`` delivers an epoch and returns its samples.

    ``end_turn()`` stops what would go on in the background, at the expense of the next one's turn.
    """

    name: str
    run_epoch: Callable[[int], int]
    engine: str = ""
    codec: str = ""
    dtype: str = ""
    end_turn: Callable[[], None] = lambda: None


def measure_in_turns(
    contenders: Sequence[Contender],
    *,
    repeats: int,
    seconds: float,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, list[float]]:
    """Measure contenders in turns, so that a disturbance hits all alike; each warms up once.

    Args:
        contenders: What to measure, under different names.
        repeats: Measurements of each.
        seconds: Least duration of a measurement; it ends with the epoch that reaches it.
        on_progress: Called with (measurements done, measurements in all).

    Returns:
        Samples per second of each repeat, by name.
    """
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        contender.run_epoch(0)
        contender.end_turn()
    for repeat in range(repeats):
        for place, contender in enumerate(contenders):
            rates[contender.name].append(_measure(contender, repeat, seconds))
            contender.end_turn()
            on_progress(repeat * len(contenders) + place + 1, repeats * len(contenders))
    return rates


def _measure(contender: Contender, repeat: int, seconds: float) -> float:
    num_samples, epoch, begin = 0, 1000 * repeat, time.perf_counter()
    while True:
        epoch += 1
        num_samples += contender.run_epoch(epoch)
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds:
            return num_samples / elapsed


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return ``median``, ``min`` and ``max`` of repeated measurements, and the ``runs``.

    >>> spread([1.0, 4.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 4.0, 'runs': [1.0, 4.0, 2.0]}
    """
    runs = [float(f"{value:.6g}") for value in values]
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs), "runs": runs}


def machine_facts() -> dict[str, str | int | None]:
    """Return what the numbers depend on: processor, cores, usable cores, GPU, system."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": num_usable_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }
