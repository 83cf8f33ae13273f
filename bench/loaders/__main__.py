"""``make bench``: this project's loaders against its peers, on the same windows, crops, batches and
cores, taking turns.

    python -m bench.loaders --json docs/results/loaders-cpu.json

A peer that is not installed or does not run here is left out, with the reason in the record.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

# DALI's memory pool: the first pipeline of the process fixes it, and that is a peer's.
import pipelines.engines.dali_graph  # noqa: F401
from bench.harness import Record, run_benchmark
from bench.loaders.report import COPYING_NAME, loader_blocks
from bench.loaders.windows import (
    BATCH_SIZE,
    STACK_LENGTH,
    RandomCut,
    Windows,
    draw_windows,
    training_loader,
)
from pipelines.dataset import open_dataset
from pipelines.engines.crop_resize import Cv2Cutter
from pipelines.engines.cutter import Cutter, make_cutter
from pipelines.engines.planes import open_planes
from pipelines.reading import Cache, EngineName
from pipelines.streams import FLOW
from pipelines.throughput.ceilings import copying_alone
from pipelines.throughput.measure import contender_of
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
    cutter: Callable[..., Cutter] = Cv2Cutter


class Own(NamedTuple):
    """A row of this project's; to a GPU it hands over float16, normalised, as training takes it."""

    name: str
    engine: EngineName
    codec: str
    cache: Cache = "none"
    dtype: torch.dtype = torch.uint8
    device: str = "cpu"


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
    Peer("DataLoader, mapped array, our kernel", "mapped_array", "raw", make_cutter),
    Peer("webdataset, npy, our kernel", "webdataset", "raw", make_cutter),
    Peer("webdataset, jpg, our kernel", "webdataset", "jpg", make_cutter),
    Peer("SPDL, raw, our kernel", "spdl", "raw", make_cutter),
    Peer("SPDL, jpg, our kernel", "spdl", "jpg", make_cutter),
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
    windows = replace(windows, cut=RandomCut(row.cutter))
    with module.epochs(windows, row.codec) as start_epoch:
        yield Contender(name=row.name, run_epoch=lambda _epoch: sum(map(len, start_epoch())))


@contextmanager
def open_own(row: Own, windows: Windows) -> Iterator[Contender]:
    """Deliver windows through ``make_loader``, of the server's dataset if they are remote."""
    home = windows.remote.url if windows.remote else windows.folder
    with (
        open_dataset(f"{home}/{row.codec}") as dataset,
        training_loader(
            dataset,
            windows.num_samples,
            engine=row.engine,
            device=row.device,
            dtype=row.dtype,
            cache=row.cache,
            num_threads=windows.num_workers,
            shard_cache=windows.remote.cache if windows.remote else None,
        ) as loader,
    ):
        yield contender_of(loader, name=row.name, device=row.device, dtype=row.dtype)


@contextmanager
def open_ceiling(windows: Windows) -> Iterator[Contender]:
    """Copy the crops of raw windows and do no more: what memory allows."""
    with open_dataset(windows.folder / "raw") as dataset:
        reader = open_planes(dataset, FLOW, stack_length=STACK_LENGTH)
        with copying_alone(reader, len(dataset), num_threads=windows.num_workers) as contender:
            yield replace(contender, name=COPYING_NAME)


def open_row(row: Peer | Own, windows: Windows) -> AbstractContextManager[Contender]:
    """Open a row of either kind."""
    return open_own(row, windows) if isinstance(row, Own) else open_peer(row, windows)


def measure_loaders(
    folder: Path, *, repeats: int, subjects: int, samples: int, seconds: float, only: str
) -> Record:
    """Draw the data, measure in turns what runs here, and return the record, with the reason for
    what does not.

    ``seconds`` is the least duration of a turn, ``only`` the modules of the peers to take, all if
    empty.
    """
    draw_windows(folder, num_subjects=subjects)
    windows = Windows(folder=folder, num_samples=samples)
    rows: list[Peer | Own] = [peer for peer in PEERS if not only or peer.module in only.split(",")]
    rows += OURS
    if torch.cuda.is_available():
        rows += [
            own._replace(name=f"{own.name} to the GPU", device="cuda", dtype=torch.float16)
            for own in OURS
        ]
    opened: dict[Peer | Own, Contender] = {}
    skipped: list[Record] = []
    with ExitStack() as stack:
        for row in rows:
            try:
                opened[row] = stack.enter_context(open_row(row, windows))
            except ImportError as error:
                skipped.append({"name": row.name, "reason": str(error)})
        opened[Peer(COPYING_NAME, "", "raw")] = stack.enter_context(open_ceiling(windows))
        on_progress = stack.enter_context(progress_bar("measurements", console=make_console()))
        contenders = list(opened.values())
        rates = measure_in_turns(
            contenders, repeats=repeats, seconds=seconds, on_progress=on_progress
        )
    records = [
        {
            "name": row.name,
            "is_ours": isinstance(row, Own),
            "codec": row.codec,
            "batch_size": BATCH_SIZE,
            "threads": windows.num_workers,
            "samples_per_s": spread(rates[row.name]),
        }
        for row in opened
    ]
    return {"records": records, "skipped": skipped}


if __name__ == "__main__":
    run_benchmark(
        __doc__,
        measure_loaders,
        loader_blocks,
        subjects=(12, "drawn, seven sequences each"),
        samples=(1024, "of an epoch"),
        seconds=(2.0, "least time of a turn"),
        only=("", "peers: png_tree,spdl,...; 'none' for no peer"),
    )
