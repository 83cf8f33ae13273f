"""How fast a loader's state restores at any position, and whether its process keeps its memory over
many epochs.

    python -m bench.endurance --json docs/results/endurance-cpu.json

Both engines on the CPU, flow stream, on drawn faces, codecs jpg and raw; memory is that of a fresh
process for each, of LZ4 too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from bench.harness import Record, cores_of, in_fresh_process, markdown_table, run_benchmark, spreads
from bench.loaders.windows import BATCH_SIZE, draw_windows
from pipelines.dataset import Dataset, open_dataset
from pipelines.loader import Loader, make_loader
from pipelines.plan.requests import iter_requests
from pipelines.reading import EngineName, Reading
from shard_builder.machine import num_usable_cores

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


def open_loader(dataset: Dataset, engine: EngineName, num_samples: int) -> Loader:
    """Open the loader of a training epoch of so many samples, ``float32`` as a CPU trains."""
    return make_loader(
        dataset,
        "flow",
        rows=np.resize(np.arange(len(dataset), dtype=np.int64), num_samples),
        training=True,
        batch_size=BATCH_SIZE,
        reading=Reading(engine=engine, num_threads=num_usable_cores()),
    )


def restore_once(
    dataset: Dataset, engine: EngineName, num_samples: int, place: str, epoch: int
) -> dict[str, float]:
    """Restore a state in a fresh loader and take the first batch; ``epoch`` is another one each
    time, because an epoch's order may be kept.

    Returns:
        Milliseconds: ``restore_ms`` until the engine can be asked (the state and the plan of the
        first batches), ``first_batch_ms`` from there on to the first batch.
    """
    position = {"first": 0, "middle": num_samples // 2, "last": num_samples - 1}[place]
    ranks = {"rank": 0, "world_size": 1, "batch_size": BATCH_SIZE}
    with open_loader(dataset, engine, num_samples) as loader:
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
    cases = [(*case, size, place) for case, size, place in product(CASES, sizes, POSITIONS)]
    runs: list[list[dict[str, float]]] = [[] for _ in cases]
    with open_dataset(folder / "jpg") as jpg, open_dataset(folder / "raw") as raw:
        for turn, (number, case) in enumerate(list(enumerate(cases)) * repeats):
            engine, codec, size, place = case
            dataset = {"jpg": jpg, "raw": raw}[codec]
            runs[number].append(restore_once(dataset, engine, size, place, epoch=1 + turn))
    names = ("engine", "codec", "num_samples", "position")
    return [
        dict(zip(names, case, strict=True)) | spreads(done)
        for case, done in zip(cases, runs, strict=True)
    ]


def watch_memory(folder: Path, engine: EngineName, epochs: int, epoch_samples: int) -> list[int]:
    """Go through epochs in this process and return its resident memory after each, with mapped
    pages of the tars.
    """
    resident = []
    with open_dataset(folder) as dataset, open_loader(dataset, engine, epoch_samples) as loader:
        for _ in range(epochs):
            for batch in loader:
                batch.images.sum()
            resident.append(psutil.Process().memory_info().rss)
    return resident


def measure_memory(
    folder: Path,
    *,
    cases: Sequence[tuple[EngineName, str]] = WATCHED,
    epochs: int = NUM_EPOCHS,
    epoch_samples: int = EPOCH_SAMPLES,
) -> list[Record]:
    """Watch each engine and codec in a fresh process."""
    records: list[Record] = []
    for engine, codec in cases:
        rss = in_fresh_process(watch_memory, folder / codec, engine, epochs, epoch_samples)
        growth_pct = round(100 * (median(rss[LAST]) / median(rss[SETTLED]) - 1), 2)
        record = {"engine": engine, "codec": codec, "num_samples": epoch_samples}
        records.append(record | {"rss_bytes": rss, "growth_pct": growth_pct})
    return records


def endurance_blocks(record: Record) -> dict[str, str]:
    """Write the Markdown of a record: the blocks ``restore`` and ``memory``."""
    rows = []
    for number in range(0, len(record["restore"]), len(POSITIONS)):
        group = record["restore"][number : number + len(POSITIONS)]
        medians = " | ".join(f"{entry['restore_ms']['median']:.2f}" for entry in group)
        slowest = max(entry["restore_ms"]["max"] for entry in group)
        first_batch = max(entry["first_batch_ms"]["median"] for entry in group)
        rows.append(
            f"{group[0]['engine']} | {group[0]['codec']} | {group[0]['num_samples']:,}"
            f" | {medians} | {slowest:.2f} | {first_batch:.1f}"
        )
    header = "engine | codec | samples | first, ms | middle | last | slowest"
    restore = (
        f"`{record['command']}`,\n{cores_of(record)}, flow, batches of {record['batch_size']},"
        f" medians of {record['repeats']} fresh loaders:\n\n"
        f"{markdown_table(f'{header} | first batch', rows)}"
    )
    rows = []
    for entry in record["memory"]:
        parts = (entry["rss_bytes"][part] for part in (slice(1), SETTLED, LAST))
        values = " | ".join(f"{median(part) / 1e6:.1f}" for part in parts)
        rows.append(
            f"{entry['engine']} | {entry['codec']} | {values} | {entry['growth_pct']:+.2f} %"
        )
    header = "engine | codec | epoch 1 | epochs 5 to 9 | last 5 epochs | growth"
    memory = (
        f"Resident memory of a fresh process over {len(entry['rss_bytes'])} epochs of"
        f" {entry['num_samples']} samples, MB, mapped tars included:\n\n"
        f"{markdown_table(header, rows)}"
    )
    return {"restore": restore, "memory": memory}


def measure_endurance(folder: Path, options: argparse.Namespace) -> Record:
    """Draw the data and measure both."""
    draw_windows(folder, num_subjects=options.subjects)
    return {
        "format": "ckshard-endurance",
        "version": 1,
        "batch_size": BATCH_SIZE,
        "threads": num_usable_cores(),
        "repeats": options.repeats,
        "restore": measure_restore(folder, repeats=options.repeats),
        "memory": measure_memory(folder),
    }


if __name__ == "__main__":
    subjects = (6, "drawn, seven sequences each")
    run_benchmark(__doc__, measure_endurance, endurance_blocks, subjects=subjects)
