"""``make bench``: this project's loaders against its peers, on the same windows, crops, batches and
cores, taking turns.

    python -m bench.loaders --json docs/results/loaders-cpu.json

A peer that is not installed or does not run here is left out, with the reason in the record.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pipelines.engines.dali_graph  # noqa: F401  DALI's memory pool: the first pipeline of the process fixes it, and that is a peer's
from bench.loaders.windows import (
    BATCH_SIZE,
    EPOCH_SAMPLES,
    NUM_WORKERS,
    WindowFolders,
    make_window_folders,
)
from pipelines.dataset import open_dataset
from pipelines.loader import make_loader
from pipelines.reading import Reading
from pipelines.throughput.measure import MIN_REPEATS
from pipelines.throughput.turns import Contender, machine_facts, measure_in_turns, median_and_range
from shard_builder.console import make_console
from shard_builder.progress import progress_bar
from shard_builder.provenance import command_line, git_revision, package_versions

PEERS = (
    ("bench.loaders.peer_torch", "png_tree", "png"),
    ("bench.loaders.peer_torch", "mapped_array", "raw"),
    ("bench.loaders.peer_webdataset", "web_loader", "png"),
    ("bench.loaders.peer_webdataset", "web_loader", "jpg"),
    ("bench.loaders.peer_webdataset", "web_loader", "raw"),
    ("bench.loaders.peer_dali", "webdataset_reader", "jpg"),
    ("bench.loaders.peer_dali", "webdataset_reader", "raw"),
    ("bench.loaders.peer_streaming", "streaming_dataset", "jpg"),
    ("bench.loaders.peer_streaming", "streaming_dataset", "raw"),
    ("bench.loaders.peer_litdata", "streaming_dataset", "jpg"),
    ("bench.loaders.peer_litdata", "streaming_dataset", "raw"),
    ("bench.loaders.peer_spdl", "thread_pipeline", "jpg"),
    ("bench.loaders.peer_spdl", "thread_pipeline", "raw"),
    ("bench.loaders.peer_ffcv", "ffcv_loader", "raw"),
)
OURS = (
    ("cpu", "jpg", "none"),
    ("cpu", "jpg", "ram"),
    ("cpu", "raw", "none"),
    ("dali", "jpg", "none"),
    ("dali", "jpg", "ram"),
    ("dali", "raw", "none"),
)


@contextmanager
def own_loader(
    folders: WindowFolders, *, engine: str, codec: str, cache: str, device: str
) -> Iterator[Contender]:
    """Deliver windows through ``make_loader``; to a GPU half precision, normalised, as training
    takes them.
    """
    on_gpu = device != "cpu"
    dtype = torch.float16 if on_gpu else torch.uint8
    with open_dataset(folders.raw if codec == "raw" else folders.jpg) as dataset:
        rows = np.tile(np.arange(len(dataset)), EPOCH_SAMPLES // len(dataset) + 1)[:EPOCH_SAMPLES]
        with make_loader(
            dataset,
            "flow",
            rows=rows,
            training=True,
            batch_size=BATCH_SIZE,
            reading=Reading(
                engine=engine,  # type: ignore[arg-type]
                device=device,
                dtype=dtype,
                num_threads=NUM_WORKERS,
                cache=cache,  # type: ignore[arg-type]
            ),
        ) as loader:

            def run_epoch(epoch: int) -> int:
                num_samples = sum(len(batch.keys) for batch in loader)
                if on_gpu:
                    torch.cuda.synchronize()
                return num_samples

            yield Contender(
                name=(
                    f"{engine}{' to the GPU' if on_gpu else ''},"
                    f" {codec}{' cached' if cache == 'ram' else ''}"
                ),
                engine=engine,
                codec=codec,
                dtype=str(dtype).removeprefix("torch."),
                run_epoch=run_epoch,
            )


def open_contenders(
    folders: WindowFolders, stack: ExitStack, *, only: tuple[str, ...] = ()
) -> tuple[list[tuple[Contender, bool]], list[dict[str, str]]]:
    """Open everything that runs here.

    Args:
        folders: The data.
        stack: Closes the contenders.
        only: Module names of the peers to take; all if empty.

    Returns:
        Contenders, each with whether it is this project's; and what was left out, with ``name`` and
        ``reason``.
    """
    contenders: list[tuple[Contender, bool]] = []
    skipped: list[dict[str, str]] = []
    for module, function, codec in PEERS:
        if only and module.removeprefix("bench.peer_") not in only:
            continue
        try:
            open_peer: Callable[..., AbstractContextManager[Contender]] = getattr(
                importlib.import_module(module), function
            )
            contenders.append((stack.enter_context(open_peer(folders, codec)), False))
        except ImportError as error:
            skipped.append(
                {"name": f"{module.removeprefix('bench.peer_')}, {codec}", "reason": str(error)}
            )
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for engine, codec, cache in OURS:
            open_own = partial(own_loader, engine=engine, codec=codec, cache=cache, device=device)
            contenders.append((stack.enter_context(open_own(folders)), True))
    return contenders, skipped


def measure_loaders(
    folders: WindowFolders,
    *,
    repeats: int,
    seconds: float,
    only: tuple[str, ...] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure all contenders in turns and return the record."""
    with ExitStack() as stack:
        contenders, skipped = open_contenders(folders, stack, only=only)
        rates = measure_in_turns(
            [contender for contender, _ in contenders],
            repeats=repeats,
            seconds=seconds,
            on_progress=on_progress,
        )
        records = [
            {
                "name": contender.name,
                "engine": contender.engine,
                "is_ours": is_ours,
                "stream": "flow",
                "codec": contender.codec,
                "dtype": contender.dtype,
                "batch_size": BATCH_SIZE,
                "threads": NUM_WORKERS,
                "samples_per_s": {
                    **median_and_range(rates[contender.name]),
                    "runs": rates[contender.name],
                },
            }
            for contender, is_ours in contenders
        ]
    return {
        "command": command_line(),
        "revision": git_revision(),
        "machine": machine_facts(),
        "versions": package_versions(),
        "records": records,
        "skipped": skipped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the generated data is kept; a temporary folder by default",
    )
    parser.add_argument("--subjects", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument(
        "--only",
        default="",
        help="comma-separated peers: torch, webdataset, dali, ...; 'none' for no peer",
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.repeats < MIN_REPEATS:
        parser.error(f"--repeats {options.repeats}, expected {MIN_REPEATS} or more")
    console = make_console()
    with tempfile.TemporaryDirectory(prefix="ckshard-bench-") as temporary:
        folders = make_window_folders(
            options.folder or Path(temporary), num_subjects=options.subjects
        )
        with progress_bar("measurements", console=console) as report:
            record = measure_loaders(
                folders,
                repeats=options.repeats,
                seconds=options.seconds,
                only=tuple(options.only.split(",")) if options.only else (),
                on_progress=report,
            )
    for entry in record["records"]:
        rate = entry["samples_per_s"]
        console.print(
            f"{entry['name']:34s} {rate['median']:9,.0f}/s   {rate['min']:,.0f} -"
            f" {rate['max']:,.0f}"
        )
    for entry in record["skipped"]:
        console.print(f"{entry['name']:34s} left out: {entry['reason']}")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
