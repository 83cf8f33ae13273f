"""How the start of a training grows with sequences and shards: open, plan, split. Linux only: it
reads /proc/self.

    python -m bench.scaling --json docs/results/scaling.json

Opening and planning read the index and the manifest only, so the datasets of up to a million
sequences are these two files without shards, tiled from a small real one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from bench.harness import (
    Record,
    in_fresh_process,
    low_to_high,
    markdown_table,
    memory_bytes,
    run_benchmark,
    run_ckshard,
    spreads,
)
from pipelines.dataset import Dataset, open_dataset
from pipelines.members import StreamMembers
from pipelines.plan.plan import Plan
from pipelines.plan.sampling import Sampling, make_plan
from pipelines.streams import FLOW
from shard_builder.files import digest_file
from shard_builder.format.index import INDEX_NAME, read_index
from shard_builder.format.manifest import MANIFEST_NAME, Shard, read_manifest
from shard_builder.split import split_subject_kfold

SIZES = (1_000, 10_000, 100_000, 1_000_000, (1 << 20) + 1)
"""Sequences. One more than a power of four is the worst case: the permutation walks over the next
one, nearly four times as far."""
DENSE, SPARSE = 380, 11
"""Sequences of a shard; eleven full-size CK+-like ones make a shard of 8 MiB."""
POINTS = (*((size, DENSE) for size in SIZES), (1_000_000, SPARSE))
BATCH_SIZE, NUM_BATCHES, NUM_SUBJECTS = 32, 100, 6


def measure_scaling(
    folder: Path, *, repeats: int, points: Sequence[tuple[int, int]] = POINTS
) -> Record:
    """Measure datasets of so many sequences, and so many in a shard, each in fresh processes."""
    release, origin, records = folder / "release", folder / "origin", []
    run_ckshard(
        "synth", release, "--subjects", NUM_SUBJECTS, "--image-scale", 0.1, "--max-frames", 6
    )
    run_ckshard("build", release, origin, "--size", "64x48", "--yes")
    for number, (num_rows, each) in enumerate(points):
        dataset, num_shards = folder / str(number), -(-num_rows // each)
        write_large_index(dataset, origin, num_rows=num_rows, num_shards=num_shards)
        runs = [in_fresh_process(probe, dataset) for _ in range(repeats)]
        counts = {"num_sequences": num_rows, "shards_per_stream": num_shards}
        records.append(counts | spreads(runs))
    return {"repeats": repeats, "points": records}


def open_and_plan(path: Path) -> tuple[Dataset, Plan, StreamMembers]:
    """Do what the start of a training does to a dataset of which all rows train: open it, make the
    plan, find the members.
    """
    dataset = open_dataset(path)
    geometry = dataset.manifest.geometry
    plan = make_plan(
        FLOW,
        num_usable=dataset.num_usable("flow"),
        height=geometry.height,
        width=geometry.width,
        rows=np.arange(len(dataset), dtype=np.int64),
        training=True,
        sampling=Sampling(),
    )
    return dataset, plan, dataset.members("flow")


def probe(path: Path) -> dict[str, float]:
    """Measure the first opening and planning of this process, then a split, on one core.

    Returns:
        ``open_s``, ``plan_s`` of a whole epoch's table, ``anonymous_bytes`` that both add, keep and
        share with no other process, ``batch_plan_us`` of a batch of 32, ``split_s`` of a split by
        subjects and back to rows, as ``cktrain`` does it.
    """
    own_bytes = partial(memory_bytes, "Anonymous", file="smaps_rollup")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    before, begin = own_bytes(), time.perf_counter()
    dataset, plan, _members = open_and_plan(path)
    opened = time.perf_counter()
    _table = plan.table(np.arange(len(plan), dtype=np.int64), epoch=0)
    planned, added, batches_s = time.perf_counter(), own_bytes() - before, []
    for first in np.linspace(0, len(plan) - BATCH_SIZE, NUM_BATCHES, dtype=np.int64):
        start = time.perf_counter()
        plan.table(np.arange(first, first + BATCH_SIZE), epoch=0)
        batches_s.append(time.perf_counter() - start)
    start = time.perf_counter()
    split = split_subject_kfold(dataset.keys, dataset.subjects, num_folds=NUM_SUBJECTS, fold=0)
    for keys in (split.train, split.val):
        dataset.rows_of(keys)
    return {
        "open_s": opened - begin,
        "plan_s": planned - opened,
        "anonymous_bytes": float(added),
        "batch_plan_us": 1e6 * median(batches_s),
        "split_s": time.perf_counter() - start,
    }


def write_large_index(folder: Path, origin: Path, *, num_rows: int, num_shards: int) -> None:
    """Write index and manifest of ``num_rows`` sequences into a new folder, and no shards.

    The rows are those of the dataset ``origin`` again and again, with fresh keys of eight
    characters; the manifest lists ``num_shards`` of each stream that are not there, of equally many
    rows, as large as the origin's first.
    """
    manifest = read_manifest(origin)
    batch = read_index(origin / INDEX_NAME, streams=manifest.streams, version=manifest.version)
    table = pa.Table.from_batches([batch] * -(-num_rows // len(batch))).slice(0, num_rows)
    shard_of_row = pa.array(np.arange(num_rows) * num_shards // num_rows, pa.int32())
    columns = {"key": pa.array([f"S{row:07d}" for row in range(num_rows)], pa.string())}
    columns |= {f"{stream}_shard": shard_of_row for stream in manifest.streams}
    for name, column in columns.items():
        place, field = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(place, field, column)
    (whole,) = table.combine_chunks().to_batches()
    folder.mkdir()
    with pa.ipc.new_file(folder / INDEX_NAME, whole.schema) as writer:
        writer.write_batch(whole)
    streams, files = {}, {INDEX_NAME: digest_file(folder / INDEX_NAME)}
    for stream, entry in manifest.streams.items():
        names = [f"{stream}-{number:06d}" for number in range(num_shards)]
        tars = (Shard(name=f"{name}.tar", num_samples=num_rows // num_shards) for name in names)
        streams[stream] = replace(entry, shards=tuple(tars))
        for suffix in ("tar", "idx"):
            digest = manifest.files[f"{names[0]}.{suffix}"]
            files |= {f"{name}.{suffix}": digest for name in names}
    tiled = replace(manifest, num_sequences=num_rows, streams=streams, files=files)
    (folder / MANIFEST_NAME).write_text(tiled.to_json(), encoding="utf-8")


def scaling_blocks(record: Record) -> dict[str, str]:
    """Write the Markdown of a record: the block ``scaling``."""
    rows = []
    for point in record["points"]:
        num, own = point["num_sequences"], point["anonymous_bytes"]["median"]
        times = (
            f"{1e3 * point[name]['median']:,.1f} ({low_to_high(point[name], 1, 1e3)})"
            for name in ("open_s", "plan_s")
        )
        rows.append(
            f"{num:,} | {point['shards_per_stream']:,} | {' | '.join(times)}"
            f" | {point['batch_plan_us']['median']:,.0f}"
            f" | {1e3 * point['split_s']['median']:,.0f} | {own / num:.0f}"
        )
    header = "sequences | shards | open, ms | plan, ms | batch, us | split, ms | bytes"
    caption = (
        f"`{record['command']}`, one core of {record['machine']['processor']},\na fresh process"
        f" each, files in the page cache, medians of {record['repeats']} with the range:"
    )
    return {"scaling": f"{caption}\n\n{markdown_table(header, rows)}"}


if __name__ == "__main__":
    run_benchmark(__doc__, measure_scaling, scaling_blocks)
