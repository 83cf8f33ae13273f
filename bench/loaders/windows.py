"""What contenders share: windows, crops and flips, and how peers store and read them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from bench.harness import run_ckshard
from pipelines.dataset import Dataset, open_dataset
from pipelines.engines.crop_resize import Cv2Cutter
from pipelines.engines.cutter import Cutter
from pipelines.engines.planes import open_planes
from pipelines.loader import Loader, make_loader
from pipelines.plan.crops import multi_scale_crops
from pipelines.reading import Reading
from pipelines.streams import FLOW, UInt8
from shard_builder.format.codecs import parse_npy_header
from shard_builder.machine import num_usable_cores

BATCH_SIZE, STACK_LENGTH = 32, 5
SHAPE = NUM_PLANES, HEIGHT, WIDTH = 2 * STACK_LENGTH, 256, 340
CUT_SHAPE = 224, 224, NUM_PLANES
CODECS = {"raw": "--codec", "jpg": "--codec", "lz4": "--flow-codec"}
"""Of the datasets, and the option that asks for each."""
NPY_MAGIC = b"\x93NUMPY"
JPEG_QUALITY = 95
NUM_SHARDS = max(16, num_usable_cores())
"""Of an epoch of a peer; over a network the first sample would wait for most of the usual 64 MB."""
CROPS = multi_scale_crops(height=HEIGHT, width=WIDTH, ratios=FLOW.crop_ratios).tolist()


class RandomCut:
    """Random crops and flips of windows, for any thread; pickled to worker processes.

    Args:
        make: Makes what cuts: cv2's cutter, or this project's kernel, which says what a peer's
            storage is worth without cv2. It is made where it works: no process can send a kernel.
    """

    def __init__(self, make: Callable[..., Cutter] = Cv2Cutter) -> None:
        self._make = make

    @cached_property
    def _cutter(self) -> Cutter:
        return self._make(FLOW, SHAPE, torch.uint8)

    def __call__(self, stored: Any) -> torch.Tensor:
        """Decode and cut to (224, 224, 10) ``uint8``: so batching copies and does not transpose."""
        levels = np.empty(CUT_SHAPE, np.uint8)
        self.cut_into(stored, levels)
        return torch.from_numpy(levels)

    def cut_into(self, stored: Any, levels: UInt8) -> None:
        """Decode, and write the cut into (224, 224, 10)."""
        box, is_mirrored = tuple(random.choice(CROPS)), random.random() < 0.5
        self._cutter.cut(decode(stored), box, is_mirrored, levels)


class Remote(NamedTuple):
    """How peers reach what they have written: by http and by S3 at the environment's endpoint.

    ``cache`` is a folder of this machine for what was downloaded; None keeps nothing.
    """

    url: str
    bucket: str
    cache: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Generated data: every sequence has six frames, so it is exactly one window of five pairs.

    DALI's own reader takes members of fixed names only, hence the fixed length.

    Args:
        folder: Holds a dataset of each codec, ``tree`` as ``ckshard prepare`` writes it (x and y
            planes of 640x490, a file each), and what the peers write in their own formats.
        num_samples: Samples of an epoch, a multiple of the batch.
        num_workers: Worker processes of the peers, threads of the engines.
        cut: What cuts the peers' samples.
        remote: Given where peers read from a server.
    """

    folder: Path
    num_samples: int = 1024
    num_workers: int = field(default_factory=num_usable_cores)
    cut: RandomCut = field(default_factory=RandomCut)
    remote: Remote | None = None

    def __iter__(self) -> Iterator[UInt8]:
        """Yield an epoch of windows (10, 256, 340), the sequences again and again."""
        with open_dataset(self.folder / "raw") as dataset:
            reader = open_planes(dataset, FLOW, stack_length=STACK_LENGTH)
            for number in range(self.num_samples):
                yield reader.window(number % len(dataset), 0)

    def encoded(self, codec: str) -> Iterator[Any]:
        """Yield an epoch as peers store it: the arrays themselves, or what :func:`encode` gives."""
        return (window if codec == "raw" else encode(window, codec) for window in self)

    def new_folder(self, name: str) -> Path | None:
        """Empty a peer's folder; None if what a server has there serves again."""
        folder = self.folder / name
        if self.remote and folder.is_dir():
            return None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def shard_bytes(self, codec: str) -> int:
        """Return the bytes of one of an epoch's ``NUM_SHARDS``, for peers that take a limit."""
        first = memoryview(next(self.encoded(codec))).cast("B")
        return len(first) * self.num_samples // NUM_SHARDS


def draw_windows(folder: Path, *, num_subjects: int) -> None:
    """Draw a release, find its flow once, and build it in every form; what is there is kept."""
    release, tree, workers = folder / "release", folder / "tree", ("--workers", num_usable_cores())
    if not release.is_dir():
        run_ckshard("synth", release, "--subjects", num_subjects, "--max-frames", 6, *workers)
    run_ckshard("prepare", release, tree, *workers)
    for codec, option in CODECS.items():
        options = (option, codec, "--streams", "flow", "--yes", *workers)
        run_ckshard("build", tree, folder / codec, *options)


def training_loader(
    dataset: Dataset, num_samples: int = 0, *, batch_size: int = BATCH_SIZE, **reading: Any
) -> Loader:
    """Open this project's loader of flow in training, its ``Reading`` by keywords.

    An epoch has the dataset's sequences once, or again and again up to ``num_samples``.
    """
    rows = np.arange(len(dataset), dtype=np.int64)
    return make_loader(
        dataset,
        "flow",
        rows=np.resize(rows, num_samples or len(rows)),
        training=True,
        batch_size=batch_size,
        reading=Reading(**reading),
    )


def encode(window: UInt8, codec: str) -> bytes:
    """Encode a window as one gray jpg or png of its planes, one above the other."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if codec == "jpg" else []
    return cv2.imencode(f".{codec}", window.reshape(-1, WIDTH), quality)[1].tobytes()


def decode(stored: Any) -> UInt8:
    """Return (10, 256, 340) from what a library hands back: a window, bytes of an image or npy."""
    array = np.frombuffer(stored, np.uint8) if isinstance(stored, bytes) else np.asarray(stored)
    if isinstance(stored, bytes) and stored.startswith(NPY_MAGIC):
        array = array[parse_npy_header(stored)[0] :]
    if array.size != NUM_PLANES * HEIGHT * WIDTH:
        array = np.asarray(cv2.imdecode(array, cv2.IMREAD_GRAYSCALE))
    return array.reshape(SHAPE).astype(np.uint8, copy=False)


@contextmanager
def worker_loader(
    kind: Callable[..., Any], dataset: Any, windows: Windows, **options: Any
) -> Iterator[Callable[[], Any]]:
    """Open any library's DataLoader with processes that stay between epochs, and end them."""
    options |= {"num_workers": windows.num_workers, "persistent_workers": True}
    options |= {"multiprocessing_context": "spawn", "worker_init_fn": start_worker}
    loader = kind(dataset, **options)
    try:
        yield lambda: loader
    finally:
        loader._iterator = None


def start_worker(number: int) -> None:
    """Seed a worker process and keep cv2 to the one core that it has."""
    random.seed(number)
    cv2.setNumThreads(1)
