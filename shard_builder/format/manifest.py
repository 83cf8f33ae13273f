"""``manifest.json``: what a dataset folder is, and the checksum of all in it. Written last."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from shard_builder.errors import DatasetError
from shard_builder.files import FileDigest, read_regular, write_atomically
from shard_builder.format.frames import ALL_FRAMES, FrameSampling, Geometry
from shard_builder.format.index import LATEST_VERSION
from shard_builder.format.streams import STREAMS, FrameChoice, StoredCodec
from shard_builder.untrusted.records import Count, check_version, parse_record
from shard_builder.untrusted.text import clean

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = "ckshard-dataset"
READABLE_VERSIONS = (1, 2)
MOST_CLASSES = 256
MOST_BYTES = 1 << 26
"""Of the file; enough for some 200,000 shards."""
EXAMPLE = "rgb-000000.tar"
BUILD_FOLDER = ".build"
"""Scratch of a build in its dataset folder; where it is left over, the build has not finished."""
FILE_PATTERN = re.compile(r"(rgb|flow)-\d{6}\.(tar|idx)|index\.arrow|skipped\.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmotionClass:
    """A class: its index, its name, the source's own code and how many sequences have it."""

    label: Annotated[int, Meta(ge=0, lt=MOST_CLASSES)]
    name: str
    code: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]
    num_sequences: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSettings:
    """How the flow was computed and quantised, and what its levels are like.

    ``size`` is that of the frames it was computed on; None: the source's.
    """

    method: str
    bound_px: Annotated[float, Meta(ge=1e-3, le=1e4)]
    saturated_fraction: Annotated[float, Meta(ge=0, le=1)]
    mean_level: Annotated[float, Meta(ge=0, le=255)]
    rest_fraction: Annotated[float, Meta(ge=0, le=1)] | None = None
    size: Geometry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar of a stream."""

    name: str
    num_samples: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream of the dataset and its shards, by number."""

    codec: StoredCodec
    quality: Annotated[int, Meta(ge=1, le=100)] | None
    frames: FrameChoice | None
    num_members: Count
    num_bytes: Count
    shards: Annotated[tuple[Shard, ...], Meta(min_length=1)]

    @property
    def codec_name(self) -> str:
        """The codec with its quality, ``jpg 95``."""
        return self.codec if self.quality is None else f"{self.codec} {self.quality}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole manifest; see docs/format.md for its fields."""

    seed: Annotated[int, Meta(ge=0)]
    num_sequences: Annotated[int, Meta(ge=1, lt=1 << 53)]
    num_subjects: Annotated[int, Meta(ge=1, lt=1 << 53)]
    classes: Annotated[tuple[EmotionClass, ...], Meta(min_length=1, max_length=MOST_CLASSES)]
    geometry: Geometry
    crop: str
    flow: FlowSettings | None
    streams: Annotated[Mapping[str, Stream], Meta(min_length=1)]
    source: Mapping[str, str | bool | Annotated[int, Meta(ge=0, lt=1 << 53)] | None]
    tools: Mapping[str, str]
    files: Mapping[str, FileDigest]
    sampling: FrameSampling = ALL_FRAMES
    version: int = LATEST_VERSION

    def __post_init__(self) -> None:
        labels = [emotion.label for emotion in self.classes]
        if labels != list(range(len(labels))):
            raise ValueError(f"class labels {labels}, expected 0, 1, 2, ...")
        if (self.flow is None) == ("flow" in self.streams):
            raise ValueError(f"flow settings {self.flow}, but streams {', '.join(self.streams)}")
        missing = {"kind", "num_unlabelled", "num_skipped"} - set(self.source)
        if missing:
            raise ValueError(f"source lacks {', '.join(sorted(missing))}")
        # A manifest may come from a stranger: no name in it may lead out of its folder.
        for name in self.files:
            if not FILE_PATTERN.fullmatch(name):
                raise ValueError(f"file name {clean(repr(name))}, expected names like {EXAMPLE}")
        for stream, entry in self.streams.items():
            if stream not in STREAMS:
                raise ValueError(f"stream {clean(stream)!r}, expected {' or '.join(STREAMS)}")
            if stream == "rgb" and entry.codec == "lz4":
                raise ValueError("codec 'lz4' of stream rgb, expected it of flow only")
            for number, shard in enumerate(entry.shards):
                if shard.name != f"{stream}-{number:06d}.tar":
                    raise ValueError(
                        f"file name {clean(repr(shard.name))} of {stream} shard {number},"
                        f" expected names like {EXAMPLE}"
                    )
                if shard.name not in self.files:
                    raise ValueError(f"files lists no checksum of {shard.name}")

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
    if not path.is_symlink() and not path.exists():
        is_unfinished = (dataset_dir / BUILD_FOLDER).is_dir()
        what = "a build that did not finish" if is_unfinished else "not a dataset: no manifest.json"
        raise DatasetError(f"{dataset_dir}: {what}\n  Run the same command again: {command}")
    data = read_regular(path, most_bytes=MOST_BYTES, error=DatasetError)
    return parse_manifest(data, place=str(path))


def parse_manifest(data: bytes, *, place: str) -> Manifest:
    """Parse the bytes of a manifest that lies at ``place``.

    Raises:
        DatasetError: If it is not ours, has another version, or breaks a rule.
    """
    check_version(
        data,
        format=MANIFEST_FORMAT,
        versions=READABLE_VERSIONS,
        place=place,
        what="manifest of ckshard",
        error=DatasetError,
    )
    return parse_record(
        data, Manifest, place=place, error=DatasetError, advice="Build the dataset again."
    )


def manifest_sha256(dataset_dir: Path) -> str:
    """Return the SHA-256 of ``manifest.json``; through its checksums it stands for the whole
    dataset.
    """
    data = read_regular(dataset_dir / MANIFEST_NAME, most_bytes=MOST_BYTES, error=DatasetError)
    return hashlib.sha256(data).hexdigest()
