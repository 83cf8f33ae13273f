"""Checkpoints: whole or not there, plain values and tensors only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from shard_builder.errors import InputError

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
    """
    record = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, **content}
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save(record, file)
        file.flush()
        os.fsync(file.fileno())
    if also is not None:
        also.unlink(missing_ok=True)
        os.link(temporary, also)
    temporary.replace(path)


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
