"""How fast a loader's state restores at any position, and whether its process keeps its memory over
many epochs.

    python -m bench.endurance --json docs/results/endurance-cpu.json

Both engines on the CPU, flow stream, on drawn faces, codecs jpg and raw; memory is that of a fresh
process for each, of LZ4 too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness import (
    Record,
    cores_of,
    in_fresh_process,
    markdown_table,
    memory_bytes,
    run_benchmark,
    spreads,
)
from bench.loaders.windows import BATCH_SIZE, draw_windows, training_loader
from pipelines.dataset import open_dataset
from pipelines.plan.requests import iter_requests
from pipelines.reading import EngineName

ENGINES: tuple[EngineName, ...] = ("cpu", "dali")
CASES = tuple(product(ENGINES, ("jpg", "raw")))
"""Engine and codec."""
WATCHED = (*CASES, ("cpu", "lz4"))
"""Those whose memory is watched."""
POSITIONS = ("first", "middle", "last")
SIZES = (1024, 1_000_000)
"""Samples of the epochs in which states are restored; the dataset's rows again and again."""
NUM_EPOCHS, EPOCH_SAMPLES = 20, 512
"""Of a process whose memory is watched."""
SETTLED, LAST = slice(4, 9), slice(-5, None)
"""Epochs 5 to 9, when buffers and caches have their size and every page of the tars has been read,
and the last five."""


def restore_once(
    folder: Path, engine: EngineName, num_samples: int, place: str, epoch: int
) -> dict[str, float]:
    """Restore a state in a fresh loader and take the first batch; ``epoch`` is another one each
    time, because an epoch's order may be kept.

    Returns:
        Milliseconds: ``restore_ms`` until the engine can be asked (the state and the plan of the
        first batches), ``first_batch_ms`` from there on to the first batch.
    """
    position = {"first": 0, "middle": num_samples // 2, "last": num_samples - 1}[place]
    ranks = {"rank": 0, "world_size": 1, "batch_size": BATCH_SIZE}
    with (
        open_dataset(folder) as dataset,
        training_loader(dataset, num_samples, engine=engine) as loader,
    ):
        state = loader.state_dict() | {"epoch": epoch, "position": position}
        begin = time.perf_counter()
        loader.load_state_dict(state)
        batches = iter(loader)
        next(iter_requests(loader.plan, epoch=epoch, position=position, **ranks))
        restored = time.perf_counter()
        next(batches)
        end = time.perf_counter()
    return {"restore_ms": 1000 * (restored - begin), "first_batch_ms": 1000 * (end - restored)}


def measure_restore(folder: Path, *, repeats: int, sizes: Sequence[int] = SIZES) -> list[Record]:
    """Restore at the first, middle and last sample of each epoch size, for each engine and codec,
    taking turns; ``folder`` holds a dataset of each codec.
    """
    runs: dict[Any, list[dict[str, float]]] = {
        case: [] for case in product(CASES, sizes, POSITIONS)
    }
    for epoch in range(1, repeats + 1):
        for ((engine, codec), size, place), done in runs.items():
            done.append(restore_once(folder / codec, engine, size, place, epoch))
    return [
        {"engine": engine, "codec": codec, "num_samples": size, "position": place} | spreads(done)
        for ((engine, codec), size, place), done in runs.items()
    ]


def watch_memory(folder: Path, engine: EngineName, epochs: int, epoch_samples: int) -> list[int]:
    """Go through epochs in this process and return its resident memory after each, with mapped
    pages of the tars.
    """
    resident = []
    with (
        open_dataset(folder) as dataset,
        training_loader(dataset, epoch_samples, engine=engine) as loader,
    ):
        for _ in range(epochs):
            for batch in loader:
                batch.images.sum()
            resident.append(memory_bytes("VmRSS"))
    return resident


def growth_pct(resident: Sequence[int]) -> float:
    """Return how much more the last five epochs took than epochs 5 to 9."""
    return 100 * (median(resident[LAST]) / median(resident[SETTLED]) - 1)


def endurance_blocks(record: Record) -> dict[str, str]:
    """Write the Markdown of a record: the blocks ``restore`` and ``memory``."""
    rows, entries = [], record["restore"]
    for first, middle, last in zip(entries[0::3], entries[1::3], entries[2::3], strict=True):
        group = (first, middle, last)
        cells = [first["engine"], first["codec"], f"{first['num_samples']:,}"]
        cells += [f"{entry['restore_ms']['median']:.2f}" for entry in group]
        cells.append(f"{max(entry['restore_ms']['max'] for entry in group):.2f}")
        cells.append(f"{max(entry['first_batch_ms']['median'] for entry in group):.1f}")
        rows.append(" | ".join(cells))
    header = "engine | codec | samples | first, ms | middle | last | slowest | first batch"
    restore = (
        f"`{record['command']}`,\n{cores_of(record)}, flow, batches of {record['batch_size']},"
        f" medians of {record['repeats']} fresh loaders:\n\n{markdown_table(header, rows)}"
    )
    rows = []
    for entry in record["memory"]:
        resident = entry["rss_bytes"]
        parts = (resident[:1], resident[SETTLED], resident[LAST])
        cells = [entry["engine"], entry["codec"], *(f"{median(p) / 1e6:.1f}" for p in parts)]
        rows.append(" | ".join([*cells, f"{growth_pct(resident):+.2f} %"]))
    header = "engine | codec | epoch 1 | epochs 5 to 9 | last 5 epochs | growth"
    memory = (
        f"Resident memory of a fresh process over {len(resident)} epochs of"
        f" {entry['num_samples']} samples, MB, mapped tars included:\n\n"
        f"{markdown_table(header, rows)}"
    )
    return {"restore": restore, "memory": memory}


def measure_endurance(folder: Path, *, repeats: int) -> Record:
    """Draw the data and measure both."""
    draw_windows(folder, num_subjects=6)
    memory = []
    for engine, codec in WATCHED:
        words = (folder / codec, engine, NUM_EPOCHS, EPOCH_SAMPLES)
        entry = {"engine": engine, "codec": codec, "num_samples": EPOCH_SAMPLES}
        memory.append(entry | {"rss_bytes": in_fresh_process(watch_memory, *words)})
    restore = measure_restore(folder, repeats=repeats)
    return {"batch_size": BATCH_SIZE, "repeats": repeats, "restore": restore, "memory": memory}


if __name__ == "__main__":
    run_benchmark(__doc__, measure_endurance, endurance_blocks)
