"""Windows read from an nginx on loopback, at once and 20 ms later: this project's loader beside its
peers, and what a simulated device waits in training.

    python -m bench.cloud --json docs/results/cloud.json
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

import models.build
from bench.harness import (
    Record,
    cores_of,
    in_fresh_process,
    markdown_table,
    median_and_range,
    memory_bytes,
    run_benchmark,
    spreads,
)
from bench.loaders.__main__ import Own, Peer, open_row
from bench.loaders.windows import BATCH_SIZE, CODECS, Remote, Windows, draw_windows
from bench.nginx import DELAYED_MS, Server, serve_files
from bench.scaling import write_large_index
from models.build import switch_to_training
from pipelines.dataset import open_dataset
from pipelines.throughput.turns import spread
from shard_builder.format.manifest import read_manifest
from shard_builder.split import Split
from train.config import TrainConfig
from train.distributed import Ranks
from train.running.session import Session, open_session
from train.running.stall import StallTimer
from train.running.step import iter_steps

COPIES, DEVICE_MS, DEVICE_BATCH = 8, 10, 10
WAYS = {"at-once": 0, "delayed": DELAYED_MS}
"""Where the server has the files, and the latency of a request in ms."""
CODEC_PAIRS = {"jpg": "jpg", "raw": "lz4"}
"""Of peers, and ours beside it: with loss, and without."""
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_ALLOW_HTTP": "true"}
KEYS |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
NAMES = {"webdataset": "webdataset", "streaming": "MosaicML Streaming", "litdata": "LitData"}
BOTH = (False, True)
ROWS: list[tuple[Peer | Own, bool]] = [
    *((Peer("webdataset", "webdataset", codec), False) for codec in CODEC_PAIRS),
    *((Peer(NAMES[name], name, codec), True) for codec, name in product(CODEC_PAIRS, NAMES)),
    *((Own("ours", "cpu", codec), kept) for codec, kept in product(CODEC_PAIRS.values(), BOTH)),
]
"""What is measured, and whether it keeps what it has read on this machine's disk."""


def copy_dataset(origin: Path, folder: Path) -> int:
    """Write a dataset of ``COPIES`` of each sequence, each in a tar and with a range of its own;
    return its sequences.
    """
    num_rows = COPIES * read_manifest(origin).num_sequences
    write_large_index(folder, origin, num_rows=num_rows)
    for number, tar in enumerate(sorted(origin.glob("flow-*.tar")) * COPIES):
        (folder / f"flow-{number:06d}.tar").hardlink_to(tar)
    return num_rows


def measure_epochs(
    server: Server, windows: Windows, scratch: Path, way: str, *, repeats: int
) -> tuple[list[Record], list[Record]]:
    """Measure a first epoch, with nothing on this machine's disk, and a second one of each reader
    in turns; return the records, and which peers are not installed.
    """
    records: list[Record] = []
    skipped: list[Record] = []
    opened = []
    with ExitStack() as stack:
        for number, (row, is_kept) in enumerate(ROWS):
            cache = scratch / f"{way}-{number}" if is_kept else None
            if cache:
                cache.mkdir()
            remote = Remote(url=f"{server.endpoint}/{way}", bucket=f"s3://{way}", cache=cache)
            if contender := open_row(stack, row, replace(windows, remote=remote), skipped):
                opened.append((contender, cache))
                words = {"name": row.name, "codec": row.codec, "is_ours": isinstance(row, Own)}
                words |= {"is_kept": is_kept, "latency_ms": WAYS[way]}
                records.append(words | {"first": [], "second": [], "requests": []})
        for turn in range(repeats + 1):
            for record, (contender, cache) in zip(records, opened, strict=True):
                for path in cache.iterdir() if cache else ():
                    (shutil.rmtree if path.is_dir() else Path.unlink)(path)
                server.take_seconds()
                for epoch in ("first", "second"):
                    begin = time.perf_counter()
                    rate = contender.run_epoch(turn) / (time.perf_counter() - begin)
                    record[epoch] += [rate] if turn else []  # the first turn warms up
                    record["requests"].append(len(server.take_seconds()))
                contender.end_turn()
    for record in records:
        record |= {epoch: spread(record[epoch]) for epoch in ("first", "second")}
        record["requests"] = record["requests"][-2:]
    return records, skipped


class SleepingNet(nn.Module):
    """A net that takes a device's time for a batch, and the cores' hardly any."""

    def __init__(self, _arch: str) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 7, stride=217), nn.Linear(4, 1000)

    def forward(self, images: torch.Tensor) -> Any:
        """Return logits (N, classes) of images (N, C, 224, 224)."""
        time.sleep(DEVICE_MS / 1000)
        return self.fc(self.conv(images).mean(dim=(2, 3)))


def measure_stall(server: Server, codec: str, cache: Path | None, repeats: int) -> Record:
    """Train two epochs ``repeats`` times in ``cktrain``'s own steps, each time anew and with an
    empty folder for ``--shard-cache``, if one is given; this process must be a fresh one.
    """
    models.build._torchvision_model = SleepingNet  # type: ignore[assignment]
    before, runs = memory_bytes("VmRSS"), []
    words: dict[str, Any] = {"batch_size": DEVICE_BATCH, "iter_size": 1, "device": "cpu"}
    words |= {"stream": "flow", "weights": "none", "precision": "fp32", "loader": "cpu"}
    for repeat in range(repeats):
        config = TrainConfig(**words, shard_cache=str(cache / str(repeat)) if cache else "")
        with open_dataset(f"{server.endpoint}/delayed/own-{codec}") as dataset:
            split = Split(kind="list", train=tuple(dataset.keys), val=())
            session = open_session(config, dataset, split, Ranks(), is_validated=False)
            server.take_seconds()
            with closing(session):
                runs += [train_epoch(session, server) for _ in range(2)]
    grown = memory_bytes("VmHWM") - before
    words = {"codec": codec, "is_kept": cache is not None, "memory_bytes": grown}
    return words | {"first": spreads(runs[0::2]), "second": spreads(runs[1::2])}


def train_epoch(session: Session, server: Server) -> dict[str, float]:
    """Train an epoch; return the wait for its first batch and that after it, the requests that the
    server had, how many were in flight on average, and the store's own figures.
    """
    switch_to_training(session.model)
    timer, begin = StallTimer(session.device), time.perf_counter()
    steps = iter_steps(session, timer.iterate(session.train_loader), is_asked_to_stop=lambda: False)
    next(steps)
    first_ms = 1000 * timer.take().start_s
    for _ in steps:
        pass
    times, seconds = timer.take(), time.perf_counter() - begin
    session.train_loader.set_epoch(session.epoch + 1)
    requests, store = server.take_seconds(), session.dataset.store
    assert store is not None
    counts = {"requests": len(requests), "mean_in_flight": sum(requests) / seconds}
    waits = {"first_batch_ms": first_ms, "data_wait_pct": times.data_wait_pct}
    return waits | {"samples_per_s": times.samples_per_s} | counts | store.take_figures()


def measure_cloud(folder: Path, options: argparse.Namespace) -> Record:
    """Draw the data, serve it, and measure both."""
    files, scratch, repeats = folder / "files", folder / "scratch", options.repeats
    scratch.mkdir(parents=True)
    draw_windows(files, num_subjects=options.subjects)
    sizes = {copy_dataset(files / codec, files / f"own-{codec}") for codec in CODECS}
    windows = Windows(folder=files, num_samples=sizes.pop())
    os.environ |= KEYS | {"XDG_CACHE_HOME": str(scratch / "cache")}
    with serve_files(files, scratch) as server:
        os.environ |= {"S3_ENDPOINT_URL": server.endpoint, "AWS_ENDPOINT_URL": server.endpoint}
        at_once, delayed = (
            measure_epochs(server, windows, scratch, way, repeats=repeats) for way in WAYS
        )
        stalls = [
            in_fresh_process(measure_stall, server, codec, cache, repeats)
            for codec in CODEC_PAIRS.values()
            for cache in (None, scratch / f"train-{codec}")
        ]
    words = {"format": "ckshard-cloud", "version": 1, "batch_size": BATCH_SIZE}
    words |= {"threads": windows.num_workers, "num_samples": windows.num_samples}
    found = {"records": at_once[0] + delayed[0], "skipped": delayed[1]}
    return words | {"repeats": repeats, **found, "stalls": stalls}


def cloud_blocks(record: Record) -> dict[str, str]:
    """Write the Markdown of a record: the blocks ``cloud-epochs`` and ``cloud-stall``."""
    rows = []
    for entry in sorted(record["records"], key=lambda e: (e["latency_ms"], -e["first"]["median"])):
        first, second = (median_and_range(entry[epoch]) for epoch in ("first", "second"))
        before, after = entry["requests"]
        name = entry["name"] + (", on disk" if entry["is_kept"] else "")
        rows.append(
            f"{f'**{name}**' if entry['is_ours'] else name} | {entry['codec']}"
            f" | {entry['latency_ms']} ms | {first} | {before:,} | {second} | {after:,}"
        )
    rows += [f"{e['name']} | left out: {e['reason']} | | | | | | |" for e in record["skipped"]]
    header = "reader | codec | latency | first epoch | range | requests"
    epochs = (
        f"{cores_of(record)}, {record['threads']} threads or worker processes, batches of"
        f" {record['batch_size']}, epochs of\n{record['num_samples']:,} samples; samples/s, medians"
        f" of {record['repeats']} turns with the range, and requests of an epoch:\n\n"
        f"{markdown_table(f'{header} | second epoch | range | requests', rows)}"
    )
    names = ("first_batch_ms", "requests", "mean_in_flight", "store_p50_ms", "store_p99_ms")
    rows = []
    for entry, epoch in product(record["stalls"], ("first", "second")):
        figures = " | ".join(f"{entry[epoch][name]['median']:,.0f}" for name in names)
        rows.append(
            f"{entry['codec']}{', shard cache' if entry['is_kept'] else ''} | {epoch}"
            f" | {median_and_range(entry[epoch]['data_wait_pct'], 2)} | {figures}"
            f" | {entry['memory_bytes'] / 1e6:.0f}"
        )
    header = "codec | epoch | waits, % | range | first batch, ms | requests | in flight"
    stall = markdown_table(f"{header} | p50 | p99 | MB", rows)
    return {"cloud-epochs": epochs, "cloud-stall": stall}


if __name__ == "__main__":
    subjects = (12, "drawn, seven sequences each")
    run_benchmark(__doc__, measure_cloud, cloud_blocks, subjects=subjects)
