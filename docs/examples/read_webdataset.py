"""Read the flow shards with plain webdataset: nothing of this project is imported.

python docs/examples/read_webdataset.py DATASET
"""

import json
import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import lz4.block
import numpy as np
import webdataset

STACK_LENGTH = 5


def decode(sample: dict[str, Any], geometry: dict[str, int]) -> dict[str, Any]:
    """Turn the members of a sequence into its label and a window of five pairs, (10, H, W)."""
    names = sorted(name for name in sample if name.startswith("flow-"))  # flow-000.jpg, .lz4 ...
    start = random.randrange(max(len(names) - STACK_LENGTH, 0) + 1)
    planes: list[np.ndarray] = []
    for name in names[start : start + STACK_LENGTH]:  # decode only what is used
        planes += np.split(decode_pair(name, sample[name], geometry), 2)  # x above y
    return {"key": sample["__key__"], "label": int(sample["cls"]), "planes": np.stack(planes)}


def decode_pair(name: str, data: bytes, geometry: dict[str, int]) -> np.ndarray:
    """Return x above y, (2H, W), of a gray image, or of the bare LZ4 block of its pixels."""
    height, width = 2 * geometry["height"], geometry["width"]
    if name.endswith(".lz4"):
        pixels = lz4.block.decompress(data, uncompressed_size=height * width)
        return np.frombuffer(pixels, np.uint8).reshape(height, width)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def read(dataset: Path, *, shuffle: int = 0) -> Iterator[dict[str, Any]]:
    """Yield key, label, the ``uint8`` planes and the flow in pixels a frame of every sequence."""
    manifest = json.loads((dataset / "manifest.json").read_text())
    bound_px, geometry = manifest["flow"]["bound_px"], manifest["geometry"]
    tars = [str(path) for path in sorted(dataset.glob("flow-*.tar"))]
    # The shards hold the sequences in a shuffled order already; shuffle mixes it anew each time.
    samples = webdataset.WebDataset(tars, shardshuffle=len(tars) if shuffle else False)
    for sample in samples.shuffle(shuffle).map(partial(decode, geometry=geometry)):
        levels = sample["planes"].astype(np.float32)
        yield sample | {"flow": levels / 255 * 2 * bound_px - bound_px}  # level 128 is rest


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {__doc__.splitlines()[2]}")
    for sequence in read(Path(sys.argv[1]), shuffle=100):
        motion = np.abs(sequence["flow"]).mean()
        print(sequence["key"], sequence["label"], sequence["planes"].shape, f"{motion:.2f} px")
