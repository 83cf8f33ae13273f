"""``make bench``: this project's loaders against its peers, on the same windows, crops, batches and
cores, taking turns.

    python -m bench.loaders --json docs/results/loaders-cpu.json

A peer that is not installed or does not run here is left out, with the reason in the record.
"""

from __future__ import annotations

import argparse
import importlib
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
from bench.harness import Record, run_benchmark
from bench.loaders.report import COPYING_NAME, loader_blocks
from bench.loaders.windows import BATCH_SIZE, STACK_LENGTH, RandomCut, Windows, draw_windows
from pipelines.dataset import open_dataset
from pipelines.engines.crop_resize import Cv2Cutter
from pipelines.engines.cutter import Cutter, make_cutter
from pipelines.engines.planes import open_planes
from pipelines.loader import make_loader
from pipelines.reading import Cache, EngineName, Reading
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
    engine, windows = row.module.replace("_", "-"), replace(windows, cut=RandomCut(row.cutter))
    with module.epochs(windows, row.codec) as start_epoch:

        def run_epoch(_epoch: int) -> int:
            return sum(map(len, start_epoch()))

        yield Contender(
            name=row.name, engine=engine, codec=row.codec, dtype="uint8", run_epoch=run_epoch
        )


@contextmanager
def open_own(row: Own, windows: Windows, device: str = "cpu") -> Iterator[Contender]:
    """Deliver windows through ``make_loader``, of the server's ``own-CODEC`` if they are remote."""
    dtype, place = row.dtype if device == "cpu" else torch.float16, str(windows.folder / row.codec)
    if windows.remote:
        place = f"{windows.remote.url}/own-{row.codec}"
    with open_dataset(place) as dataset:
        loader = make_loader(
            dataset,
            "flow",
            rows=np.resize(np.arange(len(dataset), dtype=np.int64), windows.num_samples),
            training=True,
            batch_size=BATCH_SIZE,
            reading=Reading(
                engine=row.engine,
                device=device,
                dtype=dtype,
                num_threads=windows.num_workers,
                cache=row.cache,
                shard_cache=windows.remote.cache if windows.remote else None,
            ),
        )
        with loader:
            name = row.name if device == "cpu" else f"{row.name} to the GPU"
            names = {"name": name, "engine": row.engine, "codec": row.codec}
            yield contender_of(loader, device=device, dtype=dtype, **names)


@contextmanager
def open_ceiling(windows: Windows) -> Iterator[Contender]:
    """Copy the crops of raw windows and do no more: what memory allows."""
    with open_dataset(windows.folder / "raw") as dataset:
        reader = open_planes(dataset, FLOW, stack_length=STACK_LENGTH)
        with copying_alone(reader, len(dataset), num_threads=windows.num_workers) as contender:
            yield replace(contender, name=COPYING_NAME)


def open_row(
    stack: ExitStack, row: Peer | Own, windows: Windows, skipped: list[Record], device: str = "cpu"
) -> Contender | None:
    """Open a row until the stack is closed; or say in ``skipped`` why its peer is left out."""
    try:
        if isinstance(row, Own):
            return stack.enter_context(open_own(row, windows, device))
        return stack.enter_context(open_peer(row, windows))
    except ImportError as error:
        skipped.append({"name": row.name, "reason": str(error)})
        return None


def measure_loaders(
    windows: Windows, *, repeats: int, seconds: float, only: Sequence[str] = ()
) -> Record:
    """Measure in turns what runs here and return the record, with the reason for what does not.

    ``seconds`` is the least duration of a turn, ``only`` the modules of the peers to take, all if
    empty.
    """
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    peers = [peer for peer in PEERS if not only or peer.module in only]
    skipped: list[Record] = []
    with ExitStack() as stack:
        opened = [(False, open_row(stack, peer, windows, skipped)) for peer in peers]
        opened += [
            (True, open_row(stack, own, windows, skipped, device))
            for device, own in product(devices, OURS)
        ]
        opened.append((False, stack.enter_context(open_ceiling(windows))))
        on_progress = stack.enter_context(progress_bar("measurements", console=make_console()))
        contenders = [contender for _, contender in opened if contender]
        rates = measure_in_turns(
            contenders, repeats=repeats, seconds=seconds, on_progress=on_progress
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
            "threads": windows.num_workers,
            "samples_per_s": spread(rates[contender.name]),
        }
        for is_ours, contender in opened
        if contender
    ]
    return {"records": records, "skipped": skipped}


def measure(folder: Path, options: argparse.Namespace) -> Record:
    """Draw the data and measure."""
    draw_windows(folder, num_subjects=options.subjects)
    windows, only = Windows(folder=folder, num_samples=options.samples), options.only.split(",")
    only = [name for name in only if name]
    return measure_loaders(windows, repeats=options.repeats, seconds=options.seconds, only=only)


if __name__ == "__main__":
    run_benchmark(
        __doc__,
        measure,
        loader_blocks,
        subjects=(12, "drawn, seven sequences each"),
        samples=(1024, "of an epoch"),
        seconds=(2.0, "least time of a turn"),
        only=("", "peers: png_tree,spdl,...; 'none' for no peer"),
    )
