"""Our shards through plain ``webdataset``: its reader, its pipeline, our ways to decode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds

from pipelines.streams import StreamKind
from shard_builder.errors import DatasetError
from shard_builder.format.codecs import parse_npy_header
from shard_builder.format.decoding import decode_item
from shard_builder.format.frames import Geometry
from shard_builder.format.manifest import Stream


def make_web_pipeline(
    folder: Path, kind: StreamKind, stream: Stream, geometry: Geometry
) -> wds.WebDataset:
    """Make the pipeline of :meth:`pipelines.dataset.Dataset.as_webdataset`."""
    paths = [str(folder / shard.name) for shard in stream.shards]

    def decode(sample: dict[str, Any]) -> dict[str, Any]:
        planes = _planes(sample, kind, stream.codec, geometry)
        decoded = {"__key__": sample["__key__"], "label": int(sample["cls"]), "planes": planes}
        return decoded if kind.has_pairs else decoded | {"apex": _apex(sample, stream, len(planes))}

    return wds.WebDataset(paths, shardshuffle=False, empty_check=False).map(decode)


def _apex(sample: dict[str, Any], stream: Stream, num_planes: int) -> int:
    """Return the apex's place among the frames; shards of version 1 name none: the last."""
    last = num_planes - 1
    apex = json.loads(sample["json"]).get("apex", last) if stream.frames == "all" else last
    if not isinstance(apex, int) or not 0 <= apex <= last:
        raise DatasetError(f"{sample['__key__']}.json: apex {apex!r}, expected 0 to {last}")
    return apex


def _planes(sample: dict[str, Any], kind: StreamKind, codec: str, geometry: Geometry) -> np.ndarray:
    if codec == "raw":
        data = sample[f"{kind.name}.npy"]
        start, shape = parse_npy_header(data)
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    names = sorted(name for name in sample if name.startswith(f"{kind.name}-"))
    shape = kind.item_shape(geometry.height, geometry.width)
    images = []
    for name in names:
        try:
            images.append(decode_item(sample[name], codec=codec, shape=shape))
        except ValueError as error:
            raise DatasetError(f"{sample['__key__']}.{name}: {error}") from None
    array_shape = kind.array_shape(len(names), geometry.height, geometry.width)
    return np.stack(images).reshape(array_shape)
