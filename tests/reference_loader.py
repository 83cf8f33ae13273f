"""The slow twin of every engine: the original's loader written from its behaviour, one image at a
time with cv2.

Frames and pairs are decoded in full, cut, resized as uint8 and flipped; nothing is cached, threaded
or reused. What the original does wrong (no 255 - x on mirrored x flow in training) is done right
here, as the engines do it.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import lz4.block
import numpy as np

from pipelines.plan.plan import Plan


class ReferenceLoader:
    """Reads a dataset folder with tarfile alone: no index, no offsets, no map."""

    def __init__(self, dataset: Path, *, stream: str, stack_length: int = 5) -> None:
        self.stream, self.stack_length = stream, stack_length
        self.members: dict[str, list[bytes]] = {}
        self.labels: dict[str, int] = {}
        self.keys: list[str] = []
        for path in sorted(dataset.glob(f"{stream}-*.tar")):
            with tarfile.open(path) as tar:
                for entry in tar:
                    key, _, extension = entry.name.partition(".")
                    data = tar.extractfile(entry).read()  # type: ignore[union-attr]
                    if extension == "cls":
                        self.labels[key] = int(data)
                        self.keys.append(key)
                    elif extension.startswith(stream):
                        self.members.setdefault(key, []).append(data)
                        self.codec = extension.rpartition(".")[2]
        geometry = json.loads((dataset / "manifest.json").read_text())["geometry"]
        self.height, self.width = geometry["height"], geometry["width"]

    def planes(self, key: str, start: int) -> list[np.ndarray]:
        """Decode the frame, or the x and y planes of a window; a short sequence repeats its last
        pair."""
        members = self.members[key]
        if self.codec == "npy":
            stack = np.load(io.BytesIO(members[0]))
            if self.stream == "rgb":
                return [stack[start]]
            pairs = [stack[2 * k : 2 * k + 2] for k in range(len(stack) // 2)]
        elif self.codec == "lz4":
            size, shape = 2 * self.height * self.width, (2, self.height, self.width)
            blocks = [lz4.block.decompress(data, uncompressed_size=size) for data in members]
            pairs = [np.frombuffer(block, np.uint8).reshape(shape) for block in blocks]
        else:
            flags = cv2.IMREAD_COLOR if self.stream == "rgb" else cv2.IMREAD_GRAYSCALE
            images = [cv2.imdecode(np.frombuffer(data, np.uint8), flags) for data in members]
            if self.stream == "rgb":
                return [cv2.cvtColor(images[start], cv2.COLOR_BGR2RGB)]
            pairs = [np.split(image, 2) for image in images]
        numbers = [min(start + step, len(pairs) - 1) for step in range(self.stack_length)]
        return [plane for number in numbers for plane in pairs[number]]

    def sample(self, plan: Plan, position: int, *, epoch: int) -> tuple[str, np.ndarray, int]:
        """Return key, uint8 levels (224, 224, C) and label at a position."""
        table = plan.table(np.array([position], np.int64), epoch=epoch)
        key = self.keys[int(table.rows[0])]
        y, x, height, width = (int(value) for value in table.boxes[0])
        levels = []
        for number, plane in enumerate(self.planes(key, int(table.starts[0]))):
            cut = np.ascontiguousarray(plane[y : y + height, x : x + width])
            resized = cv2.resize(cut, (224, 224), interpolation=cv2.INTER_LINEAR)
            if table.mirrored[0]:
                resized = resized[:, ::-1]
                if self.stream == "flow" and number % 2 == 0:
                    resized = 255 - resized
            levels.append(resized)
        return key, np.dstack(levels), self.labels[key]
