"""A sequence of a dataset as pictures inside a page."""

from __future__ import annotations

from pipelines.dataset import Dataset
from shard_builder.images import Image, decode_gray, decode_rgb
from shard_builder.inspection.flow_picture import flow_to_rgb
from shard_builder.page import jpeg_address


def pictures_of(dataset: Dataset, key: str) -> list[str]:
    """Return the peak frame and the flow in the middle of a sequence as data addresses, as far as
    they are stored as images.
    """
    row = int(dataset.rows_of([key])[0])
    pictures: list[Image | None] = []
    streams, flow = dataset.manifest.streams, dataset.manifest.flow
    if "rgb" in streams and streams["rgb"].codec != "raw":
        pictures.append(decode_rgb(dataset.read_member("rgb", row, -1)))
    if "flow" in streams and flow is not None and streams["flow"].codec != "raw":
        levels = decode_gray(dataset.read_member("flow", row, int(dataset.num_pairs[row]) // 2))
        pictures.append(None if levels is None else flow_to_rgb(levels, bound_px=flow.bound_px))
    return [jpeg_address(picture) for picture in pictures if picture is not None]
