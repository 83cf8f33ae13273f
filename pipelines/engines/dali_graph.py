"""The graph of the ``dali`` engine, GPU and CPU: decode, cut, resize, mirror, normalise."""

from __future__ import annotations

import math
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

from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from pipelines.engines.planes import PlaneReader
from pipelines.plan.crops import INPUT_SIZE
from pipelines.plan.jitter import source_matrix, vector_matrix
from pipelines.plan.requests import Draw
from pipelines.reading import Reading
from pipelines.streams import ZERO_MOTION, StreamKind

NUM_JITTER_INPUTS = 5

DALI_DTYPES = {
    torch.uint8: types.UINT8,
    torch.float16: types.FLOAT16,
    torch.float32: types.FLOAT,
    torch.bfloat16: types.FLOAT,  # DALI has no bfloat16: it is rounded once, in torch
}


def takes_boxes(reader: PlaneReader, device: torch.device) -> bool:
    """Return whether the graph cuts, not NumPy before it.

    On the CPU NumPy cuts planes in a fifth of the time of DALI's slice; a GPU beats one Python
    thread.
    """
    return device.type == "cuda" or not takes_planes(reader, device)


def jitter_inputs(draws: Sequence[Draw], kind: StreamKind) -> tuple[NDArray[np.float32], ...]:
    """Return what the graph of ``strong`` is fed in place of boxes and flips.

    Returns:
        ``float32``: matrices from sample to plane (N, 2, 3), as DALI counts, which is from a
        pixel's corner; the corner (N, 2) and the size (N, 2) of what is erased; then for flow what
        turns vectors (N, 2, 2) and shifts their levels (N, 2), for rgb brightness and contrast,
        (N,) each.
    """
    matrices, corners, sizes, turns, lights = [], [], [], [], []
    for draw in draws:
        assert draw.jitter is not None
        matrix = source_matrix(draw.box, draw.mirrored, draw.jitter)
        matrix[:, 2] += 0.5 - matrix[:, :2].sum(1) / 2
        matrices.append(matrix)
        turns.append(vector_matrix(draw.mirrored, draw.jitter))
        lights.append((draw.jitter.brightness, draw.jitter.contrast))
        corners.append(draw.jitter.erased[:2])
        sizes.append(draw.jitter.erased[2:])
    turn, light = np.array(turns), np.array(lights)
    rest = (turn, ZERO_MOTION * (1 - turn.sum(2))) if kind.has_pairs else (light[:, 0], light[:, 1])
    return tuple(np.array(column, np.float32) for column in (matrices, corners, sizes, *rest))


def takes_planes(reader: PlaneReader, device: torch.device) -> bool:
    """Return whether the graph is fed planes, not encoded members.

    DALI inflates LZ4 blocks on a GPU only; for the CPU they are decoded before it.
    """
    return reader.gives_planes or (reader.members.codec == "lz4" and device.type == "cpu")


def takes_turns(reader: PlaneReader, device: torch.device) -> bool:
    """Return whether the graph turns x flow of mirrored samples, not NumPy after it.

    On the CPU NumPy does it in a twentieth of the time of DALI's XOR.
    """
    return device.type == "cuda" and reader.kind.has_pairs


def build_pipeline(
    reader: PlaneReader,
    source: Callable[[], tuple[Any, ...]],
    batch_size: int,
    reading: Reading,
    *,
    jitters: bool = False,
) -> Pipeline:
    """Build a pipeline whose output is (N, 224, 224, C).

    Args:
        reader: Tells the stream, the codec and the geometry.
        source: Returns a batch's inputs, each a list or an array of one entry a sample: the
            window's encoded members, or one array of its planes; the box's y, x, height and width
            if the graph :func:`takes_boxes`; 1 or 0, mirrored or not; what the planes are XORed
            with, ``uint8`` (C, 1, 1), if it :func:`takes_turns`. With jitter all after the window
            is what :func:`jitter_inputs` returns.
        batch_size: Largest number of samples in a batch.
        reading: Device, threads, depth, dtype; floats are normalised, ``bfloat16`` comes as
            ``float32``.
        jitters: The samples are those of ``strong``.
    """
    kind, device, dtype = reader.kind, reading.torch_device, reading.dtype
    with_planes = takes_planes(reader, device)
    num_members = reader.stack_length if kind.has_pairs and not with_planes else 1
    num_boxes, num_turns = 4 * takes_boxes(reader, device), int(takes_turns(reader, device))
    num_cuts = NUM_JITTER_INPUTS if jitters else num_boxes + 1 + num_turns
    pipeline = Pipeline(
        batch_size=batch_size,
        # DALI's operators wait for their slowest thread, and on a CPU the feeding thread takes a
        # core at times: one more evens that out.
        num_threads=reading.threads + (device.type == "cpu"),
        prefetch_queue_depth=reading.prefetch_depth + 1,  # one of them is the batch handed over
        device_id=device.index if device.type == "cuda" else None,
    )
    with pipeline:
        fed = fn.external_source(
            source=source,
            num_outputs=num_members + num_cuts,
            batch=True,
            # DALI keeps what it is fed until it has read it. All of it is mapped read-only or new,
            # but for the buffers of crops that were cut before.
            no_copy=jitters or takes_boxes(reader, device),
        )
        inputs = iter(fed)
        members = list(islice(inputs, num_members))
        if jitters:
            planes = (
                _planes(reader, device, members[0])
                if with_planes
                else _decoded_planes(reader, device, members)
            )
            images, mirror = _jittered(reader, planes, *inputs), 0
        else:
            box, mirror = list(islice(inputs, num_boxes)), next(inputs)
            crops = (
                _plane_crops(reader, device, members[0], box)
                if with_planes
                else _decoded_crops(reader, device, members, *box)
            )
            images = fn.resize(
                crops,
                size=[INPUT_SIZE, INPUT_SIZE],
                interp_type=types.INTERP_LINEAR,
                antialias=False,
            )
            for turn in inputs:
                images = images ^ turn.gpu()
        images = fn.crop_mirror_normalize(
            images,
            mirror=mirror,
            dtype=DALI_DTYPES[dtype],
            output_layout="HWC",
            **_normalization(kind, dtype),
        )
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline


def _planes(reader: PlaneReader, device: torch.device, planes: Any) -> Any:
    """Return (H, W, 3) or (2L, H, W) of a window's planes, on the device."""
    planes = fn.reinterpret(planes, layout="CHW" if reader.kind.has_pairs else "HWC")
    return planes.gpu() if device.type == "cuda" else planes


def _plane_crops(reader: PlaneReader, device: torch.device, planes: Any, box: Sequence[Any]) -> Any:
    """Return (h, w, 3) or (2L, h, w) of planes; without a box they were cut before feeding."""
    planes = _planes(reader, device, planes)
    return _slice(planes, *box) if box else planes


def _decoded_planes(
    reader: PlaneReader, device: torch.device, members: Sequence[Any], *columns: Any
) -> Any:
    """Return (H, W, 3) or (2L, H, W) of encoded windows.

    Args:
        reader: Tells the codec and the geometry.
        device: Where they are decoded.
        members: Of a window.
        columns: On the CPU, the first column and the number of columns to decode, (1,) each.
    """
    on_gpu = device.type == "cuda"
    # Smooth chroma, as libjpeg-turbo on the CPU does it; without effect there.
    options = {
        "output_type": types.GRAY if reader.kind.has_pairs else types.RGB,
        "jpeg_fancy_upsampling": True,
    }
    if reader.members.codec == "lz4":
        shape = list(reader.kind.item_shape(reader.height, reader.width))
        images = [fn.decoders.inflate(member.gpu(), shape=shape) for member in members]
    elif on_gpu:
        options |= _decoder(reader)
        images = [fn.decoders.image(member, **options).gpu() for member in members]
    elif columns:
        x, width = columns
        part = {"start": x, "shape": width, "axis_names": "W"}
        images = [fn.decoders.image_slice(member, **part, **options) for member in members]
    else:
        images = [fn.decoders.image(member, **options) for member in members]
    if reader.kind.has_pairs:
        known = [2, reader.height, *(() if columns else (reader.width,))]
        size = types.Constant(np.array(known, np.int32))
        size = fn.cat(size, columns[1]) if columns else size
        images = [fn.reshape(image, shape=size, layout="CHW") for image in images]
    return fn.cat(*images, axis=0) if len(images) > 1 else images[0]


def _decoded_crops(
    reader: PlaneReader,
    device: torch.device,
    members: Sequence[Any],
    y: Any,
    x: Any,
    height: Any,
    width: Any,
) -> Any:
    """Return (h, w, 3) or (2L, h, w) of encoded windows."""
    if device.type == "cuda":
        return _slice(_decoded_planes(reader, device, members), y, x, height, width)
    # The crop's columns only: a fifth of the decoding.
    stack = _decoded_planes(reader, device, members, x, width)
    return fn.slice(stack, start=y, shape=height, axis_names="H")


def _jittered(
    reader: PlaneReader, planes: Any, matrix: Any, corner: Any, size: Any, first: Any, second: Any
) -> Any:
    """Return whole levels (224, 224, C) of planes; for the rest see :func:`jitter_inputs`."""
    has_pairs, shape = reader.kind.has_pairs, [INPUT_SIZE, INPUT_SIZE]
    if has_pairs:
        planes = fn.transpose(planes, perm=[1, 2, 0], output_layout="HWC")
    images = fn.warp_affine(
        planes, matrix=matrix, size=shape, dtype=types.FLOAT, interp_type=types.INTERP_LINEAR
    )
    if has_pairs:
        images = fn.reshape(images, shape=[*shape, reader.num_channels // 2, 2])
        images = fn.coord_transform(images, M=first, T=second)
        images = fn.reshape(images, shape=[*shape, reader.num_channels], layout="HWC")
    else:
        images = fn.brightness_contrast(
            images, brightness=first, contrast=second, contrast_center=128.0
        )
    return fn.erase(
        fn.cast(images, dtype=types.UINT8),
        anchor=corner,
        shape=size,
        axis_names="HW",
        fill_value=[float(level) for level in reader.kind.mean_levels()],
    )


def _decoder(reader: PlaneReader) -> dict[str, Any]:
    """Return where images are decoded, and the memory nvJPEG takes in advance for it.

    It takes that for each thread of each decoder, one a member; by default for images of 8
    megapixels, gigabytes in all.
    """
    if reader.members.codec != "jpg":
        return {"device": "cpu"}
    # Coefficients of two bytes a value beside the values themselves, in whole MiB.
    num_bytes = 4 * math.prod(reader.kind.item_shape(reader.height, reader.width))
    padding = -(-num_bytes >> 20) << 20
    return {"device": "mixed", "device_memory_padding": padding, "host_memory_padding": padding}


def _slice(planes: Any, y: Any, x: Any, height: Any, width: Any) -> Any:
    # Not by the resize's region of interest: that mixes pixels beyond the crop into its border.
    return fn.slice(planes, start=fn.cat(y, x), shape=fn.cat(height, width), axis_names="HW")


def _normalization(kind: StreamKind, dtype: torch.dtype) -> dict[str, Any]:
    """Return mean and deviation in levels."""
    if dtype == torch.uint8:
        return {}
    # All channels of flow share one: DALI 2.4 crashes on lists of more than 8.
    mean, deviation = [255 * m for m in kind.mean], [255 * value for value in kind.deviation]
    return {"mean": mean, "std": deviation}
