"""The end of a build: index, list of skipped sequences, and the manifest that proves the rest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import lz4
import numpy as np

from shard_builder.building.flow_levels import merge_statistics
from shard_builder.building.options import BuildOptions
from shard_builder.building.shard_task import ShardResult
from shard_builder.errors import SourceError
from shard_builder.faces.model import FaceModel
from shard_builder.files import FileDigest, sync_folder, write_atomically
from shard_builder.format.crop import CropSettings
from shard_builder.format.frames import Geometry
from shard_builder.format.index import INDEX_NAME, write_index
from shard_builder.format.manifest import (
    BUILD_FOLDER,
    EmotionClass,
    FlowSettings,
    Manifest,
    Shard,
    Stream,
    write_manifest,
)
from shard_builder.sources.sequence import Source

SKIPPED_NAME = "skipped.jsonl"
INPUTS = "inputs_sha256"
"""What in the manifest's ``source`` proves that a build like this one is finished."""


def finish_dataset(
    source: Source,
    dataset_dir: Path,
    options: BuildOptions,
    results: list[ShardResult],
    face_model: FaceModel | None = None,
) -> Manifest:
    """Write what stands beside the finished shards, the manifest last.

    Raises:
        SourceError: If no sequence could be built; the folder of the build is gone then.
        OSError: If the disk fails or is full.
    """
    temporary_dir = dataset_dir / BUILD_FOLDER
    rows = [row for result in results for row in result.rows]
    skipped = [asdict(skip) for skip in source.skipped]
    skipped += [skip for result in results for skip in result.skipped]
    if not rows:
        shutil.rmtree(temporary_dir)
        raise SourceError(
            f"no sequence could be built; all {len(skipped)} were skipped, the first because:"
            f" {skipped[0]['reason']}"
        )
    files = {name: digest for result in results for name, digest in result.files.items()}
    files[INDEX_NAME] = write_index(
        dataset_dir / INDEX_NAME, rows, streams=options.streams, temporary_dir=temporary_dir
    )
    if skipped:
        skipped.sort(key=lambda skip: skip["key"])
        lines = "".join(json.dumps(skip, sort_keys=True) + "\n" for skip in skipped)
        files[SKIPPED_NAME] = write_atomically(
            dataset_dir / SKIPPED_NAME, lines.encode(), temporary_dir=temporary_dir
        )
    _remove_others(dataset_dir, keep=set(files))
    sync_folder(dataset_dir)
    manifest = _manifest(
        source, options, results, rows, files, num_skipped=len(skipped), face_model=face_model
    )
    write_manifest(dataset_dir, manifest, temporary_dir=temporary_dir)
    shutil.rmtree(temporary_dir)
    sync_folder(dataset_dir)
    return manifest


def combined_sha256(hashes: Iterable[str]) -> str:
    """Hash the shards' hashes, in order."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _remove_others(dataset_dir: Path, *, keep: set[str]) -> None:
    """Remove the shards of an earlier, longer build that this one replaces."""
    for path in dataset_dir.iterdir():
        if path.name not in keep and path.suffix in (".tar", ".idx", ".arrow", ".jsonl"):
            path.unlink()


def _manifest(
    source: Source,
    options: BuildOptions,
    results: list[ShardResult],
    rows: list[dict[str, Any]],
    files: Mapping[str, FileDigest],
    *,
    num_skipped: int,
    face_model: FaceModel | None,
) -> Manifest:
    num_sequences = Counter(row["label"] for row in rows)
    return Manifest(
        seed=options.seed,
        num_sequences=len(rows),
        num_subjects=len({row["subject"] for row in rows}),
        classes=tuple(
            EmotionClass(label=label, name=name, code=code, num_sequences=num_sequences[label])
            for label, (code, name) in enumerate(source.classes)
        ),
        geometry=Geometry(height=options.height, width=options.width),
        crop=_crop(options, face_model),
        sampling=options.sampling,
        flow=_flow_settings(options, results) if "flow" in options.streams else None,
        streams={stream: _stream(stream, options, results, rows) for stream in options.streams},
        source={
            "kind": source.kind,
            "num_unlabelled": source.num_unlabelled,
            "num_skipped": num_skipped,
            "num_left_out": sum(source.left_out.values()),
            "has_subjects": source.has_subjects,
            INPUTS: combined_sha256(result.inputs for result in results),
        },
        tools={
            "ckshard": importlib.metadata.version("ckshard"),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            **({"lz4": lz4.library_version_string()} if options.flow_codec == "lz4" else {}),
        },
        files=files,
    )


def _crop(options: BuildOptions, face_model: FaceModel | None) -> str:
    if options.crop == "none":
        return "none"
    sha256 = face_model.sha256 if face_model else ""
    return str(
        CropSettings(method=options.crop, margin=float(options.crop_margin), model_sha256=sha256)
    )


def _flow_settings(options: BuildOptions, results: list[ShardResult]) -> FlowSettings:
    levels = merge_statistics(result.levels for result in results)
    return FlowSettings(
        method=options.flow_method,
        bound_px=options.bound_px,
        saturated_fraction=round(levels.saturated_fraction, 6),
        mean_level=round(levels.mean_level, 3),
        rest_fraction=round(levels.rest_fraction, 6),
        size=options.flow_geometry,
    )


def _stream(
    stream: str, options: BuildOptions, results: list[ShardResult], rows: list[dict[str, Any]]
) -> Stream:
    return Stream(
        codec=options.codec_of(stream),
        quality=options.quality if options.codec_of(stream) == "jpg" else None,
        frames=options.frames if stream == "rgb" else None,
        num_members=sum(len(row[f"{stream}_offset"]) for row in rows),
        num_bytes=sum(result.num_bytes[stream] for result in results),
        shards=tuple(
            Shard(name=f"{stream}-{result.number:06d}.tar", num_samples=len(result.rows))
            for result in results
        ),
    )
