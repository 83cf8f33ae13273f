"""The DALI graph of the ``dali`` engine, for the GPU and the CPU: decode, cut the crop, resize,
mirror, normalise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

# Read when a process builds its first pipeline: buffers of over 64 KB then come from DALI's own
# pool. Left to malloc, they fault their pages in anew for every batch and break up the heap: half
# as much memory again, and growing.
os.environ.setdefault("DALI_MALLOC_POOL_THRESHOLD", "64k")

from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from pipelines.engines.normalize import DEVIATION, MEAN
from pipelines.engines.planes import PlaneReader
from pipelines.plan.crops import INPUT_SIZE

DALI_DTYPES = {
    torch.uint8: types.UINT8,
    torch.float16: types.FLOAT16,
    torch.float32: types.FLOAT,
    torch.bfloat16: types.FLOAT,  # DALI has no bfloat16: it is rounded once, in torch
}


def takes_boxes(reader: PlaneReader, device: torch.device) -> bool:
    """Return whether the graph cuts: on the CPU NumPy cuts planes in a fifth of the time of DALI's
    slice; a GPU beats one Python thread.
    """
    return device.type == "cuda" or not reader.gives_planes


def takes_turns(reader: PlaneReader, device: torch.device) -> bool:
    """Return whether the graph turns x flow of mirrored samples: on the CPU NumPy does it in a
    twentieth of the time of DALI's XOR.
    """
    return device.type == "cuda" and reader.stream == "flow"


def build_pipeline(
    reader: PlaneReader,
    source: Callable[[], tuple[Any, ...]],
    *,
    dtype: torch.dtype,
    device: torch.device,
    batch_size: int,
    num_threads: int,
    prefetch_depth: int,
) -> Pipeline:
    """Build a pipeline whose output is (N, 224, 224, C).

    Args:
        reader: Tells the stream, the codec and the geometry.
        source: Returns a batch's inputs, each a list or an array of one entry a sample: the
            window's encoded members, or one array of its planes; the box's y, x, height and width
            if the graph :func:`takes_boxes`; 1 or 0, mirrored or not; what the planes are XORed
            with, ``uint8`` (C, 1, 1), if it :func:`takes_turns`.
        dtype: Of the output; floats are normalised, ``bfloat16`` comes as ``float32``.
        device: Where the output is made.
        batch_size: Largest number of samples in a batch.
        num_threads: DALI's threads.
        prefetch_depth: Batches in progress ahead of the one handed over.
    """
    num_members = 1 if reader.stream == "rgb" or reader.gives_planes else reader.stack_length
    num_boxes, num_turns = 4 * takes_boxes(reader, device), int(takes_turns(reader, device))
    pipeline = Pipeline(
        batch_size=batch_size,
        # DALI's operators wait for their slowest thread, and on a CPU the feeding thread takes a
        # core at times: one more evens that out
        num_threads=num_threads + (device.type == "cpu"),
        prefetch_queue_depth=prefetch_depth + 1,  # one of them is the batch handed over
        device_id=device.index if device.type == "cuda" else None,
    )
    with pipeline:
        inputs = iter(
            fn.external_source(
                source=source, num_outputs=num_members + num_boxes + 1 + num_turns, batch=True
            )
        )
        members, box, mirror = (
            list(islice(inputs, num_members)),
            list(islice(inputs, num_boxes)),
            next(inputs),
        )
        crops = (
            _plane_crops(reader, members[0], box)
            if reader.gives_planes
            else _decoded_crops(reader, device, members, *box)
        )
        images = fn.resize(
            crops, size=[INPUT_SIZE, INPUT_SIZE], interp_type=types.INTERP_LINEAR, antialias=False
        )
        for turn in inputs:
            images = images ^ turn.gpu()
        images = fn.crop_mirror_normalize(
            images,
            mirror=mirror,
            dtype=DALI_DTYPES[dtype],
            output_layout="HWC",
            **_normalization(reader.stream, dtype),
        )
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline


def _plane_crops(reader: PlaneReader, planes: Any, box: Sequence[Any]) -> Any:
    """Return (h, w, 3) or (2L, h, w) of windows fed as planes; without a box they were cut before
    feeding.
    """
    planes = fn.reinterpret(planes, layout="HWC" if reader.stream == "rgb" else "CHW")
    return _slice(planes.gpu(), *box) if box else planes


def _decoded_crops(
    reader: PlaneReader,
    device: torch.device,
    members: Sequence[Any],
    y: Any,
    x: Any,
    height: Any,
    width: Any,
) -> Any:
    """Return (h, w, 3) or (2L, h, w) of encoded windows; the CPU decodes the crop's columns
    only.
    """
    on_gpu = device.type == "cuda"
    # smooth chroma, as libjpeg-turbo on the CPU does it; without effect there
    options = {
        "output_type": types.RGB if reader.stream == "rgb" else types.GRAY,
        "jpeg_fancy_upsampling": True,
    }
    if on_gpu:
        decoder = "mixed" if reader.dataset.stream(reader.stream).codec == "jpg" else "cpu"
        images = [fn.decoders.image(member, device=decoder, **options).gpu() for member in members]
    else:
        columns = {"start": x, "shape": width, "axis_names": "W"}
        images = [fn.decoders.image_slice(member, **columns, **options) for member in members]
    if reader.stream == "flow":
        size = types.Constant(
            np.array([2, reader.height, reader.width] if on_gpu else [2, reader.height], np.int32)
        )
        size = size if on_gpu else fn.cat(size, width)
        images = [fn.reshape(image, shape=size, layout="CHW") for image in images]
    stack = fn.cat(*images, axis=0) if len(images) > 1 else images[0]
    return (
        _slice(stack, y, x, height, width)
        if on_gpu
        else fn.slice(stack, start=y, shape=height, axis_names="H")
    )


def _slice(planes: Any, y: Any, x: Any, height: Any, width: Any) -> Any:
    """Cut the crop out, not with the resize's region of interest: that mixes pixels from beyond the
    crop into its border.
    """
    return fn.slice(planes, start=fn.cat(y, x), shape=fn.cat(height, width), axis_names="HW")


def _normalization(stream: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return mean and deviation in levels; all channels of flow share one, for DALI 2.4 crashes on
    lists of more than 8.
    """
    if dtype == torch.uint8:
        return {}
    return {
        "mean": [255 * mean for mean in MEAN[stream]],
        "std": [255 * value for value in DEVIATION[stream]],
    }
