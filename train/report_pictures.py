"""Pictures inside a page: files and arrays as data addresses."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2

from pipelines.dataset import Dataset
from shard_builder.codecs import decode_gray, decode_rgb
from shard_builder.flow_picture import flow_to_rgb
from shard_builder.frames import Image


def pictures_of(dataset: Dataset, key: str) -> list[str]:
    """Return the peak frame and the flow in the middle of a sequence as data addresses, as far as they are stored as images."""
    row = int(dataset.rows_of([key])[0])
    pictures: list[Image | None] = []
    streams, flow = dataset.manifest.streams, dataset.manifest.flow
    if "rgb" in streams and streams["rgb"].codec != "raw":
        pictures.append(decode_rgb(dataset.read_member("rgb", row, -1)))
    if "flow" in streams and flow is not None and streams["flow"].codec != "raw":
        levels = decode_gray(dataset.read_member("flow", row, int(dataset.num_pairs[row]) // 2))
        pictures.append(None if levels is None else flow_to_rgb(levels, bound_px=flow.bound_px))
    return [jpeg_address(picture) for picture in pictures if picture is not None]


def png_address(path: Path) -> str:
    """Return a PNG file as a data address."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def jpeg_address(image: Image) -> str:
    """Return an RGB picture as a data address."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
