"""The unit of a build: one shard of each stream, on any process or host that sees the folders."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2

from shard_builder.building.encode import EncodedSequence, SequenceEncoder
from shard_builder.building.flow_levels import LevelStatistics
from shard_builder.building.options import BuildOptions
from shard_builder.errors import InputError, SourceError
from shard_builder.faces.model import FaceModel
from shard_builder.files import FileDigest, digest_file, is_regular, write_atomically
from shard_builder.format.manifest import BUILD_FOLDER
from shard_builder.format.shards import ShardWriter
from shard_builder.format.streams import StreamName
from shard_builder.sources.sequence import FaceSequence, SkippedSequence
from shard_builder.untrusted.records import read_record

FACTS = ("key", "subject", "session", "emotion", "source", "onset", "apex", "offset", "fold")
"""What decides a sample besides its files: another table may say otherwise of the same ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """What one worker is handed: the sequences of shard ``number`` with their labels."""

    number: int
    sequences: tuple[FaceSequence, ...]
    labels: tuple[int, ...]
    options: BuildOptions
    dataset_dir: Path
    source_root: Path
    face_model: FaceModel | None = None

    @property
    def record_path(self) -> Path:
        """Where the proof of the finished shard lies until the build has ended."""
        return self.dataset_dir / BUILD_FOLDER / f"shard-{self.number:06d}.json"

    def status(self) -> dict[str, os.stat_result]:
        """Return what the system says of each file, by its path in the source."""
        return {
            os.path.relpath(path, self.source_root): path.stat()
            for sequence in self.sequences
            for path in (*sequence.frames, *chain(*sequence.pairs), *sequence.landmarks)
        }

    def hashes(self) -> tuple[str, str]:
        """Hash what decides the shard's bytes: options, sequences, labels, tools, and of all files
        name and size; the second hash holds also when they were changed.
        """
        status = self.status()
        tools = [importlib.metadata.version("ckshard"), cv2.__version__]
        facts = [[getattr(sequence, name) for name in FACTS] for sequence in self.sequences]
        model = self.face_model.sha256 if self.face_model else ""
        options = asdict(self.options) | {"face_model": model}
        files = [[name, entry.st_size] for name, entry in status.items()]
        inputs = _hash([options, self.number, facts, self.labels, tools, files])
        return inputs, _hash([inputs, [entry.st_mtime_ns for entry in status.values()]])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What comes back: index rows, digests, skips, statistics; small, whatever the shard's size."""

    number: int
    rows: list[dict[str, Any]]
    files: dict[str, FileDigest]
    num_bytes: dict[str, int]
    skipped: list[dict[str, str]]
    returning: list[str]
    levels: LevelStatistics
    seconds: dict[str, float]
    inputs: str = ""
    reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _FinishedShard:
    fingerprint: str
    result: ShardResult


def run_shard_task(task: ShardTask) -> ShardResult:
    """Build the shards of one task, or prove by their checksums that they are finished already.

    Raises:
        SourceError: If a sequence cannot be read and the options do not say to skip it.
        OSError: If the disk fails or is full; nothing is left under a final name that is not whole.
    """
    inputs, fingerprint = task.hashes()
    finished = _finished_result(task, fingerprint)
    if finished is not None:
        return finished
    cv2.setNumThreads(1)  # as many workers as cores; more threads would only wait for each other
    result = replace(_build_shard(task), inputs=inputs)
    record = {"fingerprint": fingerprint, "result": asdict(result)}
    write_atomically(task.record_path, json.dumps(record).encode())
    return result


def _finished_result(task: ShardTask, fingerprint: str) -> ShardResult | None:
    try:
        record = read_record(task.record_path, _FinishedShard)
    except InputError:  # none, or a damaged one: the shard is built again
        return None
    if record.fingerprint != fingerprint:
        return None
    for name, digest in record.result.files.items():
        path = task.dataset_dir / name
        if not is_regular(path) or path.stat().st_size != digest.num_bytes:
            return None
        if digest_file(path) != digest:
            return None
    return replace(record.result, reused=True)


def _build_shard(task: ShardTask) -> ShardResult:
    encoder = SequenceEncoder(task.options, task.face_model)
    writers: dict[StreamName, ShardWriter] = {}
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    returning: list[str] = []
    scratch = task.dataset_dir / BUILD_FOLDER
    try:
        for stream in task.options.streams:
            name = f"{stream}-{task.number:06d}"
            writers[stream] = ShardWriter(task.dataset_dir, name, temporary_dir=scratch)
        for sequence, label in zip(task.sequences, task.labels, strict=True):
            try:
                encoded = encoder.encode(sequence)
            except SourceError as error:
                if task.options.on_error == "raise":
                    advice = "Or leave faulty sequences out with on_error='skip'."
                    raise SourceError(f"{error}\n  {advice}") from None
                skip = SkippedSequence(key=sequence.key, path=sequence.source, reason=str(error))
                skipped.append(asdict(skip))
                continue
            returning += [sequence.key] if encoded.returns else []
            with encoder.timer("pack"):
                rows.append(_write_sample(task, sequence, label, encoded, writers))
        with encoder.timer("pack"):
            for writer in writers.values():
                writer.finish()
    finally:
        for writer in writers.values():
            writer.close()
    return ShardResult(
        number=task.number,
        rows=rows,
        files={name: file for writer in writers.values() for name, file in writer.files.items()},
        num_bytes={stream: writer.num_bytes for stream, writer in writers.items()},
        skipped=skipped,
        returning=returning,
        levels=encoder.levels,
        seconds=encoder.seconds,
    )


def _write_sample(
    task: ShardTask,
    sequence: FaceSequence,
    label: int,
    encoded: EncodedSequence,
    writers: dict[StreamName, ShardWriter],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": sequence.key,
        "label": label,
        "emotion": sequence.emotion,
        "subject": sequence.subject,
        "session": sequence.session,
        "num_frames": encoded.num_frames,
        "num_pairs": encoded.num_frames - 1,
        "fold": sequence.fold,
        "apex": encoded.apex,
    }
    metadata = {"json": json.dumps(row, sort_keys=True).encode(), "cls": str(label).encode()}
    for stream, writer in writers.items():
        places = writer.write(sequence.key, encoded.members[stream] | metadata)
        images = [places[extension] for extension in encoded.members[stream]]
        row |= {
            f"{stream}_shard": task.number,
            f"{stream}_offset": [place.offset for place in images],
            f"{stream}_size": [place.num_bytes for place in images],
            f"{stream}_crc32": [place.crc32 for place in images],
        }
    return row | {"source": sequence.source}
