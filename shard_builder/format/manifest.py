"""``manifest.json``: what a dataset folder is, and the checksum of all in it. Written last."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from shard_builder.errors import DatasetError
from shard_builder.files import FileDigest, write_atomically
from shard_builder.format.index import LATEST_VERSION
from shard_builder.format.streams import CODECS, STREAMS, FrameChoice

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = "ckshard-dataset"
READABLE_VERSIONS = (1, 2)
BUILD_FOLDER = ".build"
"""Scratch of a build in its dataset folder; where it is left over, the build has not finished."""
FILE_PATTERN = re.compile(r"(rgb|flow)-\d{6}\.(tar|idx)|index\.arrow|skipped\.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmotionClass:
    """A class: its index, its name, the source's own code and how many sequences have it."""

    label: int
    name: str
    code: int
    num_sequences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Size of every plane and frame, in pixels."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if not (0 < self.height <= 1 << 14 and 0 < self.width <= 1 << 14):
            raise ValueError(f"geometry {self.width}x{self.height}, expected 1..16384 pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSettings:
    """How the flow was computed and quantised, and what its levels are like."""

    method: str
    bound_px: float
    saturated_fraction: float
    mean_level: float

    def __post_init__(self) -> None:
        if not self.bound_px > 0:
            raise ValueError(f"bound_px {self.bound_px}, expected a positive number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar of a stream."""

    name: str
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream of the dataset and its shards, by number."""

    codec: str
    quality: int | None
    frames: str | None
    num_members: int
    num_bytes: int
    shards: tuple[Shard, ...]

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"codec {self.codec!r}, expected one of {', '.join(CODECS)}")
        if self.frames not in (None, *get_args(FrameChoice)):
            raise ValueError(f"frames {self.frames!r}, expected all, last, last3 or null")

    @property
    def codec_name(self) -> str:
        """The codec with its quality, ``jpg 95``."""
        return self.codec if self.quality is None else f"{self.codec} {self.quality}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole manifest; see docs/format.md for its fields."""

    seed: int
    num_sequences: int
    num_subjects: int
    classes: tuple[EmotionClass, ...]
    geometry: Geometry
    crop: str
    flow: FlowSettings | None
    streams: Mapping[str, Stream]
    source: Mapping[str, Any]
    tools: Mapping[str, str]
    files: Mapping[str, FileDigest]
    version: int = LATEST_VERSION

    def __post_init__(self) -> None:
        labels = [emotion.label for emotion in self.classes]
        if labels != list(range(len(labels))):
            raise ValueError(f"class labels {labels}, expected 0, 1, 2, ...")
        for name in self.streams:
            if name not in STREAMS:
                raise ValueError(f"stream {name!r}, expected one of {', '.join(STREAMS)}")
        if (self.flow is None) == ("flow" in self.streams):
            raise ValueError(f"flow settings {self.flow}, but streams {', '.join(self.streams)}")
        shards = (shard.name for stream in self.streams.values() for shard in stream.shards)
        # A manifest may come from a stranger: no name in it may lead out of its folder.
        for name in (*self.files, *shards):
            if not FILE_PATTERN.fullmatch(name):
                raise ValueError(f"file name {name!r}, expected names like rgb-000000.tar")

    @property
    def has_subjects(self) -> bool:
        """Whether it is known whose face a sequence shows; else each stands for a subject."""
        return bool(self.source.get("has_subjects", True))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return tuple(c.name for c in self.classes)

    def to_json(self) -> str:
        """Return the file's text; without time stamps, so equal datasets have equal manifests."""
        record = asdict(self) | {"format": MANIFEST_FORMAT}
        return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_manifest(dataset_dir: Path, manifest: Manifest, *, temporary_dir: Path) -> None:
    """Write ``manifest.json``, the last file of a build."""
    write_atomically(
        dataset_dir / MANIFEST_NAME, manifest.to_json().encode(), temporary_dir=temporary_dir
    )


def read_manifest(dataset_dir: Path) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        DatasetError: If the folder or the file is missing, is not ours, has another version, or
            breaks a rule.
    """
    path = dataset_dir / MANIFEST_NAME
    command = f"ckshard build SRC {dataset_dir}"
    if not dataset_dir.is_dir():
        raise DatasetError(
            f"{dataset_dir}: no such folder, expected a dataset\n  Build it: {command}"
        )
    if not path.is_file():
        is_unfinished = (dataset_dir / BUILD_FOLDER).is_dir()
        what = "a build that did not finish" if is_unfinished else "not a dataset: no manifest.json"
        raise DatasetError(f"{dataset_dir}: {what}\n  Run the same command again: {command}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path}: is not JSON ({error})\n  Build the dataset again.") from None
    if not isinstance(record, dict) or record.get("format") != MANIFEST_FORMAT:
        raise DatasetError(
            f"{path}: not a manifest of ckshard, expected format {MANIFEST_FORMAT!r}"
        )
    version = record.get("version")
    if version not in READABLE_VERSIONS or isinstance(version, bool):
        known = " or ".join(map(str, READABLE_VERSIONS))
        raise DatasetError(
            f"{path}: version {version!r}, expected {known}\n"
            "  Use the ckshard that wrote it, or build the dataset again with this one."
        )
    try:
        return _from_record(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path}: {type(error).__name__}: {error}\n  Build the dataset again."
        ) from None


def _from_record(record: dict[str, Any]) -> Manifest:
    streams = {
        name: Stream(**stream | {"shards": tuple(Shard(**shard) for shard in stream["shards"])})
        for name, stream in record["streams"].items()
    }
    plain = ("seed", "num_sequences", "num_subjects", "crop", "source", "tools", "version")
    return Manifest(
        classes=tuple(EmotionClass(**entry) for entry in record["classes"]),
        geometry=Geometry(**record["geometry"]),
        flow=None if record["flow"] is None else FlowSettings(**record["flow"]),
        streams=streams,
        files={name: FileDigest(**digest) for name, digest in record["files"].items()},
        **{name: record[name] for name in plain},
    )


def manifest_sha256(dataset_dir: Path) -> str:
    """Return the SHA-256 of ``manifest.json``; its checksums make it stand for the dataset."""
    return hashlib.sha256((dataset_dir / MANIFEST_NAME).read_bytes()).hexdigest()
