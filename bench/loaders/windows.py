"""What every contender of the loader comparison reads: the same windows, the same crops and flips,
the same batches.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from pipelines.dataset import open_dataset
from pipelines.engines.crop_resize import SampleCutter
from pipelines.engines.planes import open_planes
from pipelines.plan.crops import multi_scale_crops
from pipelines.streams import FLOW, UInt8
from shard_builder.format.manifest import MANIFEST_NAME
from shard_builder.machine import num_usable_cores

BATCH_SIZE, STACK_LENGTH = 32, 5
EPOCH_SAMPLES = int(os.environ.get("BENCH_SAMPLES", "0")) or 1024
"""Samples of an epoch, a multiple of the batch."""
NUM_PLANES, HEIGHT, WIDTH = 2 * STACK_LENGTH, 256, 340
JPEG_QUALITY = 95
NUM_WORKERS = int(os.environ.get("BENCH_WORKERS", "0")) or num_usable_cores()
"""Worker processes of the peers, threads of the engines."""
CROPS = multi_scale_crops(height=HEIGHT, width=WIDTH, ratios=FLOW.crop_ratios).tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFolders:
    """Generated data of the comparison: every sequence has six frames, so it is exactly one window
    of five pairs.

    DALI's own reader takes members of fixed names only, hence the fixed length.

    Args:
        raw: Dataset folder, codec raw.
        jpg: Dataset folder, codec jpg.
        png_tree: ``ckshard prepare``'s tree: x and y planes of 640x490, a file each, as the
            original reads them.
        scratch: Where peers write the windows in their own formats.
    """

    raw: Path
    jpg: Path
    png_tree: Path
    scratch: Path


def make_window_folders(folder: Path, *, num_subjects: int = 12) -> WindowFolders:
    """Draw a release and build it in every form; what is there already is kept."""
    release, scratch = folder / "release", folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    workers = ("--workers", str(num_usable_cores()))
    if not release.is_dir():
        _ckshard("synth", release, "--subjects", num_subjects, "--max-frames", 6, *workers)
    for codec in ("raw", "jpg"):
        if not (folder / codec / MANIFEST_NAME).is_file():
            _ckshard(
                "build", release, folder / codec, "--codec", codec, "--streams", "flow", *workers
            )
    _ckshard("prepare", release, folder / "tree", *workers)
    return WindowFolders(
        raw=folder / "raw", jpg=folder / "jpg", png_tree=folder / "tree", scratch=scratch
    )


def _ckshard(*words: object) -> None:
    """Run the command from this source folder, installed or not."""
    program = [sys.executable, "-c", "from shard_builder.cli import main; main()", *map(str, words)]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)


def iter_windows(folders: WindowFolders) -> Iterator[UInt8]:
    """Yield an epoch of windows (10, 256, 340), the sequences again and again."""
    with open_dataset(folders.raw) as dataset:
        reader = open_planes(dataset, FLOW, stack_length=STACK_LENGTH)
        for number in range(EPOCH_SAMPLES):
            yield np.stack(reader.window(number % len(dataset), 0))


def encode_tall(window: UInt8, suffix: str) -> bytes:
    """Encode a window as one gray image of its planes, one above the other; ``suffix`` is .jpg or
    .png.
    """
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    done, data = cv2.imencode(suffix, window.reshape(-1, WIDTH), quality)
    assert done
    return data.tobytes()


def decode_tall(data: bytes | UInt8) -> UInt8:
    """Decode what :func:`encode_tall` wrote to (10, 256, 340)."""
    array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    image = cv2.imdecode(array, cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image.reshape(NUM_PLANES, HEIGHT, WIDTH).astype(np.uint8, copy=False)


class RandomCut:
    """One random crop and flip of a window, with the engine's own code; holds scratch memory, so
    each worker needs its own.
    """

    def __init__(self) -> None:
        self._cutter = SampleCutter(NUM_PLANES)

    def __call__(self, window: UInt8) -> torch.Tensor:
        """Cut (10, 256, 340) into (224, 224, 10) ``uint8``: so batching copies and does not
        transpose; the batch is permuted.
        """
        levels = np.empty((224, 224, NUM_PLANES), np.uint8)
        self.cut_into(window, levels)
        return torch.from_numpy(levels)

    def cut_into(self, window: UInt8, levels: UInt8) -> None:
        """Write the cut of (10, 256, 340) into (224, 224, 10)."""
        self._cutter.cut(list(window), tuple(random.choice(CROPS)), random.random() < 0.5, levels)


def start_worker(number: int) -> None:
    """Seed a worker process and keep cv2 to the one core that it has."""
    random.seed(number)
    cv2.setNumThreads(1)
