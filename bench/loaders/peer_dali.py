"""DALI's own ``fn.readers.webdataset`` over this project's shards, with the operators of the dali
engine and random crops.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from bench.loaders.windows import (
    BATCH_SIZE,
    CROPS,
    EPOCH_SAMPLES,
    HEIGHT,
    NUM_PLANES,
    NUM_WORKERS,
    STACK_LENGTH,
    WindowFolders,
)
from pipelines.throughput.turns import Contender

BOXES = np.array(CROPS, np.int32)


def draw_boxes() -> Iterator[tuple[np.ndarray, ...]]:
    """Draw crops, flips and what turns x flow for the batches of an epoch; its end keeps DALI from
    reading ahead into other turns.
    """
    for _ in range(EPOCH_SAMPLES // BATCH_SIZE):
        drawn = BOXES[np.random.randint(len(BOXES), size=BATCH_SIZE)]
        flips = np.random.randint(2, size=BATCH_SIZE).astype(np.int32)
        turns = np.zeros((BATCH_SIZE, NUM_PLANES, 1, 1), np.uint8)
        turns[flips == 1, 0::2] = 255
        yield (*drawn.T[..., None].copy(), flips, turns)


def _crops(members: list[Any], codec: str, y: Any, x: Any, height: Any, width: Any) -> Any:
    if codec == "raw":
        planes = fn.reshape(fn.decoders.numpy(members[0]), layout="CHW")
        return fn.slice(planes, start=fn.cat(y, x), shape=fn.cat(height, width), axis_names="HW")
    images = [
        fn.decoders.image_slice(
            member, start=x, shape=width, axis_names="W", output_type=types.GRAY
        )
        for member in members
    ]
    size = fn.cat(types.Constant(np.array([2, HEIGHT], np.int32)), width)
    stack = fn.cat(*[fn.reshape(image, shape=size, layout="CHW") for image in images], axis=0)
    return fn.slice(stack, start=y, shape=height, axis_names="H")


def _build(dataset: Path, codec: str) -> Pipeline:
    names = (
        ["flow.npy"]
        if codec == "raw"
        else [f"flow-{number:03d}.jpg" for number in range(STACK_LENGTH)]
    )
    pipeline = Pipeline(BATCH_SIZE, NUM_WORKERS, None, prefetch_queue_depth=3)
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
        # a generator function: DALI calls it anew for each epoch
        *box, mirror, turn = fn.external_source(
            source=draw_boxes,  # type: ignore[arg-type]
            num_outputs=6,
            batch=True,
            cycle="raise",
        )
        crops = _crops(members if isinstance(members, list) else [members], codec, *box)
        images = (
            fn.resize(crops, size=[224, 224], interp_type=types.INTERP_LINEAR, antialias=False)
            ^ turn
        )
        pipeline.set_outputs(
            fn.crop_mirror_normalize(images, mirror=mirror, dtype=types.UINT8, output_layout="HWC")
        )
    pipeline.build()
    return pipeline


@contextmanager
def webdataset_reader(folders: WindowFolders, codec: str) -> Iterator[Contender]:
    """Deliver whole sequences in the reader's own shuffled order; each is one window long."""
    pipeline = _build(folders.raw if codec == "raw" else folders.jpg, codec)

    def run_epoch(epoch: int) -> int:
        num_samples = 0
        while True:
            try:
                num_samples += len(pipeline.run()[0])
            except StopIteration:
                pipeline.reset()
                return num_samples

    yield Contender(
        name=f"DALI reader, {codec}",
        engine="dali-reader",
        codec=codec,
        dtype="uint8",
        run_epoch=run_epoch,
    )
