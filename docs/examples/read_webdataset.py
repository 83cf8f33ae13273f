"""Read the flow shards with plain webdataset: nothing of this project is imported.

python docs/examples/read_webdataset.py DATASET
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import webdataset

STACK_LENGTH = 5


def decode(sample: dict[str, Any]) -> dict[str, Any]:
    """Turn the members of a sequence into its label and a window of five pairs, (10, H, W)."""
    names = sorted(name for name in sample if name.startswith("flow-"))  # flow-000.jpg ...
    start = random.randrange(max(len(names) - STACK_LENGTH, 0) + 1)
    planes: list[np.ndarray] = []
    for name in names[start : start + STACK_LENGTH]:  # decode only what is used
        pair = cv2.imdecode(np.frombuffer(sample[name], np.uint8), cv2.IMREAD_GRAYSCALE)
        planes += np.split(pair, 2)  # one gray image holds x above y
    return {"key": sample["__key__"], "label": int(sample["cls"]), "planes": np.stack(planes)}


def read(dataset: Path, *, shuffle: int = 0) -> Iterator[dict[str, Any]]:
    """Yield key, label, the ``uint8`` planes and the flow in pixels a frame of every sequence."""
    bound_px = json.loads((dataset / "manifest.json").read_text())["flow"]["bound_px"]
    tars = [str(path) for path in sorted(dataset.glob("flow-*.tar"))]
    # The shards hold the sequences in a shuffled order already; shuffle mixes it anew each time.
    samples = webdataset.WebDataset(tars, shardshuffle=len(tars) if shuffle else False)
    for sample in samples.shuffle(shuffle).map(decode):
        levels = sample["planes"].astype(np.float32)
        yield sample | {"flow": levels / 255 * 2 * bound_px - bound_px}  # level 128 is rest


if __name__ == "__main__":
    for sequence in read(Path(sys.argv[1]), shuffle=100):
        motion = np.abs(sequence["flow"]).mean()
        print(sequence["key"], sequence["label"], sequence["planes"].shape, f"{motion:.2f} px")
