"""Our shards through plain ``webdataset``: its reader, its pipeline, our two ways to decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds

from pipelines.streams import StreamKind
from shard_builder.errors import DatasetError
from shard_builder.format.codecs import parse_npy_header
from shard_builder.format.manifest import Geometry, Stream


def make_web_pipeline(
    folder: Path, kind: StreamKind, stream: Stream, geometry: Geometry
) -> wds.WebDataset:
    """Make the pipeline of :meth:`pipelines.dataset.Dataset.as_webdataset`."""
    paths = [str(folder / shard.name) for shard in stream.shards]

    def decode(sample: dict[str, Any]) -> dict[str, Any]:
        return {
            "__key__": sample["__key__"],
            "label": int(sample["cls"]),
            "planes": _planes(sample, kind, geometry.height, geometry.width),
        }

    return wds.WebDataset(paths, shardshuffle=False, empty_check=False).map(decode)


def _planes(sample: dict[str, Any], kind: StreamKind, height: int, width: int) -> np.ndarray:
    names = sorted(name for name in sample if name.startswith(f"{kind.name}-"))
    if not names:
        data = sample[f"{kind.name}.npy"]
        start, shape = parse_npy_header(data)
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    images = [kind.decode(np.frombuffer(sample[name], np.uint8)) for name in names]
    broken = [name for name, image in zip(names, images, strict=True) if image is None]
    if broken:
        raise DatasetError(f"{sample['__key__']}.{broken[0]}: cannot be decoded")
    return np.stack(images).reshape(kind.array_shape(len(names), height, width))  # type: ignore[arg-type]
