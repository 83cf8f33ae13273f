"""The usual way, to compare with: PNG files read by the workers of a torch DataLoader.

A flow sample is ten files; each is opened, decoded and resized to 340x256, then cropped, resized to
224 and flipped in Python, as two_stream_for_emotion_recognition does it. Only ``ckshard bench``
uses this.
"""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipelines.engines.planes import PlaneReader
from pipelines.plan.crops import INPUT_SIZE, multi_scale_crops
from pipelines.streams import StreamKind, UInt8

CKPLUS_SIZE = (640, 490)
"""Width and height of most of CK+'s images, and so of the original's PNG files."""


def write_png_tree(reader: PlaneReader, folder: Path, *, num_samples: int) -> list[list[Path]]:
    """Write the first window of some sequences as PNG files of CK+'s size, a file a plane.

    Args:
        reader: Where the planes come from; they are enlarged to 640x490.
        folder: An empty folder.
        num_samples: Sequences to write.

    Returns:
        The files of each sample, in channel order.
    """
    samples = []
    for row in range(num_samples):
        paths, window = [], reader.window(row, 0)
        for number, plane in enumerate(window if reader.kind.has_pairs else window[None]):
            path = folder / f"{row}" / f"{number:08d}.png"
            path.parent.mkdir(exist_ok=True)
            image = cv2.cvtColor(plane, cv2.COLOR_RGB2BGR) if plane.ndim == 3 else plane
            cv2.imwrite(str(path), cv2.resize(image, CKPLUS_SIZE))
            paths.append(path)
        samples.append(paths)
    return samples


class PngTree(Dataset[torch.Tensor]):
    """Samples (C, 224, 224) ``uint8`` from lists of PNG files, each with a random crop and flip.

    Args:
        samples: Files of each sample: one colour frame, or 2L gray planes.
        kind: The stream.
        size: Width and height that every file is resized to before the crop, pixels.
        length: Samples of an epoch; the files are repeated up to it.
    """

    def __init__(
        self, samples: list[list[Path]], kind: StreamKind, *, size: tuple[int, int], length: int
    ) -> None:
        self._samples, self._kind, self._size, self._length = samples, kind, size, length
        width, height = size
        self._crops: list[list[int]] = multi_scale_crops(
            height=height, width=width, ratios=kind.crop_ratios
        ).tolist()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> torch.Tensor:
        y, x, height, width = random.choice(self._crops)
        mirrored = random.random() < 0.5
        channels = []
        for number, path in enumerate(self._samples[index % len(self._samples)]):
            image = cv2.imread(
                str(path), cv2.IMREAD_COLOR if not self._kind.has_pairs else cv2.IMREAD_GRAYSCALE
            )
            if image is None:
                raise FileNotFoundError(f"{path}: cannot be read, expected a PNG file")
            channels.append(
                self._cut(image, (y, x, height, width), mirrored, turned=number % 2 == 0)
            )
        return torch.from_numpy(np.ascontiguousarray(np.dstack(channels).transpose(2, 0, 1)))

    def _cut(
        self,
        image: cv2.typing.MatLike,
        box: tuple[int, int, int, int],
        mirrored: bool,
        *,
        turned: bool,
    ) -> UInt8:
        y, x, height, width = box
        if not self._kind.has_pairs:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, self._size)[y : y + height, x : x + width]
        image = cv2.resize(image, (INPUT_SIZE, INPUT_SIZE))
        if mirrored:
            image = cv2.flip(image, 1)
            image = 255 - image if turned and self._kind.has_pairs else image
        return image.astype(np.uint8, copy=False)


def make_png_loader(
    tree: PngTree, *, batch_size: int, num_workers: int
) -> DataLoader[torch.Tensor]:
    """Return a DataLoader whose worker processes stay between epochs."""
    return DataLoader(
        tree,
        batch_size=batch_size,
        num_workers=num_workers,
        persistent_workers=True,
        multiprocessing_context="spawn",
        worker_init_fn=_start_worker,
    )


def _start_worker(number: int) -> None:
    random.seed(number)
    cv2.setNumThreads(1)
