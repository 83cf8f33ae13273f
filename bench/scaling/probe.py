"""One measurement in a fresh process on one core, printed as JSON; started by bench.scaling. Linux
only: it reads /proc/self.

python -m bench.scaling.probe open DATASET
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.dataset import Dataset, open_dataset
from pipelines.members import StreamMembers
from pipelines.plan.crops import multi_scale_crops
from pipelines.plan.plan import Plan
from pipelines.plan.sampling import Sampling, make_plan
from pipelines.streams import kind_of
from shard_builder.format.verify import verify_dataset
from shard_builder.split import Split, split_subject_kfold

STREAM = "flow"
STACK_LENGTH, BATCH_SIZE, NUM_BATCHES, NUM_FOLDS = 5, 32, 100, 10


def open_and_plan(path: Path) -> tuple[Dataset, Plan, StreamMembers]:
    """Do what the start of a training does to a dataset of which all rows train: open it, make the
    plan, find the members.
    """
    dataset = open_dataset(path)
    geometry = dataset.manifest.geometry
    plan = make_plan(
        kind_of(STREAM),
        rows=np.arange(len(dataset), dtype=np.int64),
        num_stored=dataset.num_stored(STREAM),
        height=geometry.height,
        width=geometry.width,
        training=True,
        sampling=Sampling(stack_length=STACK_LENGTH),
    )
    return dataset, plan, dataset.members(STREAM)


def probe_open(path: Path) -> dict[str, float]:
    """Time the first opening and the first epoch's plan of this process; measure the memory that
    both add and keep.

    Returns:
        Seconds; ``batch_plan_us`` for a batch of 32; bytes added by opening and the plan of a whole
        epoch while both are held: resident, and anonymous, which no other process shares.
    """
    before = memory_bytes()
    begin = time.perf_counter()
    opened = open_and_plan(path)
    open_s = time.perf_counter() - begin
    plan, positions = opened[1], np.arange(len(opened[0]), dtype=np.int64)
    begin = time.perf_counter()
    table = plan.table(positions, epoch=0)
    plan_s = time.perf_counter() - begin
    after = memory_bytes()
    assert len(table.rows) == len(plan)
    return {
        "open_s": open_s,
        "plan_s": plan_s,
        "batch_plan_us": batch_plan_us(plan),
        **{f"{name}_bytes": float(after[name] - before[name]) for name in after},
    }


def batch_plan_us(plan: Plan) -> float:
    """Return the median microseconds of planning a batch somewhere in an epoch."""
    size = min(BATCH_SIZE, len(plan))
    seconds = []
    for number in range(NUM_BATCHES):
        first = number * (len(plan) - size) // NUM_BATCHES
        positions = np.arange(first, first + size, dtype=np.int64)
        begin = time.perf_counter()
        plan.table(positions, epoch=0)
        seconds.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(seconds)


def probe_batch(num: int) -> dict[str, float]:
    """Time the plan of a batch out of ``num`` samples, with columns of one repeated value in place
    of a dataset's.
    """
    plan = Plan(
        rows=np.broadcast_to(np.int64(0), num),
        num_starts=np.broadcast_to(np.int64(2), num),
        first_starts=np.broadcast_to(np.int64(0), num),
        crops=multi_scale_crops(height=256, width=340, ratios=kind_of(STREAM).crop_ratios),
        seed=0,
        is_training=True,
    )
    return {"batch_plan_us": batch_plan_us(plan)}


def probe_traced(path: Path) -> dict[str, float]:
    """Count the bytes that Python and NumPy allocate; without the clock, and the same in every run.

    Returns:
        ``kept_bytes`` after opening, ``planned_bytes`` with an epoch's table, ``peak_bytes`` while
        the table is computed.
    """
    tracemalloc.start()
    opened = open_and_plan(path)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    table = opened[1].table(np.arange(len(opened[0]), dtype=np.int64), epoch=0)
    planned, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.rows) == len(opened[0])
    return {"kept_bytes": float(kept), "planned_bytes": float(planned), "peak_bytes": float(peak)}


def probe_split(path: Path) -> dict[str, float]:
    """Time a subject split of an open dataset and its way back to rows, as ``cktrain`` makes it;
    measure what it keeps.
    """
    dataset = open_dataset(path)
    before, begin = memory_bytes(), time.perf_counter()
    made = _split(dataset)
    subject_of = dict(zip(dataset.keys, dataset.subjects, strict=True))
    rows = [dataset.rows_of(keys) for keys in (made.train, made.val)]
    seconds = time.perf_counter() - begin
    assert len(subject_of) == len(dataset) == sum(map(len, rows))
    return {
        "split_s": seconds,
        "split_bytes": float(memory_bytes()["resident"] - before["resident"]),
    }


def _split(dataset: Dataset) -> Split:
    num_subjects = len(set(dataset.subjects))
    subjects = dataset.subjects if num_subjects > 1 else dataset.keys
    return split_subject_kfold(
        dataset.keys, subjects, num_folds=max(2, min(NUM_FOLDS, num_subjects)), fold=0
    )


def probe_verify(path: Path, *, quick: bool) -> dict[str, float]:
    """Time a verification in one thread, and measure by how much memory grows at its peak."""
    before, begin = memory_bytes(), time.perf_counter()
    found = verify_dataset(path, quick=quick)
    seconds = time.perf_counter() - begin
    if found.faults:
        raise SystemExit(
            f"{path}: {len(found.faults)} faults, expected none; the first: {found.faults[0]}"
        )
    return {"seconds": seconds, "peak_bytes": float(peak_bytes() - before["resident"])}


def probe_maps(path: Path) -> dict[str, float]:
    """Read a member of every sequence; count the memory maps and the open file descriptors that a
    shard then holds.
    """
    with open_dataset(path) as dataset:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for row in range(len(dataset)):
            dataset.read_member(STREAM, row, 0)
        num_shards = len(dataset.stream(STREAM).shards)
        descriptors = len(list(Path("/proc/self/fd").iterdir())) - before
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        num_maps = sum(line.endswith(".tar") for line in maps.splitlines())
    return {"maps": num_maps / num_shards, "descriptors": descriptors / num_shards}


def memory_bytes() -> dict[str, int]:
    """Return this process's memory: all that is resident, and the anonymous part of it."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    fields = {
        name: value.split()[0]
        for name, _, value in (line.partition(":") for line in lines)
        if value
    }
    return {"resident": 1024 * int(fields["Rss"]), "anonymous": 1024 * int(fields["Anonymous"])}


def peak_bytes() -> int:
    """Return the most that was ever resident of this process; getrusage would count its parent's,
    before exec.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", choices=("open", "traced", "split", "quick", "full", "maps", "batch")
    )
    parser.add_argument("target", help="a dataset folder; for batch a number of samples")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    what, path = options.what, Path(options.target)
    found: dict[str, Any]
    if what in ("quick", "full"):
        found = probe_verify(path, quick=what == "quick")
    elif what == "batch":
        found = probe_batch(int(options.target))
    else:
        probe = {
            "open": probe_open,
            "traced": probe_traced,
            "split": probe_split,
            "maps": probe_maps,
        }[what]
        found = probe(path)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
