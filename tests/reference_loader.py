"""The slow twin of every engine: the original's loader written from its behaviour, one image at a
time with cv2.

Frames and pairs are decoded in full, cut, resized as uint8 and flipped; nothing is cached, threaded
or reused. What the original does wrong (no 255 - x on mirrored x flow in training) is done right
here, as the engines do it. Jitter, which the original has not, is done in float64 and rounded once.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import lz4.block
import numpy as np

from pipelines.plan.plan import Plan, PlanTable


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
        if table.jitter is not None:
            planes = self.planes(key, int(table.starts[0]))
            return key, jittered_levels(planes, table, self.stream), self.labels[key]
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


MEANS = {"rgb": (124, 116, 104), "flow": (128,)}


def jittered_levels(planes: list[np.ndarray], table: PlanTable, stream: str) -> np.ndarray:
    """Return the levels of the only row of a table, (224, 224, C).

    The planes, enlarged by the scale and turned counter-clockwise about the crop's centre, are cut,
    resized and flipped: for each pixel of the sample this is undone, back to the place in the plane
    where it lay.
    """
    jitter = table.jitter
    assert jitter is not None
    y, x, height, width = table.boxes[0].tolist()
    angle, scale = np.deg2rad(jitter.angles[0]), jitter.scales[0]
    sign = -1 if table.mirrored[0] else 1
    rows, columns = np.mgrid[:224, :224] + 0.5
    columns = 224 - columns if table.mirrored[0] else columns
    right, down = (columns / 224 - 0.5) * width, (rows / 224 - 0.5) * height
    # Counter-clockwise as one sees it, with y downwards: what lay to the right comes to lie above.
    before_x = (np.cos(angle) * right - np.sin(angle) * down) / scale + x + width / 2
    before_y = (np.sin(angle) * right + np.cos(angle) * down) / scale + y + height / 2
    stack = np.dstack([bilinear(plane.astype(float), before_x, before_y) for plane in planes])
    if stream == "flow":
        flow_x, flow_y = stack[..., 0::2] - 127.5, stack[..., 1::2] - 127.5
        turned = np.empty_like(stack)
        turned[..., 0::2] = sign * scale * (np.cos(angle) * flow_x + np.sin(angle) * flow_y)
        turned[..., 1::2] = scale * (np.cos(angle) * flow_y - np.sin(angle) * flow_x)
        stack = turned + 127.5
    else:
        stack = jitter.brightness[0] * (128 + jitter.contrast[0] * (stack - 128))
    levels = np.rint(np.clip(stack, 0, 255)).astype(np.uint8)
    top, left, tall, wide = jitter.erased[0].tolist()
    levels[top : top + tall, left : left + wide] = MEANS[stream]
    return levels


def bilinear(plane: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sample a plane at places whose whole numbers are the corners between pixels."""
    height, width = plane.shape[:2]
    x, y = np.clip(x - 0.5, 0, width - 1), np.clip(y - 0.5, 0, height - 1)
    left, upper = (np.minimum(v.astype(int), end - 2) for v, end in ((x, width), (y, height)))
    trailing = (slice(None), slice(None), *[None] * (plane.ndim - 2))
    along, down = (x - left)[trailing], (y - upper)[trailing]
    above, below = (
        plane[row, left] * (1 - along) + plane[row, left + 1] * along for row in (upper, upper + 1)
    )
    return above * (1 - down) + below * down
