"""Checkpoints: whole or not there, plain values and tensors only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import torch

from shard_builder.errors import InputError, TrainingError
from shard_builder.files import atomic_writer, disk_fault

CHECKPOINT_FORMAT = "ckshard-checkpoint"
CHECKPOINT_VERSION = 2
LAST_NAME = "last.pt"
BEST_NAME = "best.pt"
CHECKPOINTS = {"last": LAST_NAME, "best": BEST_NAME}


def write_checkpoint(path: Path, content: dict[str, Any], *, also: Path | None = None) -> None:
    """Write a checkpoint under a temporary name, flush it to the disk, then rename it.

    Args:
        path: Where to.
        content: Tensors, numbers, strings, lists and dicts.
        also: A second name for the same file (a hard link where the file system has them).

    Raises:
        TrainingError: If the disk is full or fails; what stood under the name stays.
    """
    record = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, **content}
    sink = None
    try:
        with atomic_writer(path) as file:
            sink = _Sink(file)
            torch.save(record, sink)  # type: ignore[arg-type]
        if also is not None:
            _name_again(path, also)
    except (OSError, RuntimeError) as error:
        # torch.save makes a RuntimeError of what the disk said.
        cause = error if isinstance(error, OSError) else (sink.error if sink else None)
        if cause is None:
            raise
        kept = f"{path.name} is as it was before" if path.is_file() else "There is none yet"
        raise TrainingError(
            f"{path}: the checkpoint cannot be written: {disk_fault(cause)}\n"
            f"  {kept}. Free some space or fix the disk, then resume with resume=True."
        ) from None


class _Sink:
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write some bytes."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Pass it on."""
        self._file.flush()


def _name_again(path: Path, also: Path) -> None:
    also.unlink(missing_ok=True)
    try:
        os.link(path, also)
    except OSError:  # a file system without hard links
        with atomic_writer(also) as copy, path.open("rb") as file:
            shutil.copyfileobj(file, copy)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint with ``torch.load(weights_only=True)``, onto the CPU.

    Raises:
        InputError: If it is missing, damaged, not ours or of another version.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such checkpoint\n"
            f"  Train first: cktrain rgb|flow DATASET --out {path.parent}"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file makes torch.load raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise InputError(
            f"{path}: not a checkpoint of cktrain, expected format {CHECKPOINT_FORMAT!r}"
        )
    if content.get("version") != CHECKPOINT_VERSION:
        raise InputError(
            f"{path}: version {content.get('version')!r}, expected {CHECKPOINT_VERSION}\n"
            "  Use the cktrain that wrote it."
        )
    return content
