"""``make bench``: this project's loaders against its peers, on the same windows, crops, batches and
cores, taking turns.

    python -m bench.loaders --json docs/results/loaders-cpu.json

A peer that is not installed or does not run here is left out, with the reason in the record.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

# DALI's memory pool: the first pipeline of the process fixes it, and that is a peer's.
import pipelines.engines.dali_graph  # noqa: F401
from bench.loaders.report import COPYING_NAME, loader_blocks, plot_loaders
from bench.loaders.windows import (
    BATCH_SIZE,
    STACK_LENGTH,
    KernelCut,
    RandomCut,
    Windows,
    draw_windows,
)
from bench.records import Record, make_parser, provenance, write_record
from pipelines.dataset import open_dataset
from pipelines.engines.planes import open_planes
from pipelines.loader import make_loader
from pipelines.reading import Cache, EngineName, Reading
from pipelines.streams import FLOW
from pipelines.throughput.ceilings import copying_alone
from pipelines.throughput.turns import Contender, measure_in_turns, spread
from shard_builder.console import make_console
from shard_builder.progress import progress_bar


class Peer(NamedTuple):
    """A row of the comparison: a module of ``bench.loaders.peers``, what it stores, what it cuts
    with.
    """

    name: str
    module: str
    codec: str
    new_cut: Callable[[], RandomCut] = RandomCut


class Own(NamedTuple):
    """A row of this project's; on a GPU it hands over float16, normalised, as training takes it."""

    name: str
    engine: EngineName
    codec: str
    cache: Cache = "none"
    dtype: torch.dtype = torch.uint8


PEERS = (
    Peer("DataLoader, PNG tree (the original)", "png_tree", "png"),
    Peer("DataLoader, mapped array", "mapped_array", "raw"),
    Peer("webdataset, png", "webdataset", "png"),
    Peer("webdataset, jpg", "webdataset", "jpg"),
    Peer("webdataset, npy", "webdataset", "raw"),
    Peer("DALI reader, jpg", "dali_reader", "jpg"),
    Peer("DALI reader, raw", "dali_reader", "raw"),
    Peer("MosaicML Streaming, jpg", "streaming", "jpg"),
    Peer("MosaicML Streaming, raw", "streaming", "raw"),
    Peer("LitData, jpg", "litdata", "jpg"),
    Peer("LitData, raw", "litdata", "raw"),
    Peer("SPDL, jpg", "spdl", "jpg"),
    Peer("SPDL, raw", "spdl", "raw"),
    Peer("FFCV, raw", "ffcv", "raw"),
    Peer("DataLoader, mapped array, our kernel", "mapped_array", "raw", KernelCut),
    Peer("webdataset, npy, our kernel", "webdataset", "raw", KernelCut),
    Peer("webdataset, jpg, our kernel", "webdataset", "jpg", KernelCut),
    Peer("SPDL, raw, our kernel", "spdl", "raw", KernelCut),
    Peer("SPDL, jpg, our kernel", "spdl", "jpg", KernelCut),
)
OURS = (
    Own("cpu, jpg", "cpu", "jpg"),
    Own("cpu, jpg cached", "cpu", "jpg", cache="ram"),
    Own("cpu, lz4", "cpu", "lz4"),
    Own("cpu, lz4 cached", "cpu", "lz4", cache="ram"),
    Own("cpu, raw", "cpu", "raw"),
    Own("cpu, raw float32", "cpu", "raw", dtype=torch.float32),
    Own("dali, jpg", "dali", "jpg"),
    Own("dali, jpg cached", "dali", "jpg", cache="ram"),
    Own("dali, raw", "dali", "raw"),
)


@contextmanager
def open_peer(row: Peer, windows: Windows) -> Iterator[Contender]:
    """Open a peer; its batches are (N, 224, 224, 10)."""
    module = importlib.import_module(f"bench.loaders.peers.{row.module}")
    with module.epochs(replace(windows, new_cut=row.new_cut), row.codec) as start_epoch:
        yield Contender(
            name=row.name,
            engine=row.module.replace("_", "-"),
            codec=row.codec,
            dtype="uint8",
            run_epoch=lambda _epoch: sum(map(len, start_epoch())),
        )


@contextmanager
def open_own(row: Own, windows: Windows, device: str) -> Iterator[Contender]:
    """Deliver windows through ``make_loader``, of the server's ``own-CODEC`` if they are remote."""
    dtype, place = row.dtype if device == "cpu" else torch.float16, str(windows.folder / row.codec)
    if windows.remote:
        place = f"{windows.remote.url}/own-{row.codec}"
    reading = Reading(
        engine=row.engine,
        device=device,
        dtype=dtype,
        num_threads=windows.num_workers,
        cache=row.cache,
        shard_cache=windows.remote.cache if windows.remote else None,
    )
    with open_dataset(place) as dataset:
        rows = np.resize(np.arange(len(dataset), dtype=np.int64), windows.num_samples)
        with make_loader(
            dataset, "flow", rows=rows, training=True, batch_size=BATCH_SIZE, reading=reading
        ) as loader:

            def run_epoch(_epoch: int) -> int:
                num_samples = sum(len(batch.keys) for batch in loader)
                if device != "cpu":
                    torch.cuda.synchronize()
                return num_samples

            yield Contender(
                name=row.name if device == "cpu" else f"{row.name} to the GPU",
                engine=row.engine,
                codec=row.codec,
                dtype=str(dtype).removeprefix("torch."),
                run_epoch=run_epoch,
                end_turn=loader._stop_reading,
            )


@contextmanager
def open_ceiling(windows: Windows) -> Iterator[Contender]:
    """Copy the crops of raw windows and do no more: what memory allows."""
    with open_dataset(windows.folder / "raw") as dataset:
        reader = open_planes(dataset, FLOW, stack_length=STACK_LENGTH)
        with copying_alone(reader, len(dataset), num_threads=windows.num_workers) as contender:
            yield replace(contender, name=COPYING_NAME)


def measure_loaders(
    windows: Windows,
    *,
    repeats: int,
    seconds: float,
    only: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Record:
    """Measure in turns what runs here and return the record, with the reason for what does not.

    ``seconds`` is the least duration of a turn, ``only`` the modules of the peers to take, all if
    empty; ``on_progress`` is called with the measurements done and in all.
    """
    contenders: list[Contender] = []
    skipped: list[dict[str, str]] = []
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    with ExitStack() as stack:
        for peer in PEERS:
            if not only or peer.module in only:
                try:
                    contenders.append(stack.enter_context(open_peer(peer, windows)))
                except ImportError as error:
                    skipped.append({"name": peer.name, "reason": str(error)})
        num_peers = len(contenders)
        for device, own in product(devices, OURS):
            contenders.append(stack.enter_context(open_own(own, windows, device)))
        contenders.append(stack.enter_context(open_ceiling(windows)))
        rates = measure_in_turns(
            contenders, repeats=repeats, seconds=seconds, on_progress=on_progress
        )
    records = [
        {
            "name": contender.name,
            "engine": contender.engine,
            "is_ours": number >= num_peers and contender.name != COPYING_NAME,
            "stream": "flow",
            "codec": contender.codec,
            "dtype": contender.dtype,
            "batch_size": BATCH_SIZE,
            "threads": windows.num_workers,
            "samples_per_s": spread(rates[contender.name]),
        }
        for number, contender in enumerate(contenders)
    ]
    return {**provenance(), "records": records, "skipped": skipped}


def main() -> None:
    parser = make_parser(__doc__, subjects=12)
    parser.add_argument("--folder", type=Path, help="keeps the generated data; else temporary")
    parser.add_argument("--samples", type=int, default=1024, help="of an epoch")
    parser.add_argument("--seconds", type=float, default=2.0, help="least time of a turn")
    parser.add_argument("--only", default="", help="peers: png_tree,spdl,...; 'none' for no peer")
    parser.add_argument("--plot", type=Path, help="where the figure goes")
    options = parser.parse_args()
    console = make_console()
    with tempfile.TemporaryDirectory(prefix="ckshard-bench-") as temporary:
        folder = options.folder or Path(temporary)
        draw_windows(folder, num_subjects=options.subjects)
        with progress_bar("measurements", console=console) as report:
            record = measure_loaders(
                Windows(folder=folder, num_samples=options.samples),
                repeats=options.repeats,
                seconds=options.seconds,
                only=[name for name in options.only.split(",") if name],
                on_progress=report,
            )
    write_record(record, options.json)
    if options.plot:
        plot_loaders(record, options.plot)
    for block in loader_blocks(record).values():
        console.print(block, markup=False, soft_wrap=True, end="\n\n")


if __name__ == "__main__":
    main()
