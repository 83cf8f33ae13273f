"""Windows read from an nginx on loopback, at once and 20 ms later: this project's loader beside its
peers, and what a simulated device waits in training.

    python -m bench.cloud --json docs/results/cloud.json
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
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
from bench.loaders.windows import BATCH_SIZE, Remote, Windows, draw_windows
from bench.nginx import DELAYED_MS, Server, serve_files
from pipelines.throughput.turns import Contender, spread
from shard_builder.format.manifest import read_manifest
from train.config import TrainConfig
from train.running.run_folder import read_metrics
from train.running.train_run import open_run

DEVICE_MS, DEVICE_BATCH = 10, 10
WAYS = {"at-once": 0, "delayed": DELAYED_MS}
"""Where the server has the files, and the latency of a request in ms."""
CODEC_PAIRS = {"jpg": "jpg", "raw": "lz4"}
"""Of peers, and ours beside it: with loss, and without."""
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_ALLOW_HTTP": "true"}
KEYS |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
NAMES = {"webdataset": "webdataset", "streaming": "MosaicML Streaming", "litdata": "LitData"}
BOTH = (False, True)
FIGURES = ("data_wait_pct", "samples_per_s", "store_requests", "store_p50_ms", "store_p99_ms")
"""Of an epoch of training, as metrics.jsonl has them."""
ROWS: list[tuple[Peer | Own, bool]] = [
    *((Peer("webdataset", "webdataset", codec), False) for codec in CODEC_PAIRS),
    *((Peer(NAMES[name], name, codec), True) for codec, name in product(CODEC_PAIRS, NAMES)),
    *((Own("ours", "cpu", codec), kept) for codec, kept in product(CODEC_PAIRS.values(), BOTH)),
]
"""What is measured, and whether it keeps what it has read on this machine's disk."""


def measure_epochs(
    server: Server, windows: Windows, scratch: Path, way: str, *, repeats: int
) -> list[Record]:
    """Measure a first epoch, with nothing on this machine's disk, and a second one of each reader
    in turns.
    """
    readers: list[tuple[Record, Contender, Path | None]] = []
    with ExitStack() as stack:
        for number, (row, is_kept) in enumerate(ROWS):
            cache = scratch / f"{way}-{number}" if is_kept else None
            if cache:
                cache.mkdir()
            remote = Remote(url=f"{server.endpoint}/{way}", bucket=f"s3://{way}", cache=cache)
            contender = stack.enter_context(open_row(row, replace(windows, remote=remote)))
            words = {"name": row.name, "codec": row.codec, "is_ours": isinstance(row, Own)}
            words |= {"is_kept": is_kept, "latency_ms": WAYS[way]}
            readers.append((words | {"first": [], "second": []}, contender, cache))
        for turn in range(repeats + 1):
            for record, contender, cache in readers:
                if cache:
                    shutil.rmtree(cache)
                    cache.mkdir()
                server.take_seconds()
                record["requests"] = []
                for epoch in ("first", "second"):
                    begin = time.perf_counter()
                    rate = contender.run_epoch(turn) / (time.perf_counter() - begin)
                    record[epoch] += [rate] if turn else []  # the first turn warms up
                    record["requests"].append(len(server.take_seconds()))
                contender.end_turn()
    for record, _, _ in readers:
        record |= {epoch: spread(record[epoch]) for epoch in ("first", "second")}
    return [record for record, _, _ in readers]


class SleepingNet(nn.Module):
    """A net that takes a device's time for a batch, and the cores' hardly any."""

    def __init__(self, _arch: str) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 7, stride=217), nn.Linear(4, 1000)

    def forward(self, images: torch.Tensor) -> Any:
        """Return logits (N, 1000) of images (N, C, 224, 224)."""
        time.sleep(DEVICE_MS / 1000)
        return self.fc(self.conv(images).mean(dim=(2, 3)))


def measure_stall(server: Server, codec: str, scratch: Path, is_kept: bool, repeats: int) -> Record:
    """Train two epochs ``repeats`` times as ``cktrain flow`` does, each time anew and, if blocks
    are kept, with an empty shard cache; this process must be a fresh one.
    """
    models.build._torchvision_model = SleepingNet  # type: ignore[assignment]
    before, epochs = memory_bytes("VmRSS"), []
    words: dict[str, Any] = {"stream": "flow", "weights": "none", "epochs": 2, "val_every": 1}
    words |= {"batch_size": DEVICE_BATCH, "iter_size": 1, "precision": "fp32", "device": "cpu"}
    for repeat in range(repeats):
        out = scratch / f"train-{codec}-{is_kept}-{repeat}"
        config = TrainConfig(**words, shard_cache=str(out / "blocks") if is_kept else "")
        address = Path(f"{server.endpoint}/delayed/{codec}")
        with open_run(config, address, out, resume=False) as run:
            run.train()
        epochs += [row for row in read_metrics(out) if row["kind"] == "epoch"]
    grown = memory_bytes("VmHWM") - before
    runs = [{name: epoch[name] for name in FIGURES} for epoch in epochs]
    words = {"codec": codec, "is_kept": is_kept, "memory_bytes": grown}
    return words | {"first": spreads(runs[0::2]), "second": spreads(runs[1::2])}


def measure_cloud(folder: Path, *, repeats: int, subjects: int) -> Record:
    """Draw the data, serve it, and measure both."""
    files, scratch = folder / "files", folder / "scratch"
    scratch.mkdir(parents=True)
    draw_windows(files, num_subjects=subjects)
    windows = Windows(folder=files, num_samples=read_manifest(files / "raw").num_sequences)
    os.environ |= KEYS | {"XDG_CACHE_HOME": str(scratch / "cache")}
    with serve_files(files, scratch) as server:
        os.environ |= {"S3_ENDPOINT_URL": server.endpoint, "AWS_ENDPOINT_URL": server.endpoint}
        records: list[Record] = []
        for way in WAYS:
            records += measure_epochs(server, windows, scratch, way, repeats=repeats)
        stalls = [
            in_fresh_process(measure_stall, server, codec, scratch, is_kept, repeats)
            for codec, is_kept in product(CODEC_PAIRS.values(), BOTH)
        ]
    return {
        "batch_size": BATCH_SIZE,
        "threads": windows.num_workers,
        "num_samples": windows.num_samples,
        "repeats": repeats,
        "records": records,
        "stalls": stalls,
    }


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
    header = "reader | codec | latency | first epoch | range | requests"
    epochs = (
        f"{cores_of(record)}, {record['threads']} threads or worker processes, batches of"
        f" {record['batch_size']}, epochs of\n{record['num_samples']:,} samples; samples/s, medians"
        f" of {record['repeats']} turns with the range, and requests of an epoch:\n\n"
        f"{markdown_table(f'{header} | second epoch | range | requests', rows)}"
    )
    rows = []
    for entry, epoch in product(record["stalls"], ("first", "second")):
        rate, requests, p50, p99 = (entry[epoch][name]["median"] for name in FIGURES[1:])
        in_flight, megabytes = rate * p50 / 1000, entry["memory_bytes"] / 1e6
        rows.append(
            f"{entry['codec']}{', shard cache' if entry['is_kept'] else ''} | {epoch}"
            f" | {median_and_range(entry[epoch]['data_wait_pct'], 2)} | {rate:.0f} | {requests:.0f}"
            f" | {in_flight:.0f} | {p50:.0f} | {p99:.0f} | {megabytes:.0f}"
        )
    header = "codec | epoch | waits, % | range | samples/s | requests | in flight"
    stall = markdown_table(f"{header} | p50, ms | p99, ms | MB", rows)
    return {"cloud-epochs": epochs, "cloud-stall": stall}


if __name__ == "__main__":
    subjects = (72, "drawn, seven sequences each")
    run_benchmark(__doc__, measure_cloud, cloud_blocks, subjects=subjects)
