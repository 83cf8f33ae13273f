"""The cpu and dali engines against other ways to read the same windows, in one process, taking turns.

python bench/loader_peers.py RAW_DATASET JPG_DATASET [--json FILE]

Peers, all with two workers or threads, batches of 32 windows of five pairs, uint8, the same crop table and flips:
- DataLoader over one memory-mapped uint8 array (persistent workers), against ``cpu`` on raw;
- webdataset and WebLoader over one tall gray JPEG a window, against ``cpu`` on jpg;
- DALI's own fn.readers.webdataset with the same operators and random crops, against ``dali`` on the CPU, jpg and raw.

Build both datasets from a release of six-frame sequences (``ckshard synth OUT --max-frames 6``): DALI's reader can only take members of
fixed names, so that every sequence must be exactly one window long.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import webdataset
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from torch.utils.data import DataLoader, Dataset

from pipelines.bench import machine_facts
from pipelines.crop_resize import SampleCutter
from pipelines.crops import multi_scale_crops
from pipelines.dataset import open_dataset
from pipelines.loader import make_loader
from pipelines.planes import PlaneReader
from shard_builder.provenance import package_versions

BATCH, STACK, THREADS, EPOCH = 32, 5, 2, 1024
HEIGHT, WIDTH = 256, 340
CROPS = multi_scale_crops(height=HEIGHT, width=WIDTH, stream="flow").tolist()
CUTTER = SampleCutter(2 * STACK)  # one a worker process


def cut(planes: list[np.ndarray]) -> torch.Tensor:
    """One random crop and flip, with the engine's own code, into (C, 224, 224)."""
    out = np.empty((224, 224, 2 * STACK), np.uint8)
    CUTTER.cut(planes, tuple(random.choice(CROPS)), random.random() < 0.5, out)
    return torch.from_numpy(out).permute(2, 0, 1)


class MappedWindows(Dataset[torch.Tensor]):
    """Windows of one memory-mapped array (n, 2L, H, W)."""

    def __init__(self, path: Path) -> None:
        self.path, self.num = path, len(np.load(path, mmap_mode="r"))
        self.array: np.ndarray | None = None  # mapped in the worker that reads it

    def __len__(self) -> int:
        return EPOCH

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.array is None:
            self.array = np.load(self.path, mmap_mode="r")
        assert self.array is not None
        return cut(list(np.asarray(self.array[index % self.num])))


def decode_tall(sample: tuple[bytes]) -> tuple[torch.Tensor]:
    image = cv2.imdecode(np.frombuffer(sample[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return (cut(list(image.reshape(2 * STACK, HEIGHT, WIDTH))),)


def start_worker(number: int) -> None:
    cv2.setNumThreads(1)
    random.seed(number)


def mapped_loader(reader: PlaneReader, folder: Path) -> Callable[[], int]:
    windows = [np.stack(reader.window(row, 0)) for row in range(len(reader.dataset))]
    np.save(folder / "windows.npy", np.stack(windows))
    loader = DataLoader(
        MappedWindows(folder / "windows.npy"),
        batch_size=BATCH,
        num_workers=THREADS,
        shuffle=True,
        persistent_workers=True,
        multiprocessing_context="spawn",
        worker_init_fn=start_worker,
    )
    return lambda: sum(len(batch) for batch in loader)


def webdataset_loader(reader: PlaneReader, folder: Path) -> Callable[[], int]:
    for shard in range(THREADS):
        with tarfile.open(folder / f"tall-{shard}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in range(shard, EPOCH, THREADS):
                image = np.concatenate(reader.window(row % len(reader.dataset), 0))
                data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
                entry = tarfile.TarInfo(f"{row:06d}.jpg")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    shards = [str(folder / f"tall-{shard}.tar") for shard in range(THREADS)]
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
        .shuffle(100)
        .to_tuple("jpg")
        .map(decode_tall)
        .batched(BATCH)
    )
    loader = webdataset.WebLoader(
        dataset,
        batch_size=None,
        num_workers=THREADS,
        persistent_workers=True,
        multiprocessing_context="spawn",
        worker_init_fn=start_worker,
    )
    return lambda: sum(len(batch[0]) for batch in loader)


def dali_reader(dataset: Path, codec: str) -> Callable[[], int]:
    """DALI reads whole samples in its own order; the first window of each, a random crop and flip of it."""
    crops = np.array(CROPS, np.int32)

    def boxes() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        drawn = crops[np.random.randint(len(crops), size=BATCH)]
        flips = np.random.randint(2, size=BATCH).astype(np.int32)
        turns = np.zeros((BATCH, 2 * STACK, 1, 1), np.uint8)
        turns[flips == 1, 0::2] = 255
        return list(drawn[:, :2]), list(drawn[:, 2:]), list(flips), list(turns)

    pipeline = Pipeline(BATCH, THREADS, None, prefetch_queue_depth=2)
    names = ["flow.npy"] if codec == "raw" else [f"flow-{number:03d}.jpg" for number in range(STACK)]
    with pipeline:
        members = fn.readers.webdataset(
            paths=sorted(map(str, dataset.glob("flow-*.tar"))),
            index_paths=sorted(map(str, dataset.glob("flow-*.idx"))),
            ext=names,
            missing_component_behavior="error",
            random_shuffle=True,
            initial_fill=64,
            name="reader",
        )
        members = members if isinstance(members, list) else [members]
        start, shape, mirror, turn = fn.external_source(source=boxes, num_outputs=4, batch=True)
        if codec == "raw":
            planes = fn.reshape(fn.decoders.numpy(members[0]), layout="CHW")[: 2 * STACK]
        else:
            images = [fn.decoders.image(member, output_type=types.GRAY) for member in members]
            planes = fn.cat(*[fn.reshape(image, shape=[2, HEIGHT, WIDTH], layout="CHW") for image in images], axis=0)
        planes = fn.slice(planes, start=start, shape=shape, axis_names="HW")
        planes = fn.resize(planes, size=[224, 224], interp_type=types.INTERP_LINEAR, antialias=False) ^ turn
        pipeline.set_outputs(fn.crop_mirror_normalize(planes, mirror=mirror, dtype=types.UINT8, output_layout="HWC"))
    pipeline.build()

    def run_epoch() -> int:
        return sum(len(pipeline.run()[0]) for _ in range(EPOCH // BATCH))

    return run_epoch


def engine(path: Path, name: str, cache: str = "none") -> Callable[[], int]:
    dataset = open_dataset(path)
    rows = np.tile(np.arange(len(dataset)), EPOCH // len(dataset) + 1)[:EPOCH]
    loader = make_loader(
        dataset,
        stream="flow",
        rows=rows,
        training=True,
        batch_size=BATCH,
        engine=name,
        dtype=torch.uint8,
        num_threads=THREADS,
        cache=cache,
    )
    epochs: Iterator[int] = iter(range(1 << 30))

    def run_epoch() -> int:
        loader.set_epoch(next(epochs))
        return sum(len(batch.keys) for batch in loader)

    return run_epoch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("raw", type=Path)
    parser.add_argument("jpg", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, open_dataset(options.raw) as raw:
        reader = PlaneReader(raw, stream="flow", stack_length=STACK)
        contenders = {
            "DataLoader, mapped array": mapped_loader(reader, Path(folder)),
            "webdataset, tall jpg": webdataset_loader(reader, Path(folder)),
            "dali reader, raw": dali_reader(options.raw, "raw"),
            "dali reader, jpg": dali_reader(options.jpg, "jpg"),
            "cpu, raw": engine(options.raw, "cpu"),
            "cpu, jpg": engine(options.jpg, "cpu"),
            "cpu, jpg cached": engine(options.jpg, "cpu", "ram"),
            "dali, raw": engine(options.raw, "dali"),
            "dali, jpg": engine(options.jpg, "dali"),
        }
        for run_epoch in contenders.values():
            run_epoch()
            run_epoch()
        for _ in range(options.repeats):
            for name, run_epoch in contenders.items():
                begin, num = time.perf_counter(), 0
                while time.perf_counter() - begin < options.seconds:
                    num += run_epoch()
                rates.setdefault(name, []).append(num / (time.perf_counter() - begin))
    median = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:26s} {median[name]:7.0f}/s   {min(values):7.0f} - {max(values):.0f}")
    for ours, theirs in (
        ("cpu, raw", "DataLoader, mapped array"),
        ("cpu, jpg", "webdataset, tall jpg"),
        ("cpu, jpg cached", "cpu, raw"),
        ("dali, raw", "dali reader, raw"),
        ("dali, jpg", "dali reader, jpg"),
    ):
        ratios = sorted(a / b for a, b in zip(rates[ours], rates[theirs], strict=True))
        print(f"{ours:16s} / {theirs:26s} {median[ours] / median[theirs]:5.2f}   {ratios[0]:.2f} - {ratios[-1]:.2f}")
    if options.json:
        facts = {"machine": machine_facts(), "versions": package_versions()}
        options.json.write_text(json.dumps({"samples_per_s": rates, **facts}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
