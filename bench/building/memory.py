"""Peak memory of a build of many sequences: the main process and its largest worker.

    python bench/building/memory.py --sequences 10000 --json docs/results/build-memory.json

The release is made of hard links to six small pictures, so that only the number of sequences is
large.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch

from shard_builder.provenance import package_versions
from train.device import device_name

NUM_FRAMES = 6
SESSIONS = 100
MAX_LINKS = 50_000
"""Sequences that share the same pictures; ext4 allows 65,000 links to a file."""


def write_linked_release(
    root: Path, num_sequences: int, *, width: int = 64, height: int = 48
) -> None:
    """Write ``num_sequences`` sequences of six frames as hard links."""
    generator = np.random.default_rng(0)
    originals: list[Path] = []
    for number in range(num_sequences):
        if number % MAX_LINKS == 0:
            originals = [root / f"original-{number + frame}.png" for frame in range(NUM_FRAMES)]
            for path in originals:
                noise = generator.integers(0, 256, (height, width), np.uint8)
                cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 2))
        subject, session = f"S{number // SESSIONS:03d}", f"{number % SESSIONS:03d}"
        images, labels = root / "images" / subject / session, root / "emotions" / subject / session
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for frame, original in enumerate(originals, start=1):
            os.link(original, images / f"{subject}_{session}_{frame:08d}.png")
        (labels / f"{subject}_{session}_{NUM_FRAMES:08d}_emotion.txt").write_text(
            f"{number % 7 + 1}"
        )


def peak_memory(command: list[str]) -> tuple[int, int, float]:
    """Run a command; return the peak resident bytes of the process and of its largest child, and
    the seconds.
    """
    begin = time.monotonic()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    main = worker = 0
    while process.poll() is None:
        try:
            main = max(main, process.memory_info().rss)
            for child in process.children(recursive=True):
                worker = max(worker, child.memory_info().rss)
        except psutil.NoSuchProcess:
            continue  # a child that has just ended; its peak was seen while it lived
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"failed with exit code {process.returncode}: {' '.join(command)}")
    return main, worker, time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        release = Path(folder) / "release"
        release.mkdir()
        write_linked_release(release, options.sequences)
        program = str(Path(sys.executable).with_name("ckshard"))
        command = [
            program,
            "build",
            str(release),
            str(Path(folder) / "dataset"),
            "--size",
            "64x48",
            "--flow-method",
            "dis",
            "--yes",
        ]
        main_bytes, worker_bytes, seconds = peak_memory(
            [*command, "--workers", str(options.workers)]
        )
    record = {
        "num_sequences": options.sequences,
        "workers": options.workers,
        "main_peak_mb": round(main_bytes / 1e6, 1),
        "worker_peak_mb": round(worker_bytes / 1e6, 1),
        "seconds": round(seconds, 1),
        "device_name": device_name(torch.device("cpu")),
        "versions": package_versions(),
    }
    print(json.dumps(record, indent=1))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
