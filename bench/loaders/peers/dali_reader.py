"""DALI's own ``fn.readers.webdataset`` over this project's shards, with the operators of the dali
engine and random crops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from bench.loaders.windows import BATCH_SIZE, CROPS, HEIGHT, NUM_PLANES, STACK_LENGTH, Windows

BOXES = np.array(CROPS, np.int32)


def draw_boxes(num_samples: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Draw crops, flips and what turns x flow for the batches of an epoch; its end keeps DALI from
    reading ahead into other turns.
    """
    for _ in range(num_samples // BATCH_SIZE):
        drawn = BOXES[np.random.randint(len(BOXES), size=BATCH_SIZE)]
        flips = np.random.randint(2, size=BATCH_SIZE).astype(np.int32)
        turned = np.zeros((BATCH_SIZE, NUM_PLANES, 1, 1), np.uint8)
        turned[flips == 1, 0::2] = 255
        yield (*drawn.T[..., None].copy(), flips, turned)


def _crops(members: list[Any], codec: str, y: Any, x: Any, height: Any, width: Any) -> Any:
    if codec == "raw":
        planes = fn.reshape(fn.decoders.numpy(members[0]), layout="CHW")
        return fn.slice(planes, start=fn.cat(y, x), shape=fn.cat(height, width), axis_names="HW")
    columns = {"start": x, "shape": width, "axis_names": "W", "output_type": types.GRAY}
    images = [fn.decoders.image_slice(member, **columns) for member in members]
    size = fn.cat(types.Constant(np.array([2, HEIGHT], np.int32)), width)
    stack = fn.cat(*[fn.reshape(image, shape=size, layout="CHW") for image in images], axis=0)
    return fn.slice(stack, start=y, shape=height, axis_names="H")


@contextmanager
def epochs(windows: Windows, codec: str) -> Iterator[Callable[[], Any]]:
    """Deliver whole sequences in the reader's own shuffled order; each is one window long."""
    dataset = windows.folder / codec
    suffixes = [f"flow-{number:03d}.{codec}" for number in range(STACK_LENGTH)]
    pipeline = Pipeline(BATCH_SIZE, windows.num_workers, None, prefetch_queue_depth=3)
    with pipeline:
        members = fn.readers.webdataset(
            paths=sorted(map(str, dataset.glob("flow-*.tar"))),
            index_paths=sorted(map(str, dataset.glob("flow-*.idx"))),
            ext=["flow.npy"] if codec == "raw" else suffixes,
            missing_component_behavior="error",
            random_shuffle=True,
            initial_fill=64,
        )
        # DALI calls a source without arguments anew for each epoch
        source: Any = partial(draw_boxes, windows.num_samples)
        drawn = fn.external_source(source=source, num_outputs=6, batch=True, cycle="raise")
        *box, mirror, turned = drawn
        crops = _crops(members if isinstance(members, list) else [members], codec, *box)
        size = {"size": [224, 224], "interp_type": types.INTERP_LINEAR, "antialias": False}
        images = fn.resize(crops, **size) ^ turned
        outputs = {"dtype": types.UINT8, "output_layout": "HWC"}
        pipeline.set_outputs(fn.crop_mirror_normalize(images, mirror=mirror, **outputs))
    pipeline.build()

    def run_epoch() -> Iterator[Any]:
        while True:
            try:
                yield pipeline.run()[0]
            except StopIteration:
                pipeline.reset()
                return

    yield run_epoch
