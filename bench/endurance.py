"""How fast a loader's state restores at any position, and whether its process keeps its memory over
many epochs.

    python -m bench.endurance --json docs/results/endurance-cpu.json

Both engines on the CPU, codecs jpg and raw, flow stream, on drawn faces; memory is that of a fresh
process for each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.building.model import spread
from bench.loaders.windows import BATCH_SIZE, NUM_WORKERS, WindowFolders, make_window_folders
from pipelines.dataset import Dataset, open_dataset
from pipelines.loader import Loader, make_loader
from pipelines.plan.requests import iter_requests
from pipelines.reading import Reading
from pipelines.throughput.measure import MIN_REPEATS
from pipelines.throughput.turns import machine_facts
from shard_builder.provenance import command_line, git_revision, package_versions

ROOT = Path(__file__).parent.parent
STATUS = Path("/proc/self/status")
CASES = tuple(product(("cpu", "dali"), ("jpg", "raw")))
"""Engine and codec."""
POSITIONS = ("first", "middle", "last")
SETTLED = slice(4, 9)
"""Epochs 5 to 9: buffers and caches have their size, and every page of the tars has been read."""
NUM_LAST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured; the defaults are those of the committed record.

    Args:
        sizes: Samples of the epochs in which states are restored; the dataset's rows again and
            again.
        repeats: Restores of each, at least 5 to be published.
        epochs: Epochs of each memory process, at least 10.
        epoch_samples: Samples of these epochs.
    """

    sizes: tuple[int, ...] = (1024, 1_000_000)
    repeats: int = MIN_REPEATS
    epochs: int = 20
    epoch_samples: int = 512


def open_loader(dataset: Dataset, engine: str, num_samples: int) -> Loader:
    """Open the loader of a training epoch of so many samples, ``float32`` as a CPU trains."""
    rows = np.resize(np.arange(len(dataset), dtype=np.int64), num_samples)
    return make_loader(
        dataset,
        "flow",
        rows=rows,
        training=True,
        batch_size=BATCH_SIZE,
        reading=Reading(engine=engine, num_threads=NUM_WORKERS),  # type: ignore[arg-type]
    )


def restore_once(
    dataset: Dataset, engine: str, num_samples: int, position: int, epoch: int
) -> dict[str, float]:
    """Restore a state in a fresh loader, take the first batch, and restore it again under the
    running iteration.

    Args:
        dataset: Open dataset.
        engine: ``cpu`` or ``dali``.
        num_samples: Samples of the epoch.
        position: Position of the state.
        epoch: Epoch of the state, another one each time: an epoch's order may be kept once it has
            been computed.

    Returns:
        Milliseconds: ``restore_ms`` until the engine can be asked (the state and the plan of the
            first batches), ``first_batch_ms`` from
        there on to the first batch, ``running_ms`` of restoring while a loop is under way, which
        throws away what was read ahead.
    """
    with open_loader(dataset, engine, num_samples) as loader:
        state = loader.state_dict() | {"epoch": epoch, "position": position}
        begin = time.perf_counter()
        loader.load_state_dict(state)
        batches = iter(loader)
        next(
            iter_requests(
                loader.plan,
                epoch=epoch,
                position=position,
                batch_size=BATCH_SIZE,
                rank=0,
                world_size=1,
            )
        )
        restored = time.perf_counter()
        first = next(batches)
        taken = time.perf_counter()
        if first.positions[0] != position:
            raise RuntimeError(
                f"the first batch begins at {first.positions[0]}, expected {position}"
            )
        del first
        again = time.perf_counter()
        loader.load_state_dict(state)
        end = time.perf_counter()
    seconds = {
        "restore_ms": restored - begin,
        "first_batch_ms": taken - restored,
        "running_ms": end - again,
    }
    return {name: 1000 * value for name, value in seconds.items()}


def measure_restore(folders: WindowFolders, scale: Scale) -> list[dict[str, Any]]:
    """Restore at the first, middle and last sample of each epoch size, for each engine and codec,
    taking turns.
    """
    cases = [(*case, size, place) for case, size, place in product(CASES, scale.sizes, POSITIONS)]
    runs: list[list[dict[str, float]]] = [[] for _ in cases]
    with open_dataset(folders.jpg) as jpg, open_dataset(folders.raw) as raw:
        datasets = {"jpg": jpg, "raw": raw}
        for repeat in range(scale.repeats):
            for number, (engine, codec, size, place) in enumerate(cases):
                position = {"first": 0, "middle": size // 2, "last": size - 1}[place]
                epoch = 1 + repeat * len(cases) + number
                runs[number].append(restore_once(datasets[codec], engine, size, position, epoch))
    return [
        {
            "engine": engine,
            "codec": codec,
            "num_samples": size,
            "position": place,
            **{name: spread([run[name] for run in done]) for name in done[0]},
        }
        for (engine, codec, size, place), done in zip(cases, runs, strict=True)
    ]


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM, mapped pages of the tars included."""
    line = next(
        line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmRSS")
    )
    return 1024 * int(line.split()[1])


def watch_memory(folder: Path, engine: str, epochs: int, epoch_samples: int) -> list[int]:
    """Go through epochs in this process and return its memory after each."""
    found = []
    with open_dataset(folder) as dataset, open_loader(dataset, engine, epoch_samples) as loader:
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            for batch in loader:
                batch.images.sum()
            found.append(resident_bytes())
    return found


def measure_memory(
    folders: WindowFolders, scale: Scale, cases: Sequence[tuple[str, str]] = CASES
) -> list[dict[str, Any]]:
    """Watch each engine and codec in a fresh process."""
    records = []
    for engine, codec in cases:
        folder = str((folders.raw if codec == "raw" else folders.jpg).resolve())
        words = ["--watch", engine, folder, str(scale.epochs), str(scale.epoch_samples)]
        command = [sys.executable, "-m", "bench.endurance", *words]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        rss_bytes = json.loads(done.stdout)
        records.append(
            {
                "engine": engine,
                "codec": codec,
                "num_samples": scale.epoch_samples,
                "rss_bytes": rss_bytes,
                "growth_pct": growth_pct(rss_bytes),
            }
        )
    return records


def growth_pct(rss_bytes: Sequence[int]) -> float:
    """Return by how much the median of the last five epochs is above that of epochs 5 to 9, in
    percent.

    >>> growth_pct([10, 50, 90, 100, 100, 100, 100, 100, 100, 100, 101, 101, 101, 101, 101])
    1.0
    """
    settled, last = statistics.median(rss_bytes[SETTLED]), statistics.median(rss_bytes[-NUM_LAST:])
    return round(100 * (last / settled - 1), 2)


def run_endurance(folder: Path, scale: Scale, *, num_subjects: int) -> dict[str, Any]:
    """Measure everything and return the record, without its command; ``folder`` keeps the drawn
    data.
    """
    folders = make_window_folders(folder, num_subjects=num_subjects)
    return {
        "format": "ckshard-endurance",
        "version": 1,
        "revision": git_revision(),
        "machine": machine_facts(),
        "versions": package_versions(),
        "batch_size": BATCH_SIZE,
        "threads": NUM_WORKERS,
        "repeats": scale.repeats,
        "restore": measure_restore(folders, scale),
        "memory": measure_memory(folders, scale),
    }


def endurance_blocks(record: dict[str, Any]) -> dict[str, str]:
    """Write the Markdown of a record, by the names of the blocks it goes into: ``restore`` and
    ``memory``.
    """
    return {"restore": _restore_block(record), "memory": _memory_block(record)}


def _restore_block(record: dict[str, Any]) -> str:
    machine, entries = record["machine"], record["restore"]
    slowest = max(entry["restore_ms"]["max"] for entry in entries)
    lines = [
        (
            f"`{record['command']}`, {machine['usable_cores']} cores of {machine['processor']},"
            f" flow, batches of {record['batch_size']},"
        ),
        (
            f"medians of {record['repeats']} fresh loaders; the slowest restore of all took"
            f" {slowest:.2f} ms:"
        ),
        "",
        (
            "| engine | codec | samples | at the first, ms | middle | last | slowest | then first"
            " batch | in a running loop |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for engine, codec, size in dict.fromkeys(
        (e["engine"], e["codec"], e["num_samples"]) for e in entries
    ):
        found = [
            e
            for e in entries
            if (e["engine"], e["codec"], e["num_samples"]) == (engine, codec, size)
        ]
        places = {e["position"]: e["restore_ms"]["median"] for e in found}
        cells = [engine, codec, f"{size:,}", *(f"{places[place]:.2f}" for place in POSITIONS)]
        cells += [f"{max(e['restore_ms']['max'] for e in found):.2f}"]
        cells += [
            f"{max(e[name]['median'] for e in found):.1f}"
            for name in ("first_batch_ms", "running_ms")
        ]
        lines.append(f"| {' | '.join(cells)} |")
    sentence = (
        "Restoring sets the state and plans the first batches; decoding one comes after it. In a"
        " running loop the engine first ends\nwhat it has read ahead. These two columns are the"
        " slowest median of the three positions."
    )
    return "\n".join([*lines, "", sentence])


def _memory_block(record: dict[str, Any]) -> str:
    first = record["memory"][0]
    lines = [
        (
            f"Resident memory of a fresh process over {len(first['rss_bytes'])} epochs of"
            f" {first['num_samples']} samples, MB:"
        ),
        "",
        "| engine | codec | epoch 1 | epochs 5 to 9 | last 5 epochs | growth |",
        "|---|---|---|---|---|---|",
    ]
    for entry in record["memory"]:
        rss_bytes = entry["rss_bytes"]
        values = (
            rss_bytes[0],
            statistics.median(rss_bytes[SETTLED]),
            statistics.median(rss_bytes[-NUM_LAST:]),
        )
        cells = [entry["engine"], entry["codec"], *(f"{value / 1e6:.1f}" for value in values)]
        lines.append(f"| {' | '.join(cells)} | {entry['growth_pct']:+.2f} % |")
    return "\n".join(
        [
            *lines,
            "",
            "The median of the last five epochs against that of epochs 5 to 9; mapped tars count.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where the record goes")
    parser.add_argument(
        "--folder", type=Path, help="where the drawn data is kept; a temporary folder by default"
    )
    parser.add_argument("--subjects", type=int, default=6, help="seven sequences each")
    parser.add_argument("--repeats", type=int, default=MIN_REPEATS)
    parser.add_argument(
        "--watch",
        nargs=4,
        metavar=("ENGINE", "DATASET", "EPOCHS", "SAMPLES"),
        help=argparse.SUPPRESS,
    )
    options = parser.parse_args()
    if options.watch:
        engine, dataset, epochs, samples = options.watch
        print(json.dumps(watch_memory(Path(dataset), engine, int(epochs), int(samples))))
        return
    if options.repeats < MIN_REPEATS:
        parser.error(f"--repeats {options.repeats}, expected {MIN_REPEATS} or more")
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ckshard-bench-") as temporary:
        folder = options.folder or Path(temporary)
        record = run_endurance(
            folder, Scale(repeats=options.repeats), num_subjects=options.subjects
        )
    record["command"] = command_line()
    record["seconds"] = round(time.perf_counter() - begin, 1)
    for block in endurance_blocks(record).values():
        print(block, end="\n\n")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
