"""Checkpoints: whole or not there, plain values and tensors only, sealed by their SHA-256."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import torch
from msgspec import Meta

from models.heads import ORIGINAL_NUM_OUTPUTS
from models.tensor_file import load_tensors, seal
from shard_builder.building.options import FlowMethod
from shard_builder.errors import InputError, TrainingError
from shard_builder.files import Sha256, atomic_writer, disk_fault
from shard_builder.format.frames import ALL_FRAMES, FrameSampling, Geometry
from shard_builder.format.manifest import MOST_CLASSES
from shard_builder.format.streams import StreamName
from shard_builder.untrusted.records import Count, convert_record
from shard_builder.untrusted.text import clean
from train.config import MOST_STACK, TrainConfig

CHECKPOINT_FORMAT = "ckshard-checkpoint"
CHECKPOINT_VERSION = 2
LAST_NAME = "last.pt"
BEST_NAME = "best.pt"
CHECKPOINTS = {"last": LAST_NAME, "best": BEST_NAME}


@dataclass(slots=True)
class Progress:
    """What a run has done; the loader says in which epoch it is.

    Args:
        step: Optimizer steps taken or, with fp16, skipped.
        num_skipped_steps: Steps that fp16 skipped.
        meter: Sums over the samples of this epoch on all ranks: loss, correct, samples.
        best_accuracy: Best validation accuracy; negative before the first validation.
        best_loss: Validation loss at the best accuracy.
        best_epoch: Epoch of it, counted from 1.
        least_loss: Least validation loss.
        num_not_lower: Validations since.
    """

    step: Count = 0
    num_skipped_steps: Count = 0
    meter: Annotated[list[float], Meta(min_length=3, max_length=3)] = field(
        default_factory=lambda: [0.0, 0.0, 0.0]
    )
    best_accuracy: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    best_loss: Annotated[float, Meta(ge=0)] = float("inf")
    best_epoch: Count = 0
    least_loss: Annotated[float, Meta(ge=0)] = float("inf")
    num_not_lower: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedFlow:
    """How the flow that a net was trained on was computed and quantised."""

    method: FlowMethod
    bound_px: Annotated[float, Meta(ge=1e-3, le=1e4)]
    size: Geometry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNet:
    """What a trained net is and how its inputs are made, wherever its weights are.

    Args:
        stream: What the net sees.
        arch: Name of the net.
        stack_length: Flow pairs in a sample.
        original_head: Whether it has the original's 8 outputs.
        classes: Names in label order.
        output_of_class: Output of the net for each class.
        geometry: Of planes and frames before the crop.
        crop: The face crop of the dataset.
        flow: Of the dataset; None if it had none.
        sampling: Which frames of a clip the dataset takes.
        split_sha256: Of the split.
        manifest_sha256: Of the dataset.
    """

    stream: StreamName
    arch: str
    stack_length: Annotated[int, Meta(ge=1, le=MOST_STACK)]
    original_head: bool
    classes: Annotated[tuple[str, ...], Meta(min_length=2, max_length=MOST_CLASSES)]
    output_of_class: tuple[Annotated[int, Meta(ge=0, lt=MOST_CLASSES)], ...]
    geometry: Geometry
    crop: str
    flow: TrainedFlow | None
    sampling: FrameSampling = ALL_FRAMES
    split_sha256: Sha256
    manifest_sha256: Sha256

    def __post_init__(self) -> None:
        outputs = self.output_of_class
        if len(outputs) != len(self.classes) or max(outputs) >= self.num_outputs:
            raise ValueError(
                f"output_of_class {outputs}, expected one of {self.num_outputs} outputs for each of"
                f" {len(self.classes)} classes"
            )
        if self.stream == "flow" and self.flow is None:
            raise ValueError("flow is null, but the net sees flow")

    @property
    def num_outputs(self) -> int:
        """Outputs of the net."""
        return ORIGINAL_NUM_OUTPUTS if self.original_head else len(self.classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(TrainedNet):
    """What a checkpoint holds; the tensors are compared with the net's where they are loaded.

    Args:
        train_keys: Sequences that the net has seen.
        val_keys: Sequences of the validation part.
        train_subjects: Subjects that it has seen.
        test_keys: Sequences of a third part, of neither.
        config: The options.
        epoch: Epochs that are done.
        progress: What the run has done.
        model: State of the net; with ``ema`` the averaged one.
        unaveraged: With ``ema``, state of the net that is trained; None in best.pt, as those below.
        optimizer: State of the optimizer.
        scaler: State of the gradient scaler.
        loader: State of the loader.
    """

    train_keys: tuple[str, ...]
    val_keys: tuple[str, ...]
    train_subjects: tuple[str, ...]
    config: TrainConfig
    epoch: Count
    progress: Progress
    model: dict[str, Any]
    test_keys: tuple[str, ...] = ()
    unaveraged: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    loader: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        TrainedNet.__post_init__(self)
        if self.config.stream != self.stream:
            raise ValueError(f"stream {self.stream}, but config.stream {self.config.stream}")
        if self.loader is not None and self.loader.get("epoch") != self.epoch:
            where = clean(repr(self.loader.get("epoch")))[:80]
            raise ValueError(f"epoch {self.epoch}, but loader.epoch {where}")


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
            seal(file)
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


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, onto the CPU.

    Raises:
        InputError: If it is missing, damaged, not ours, of another version, or a field is not as it
            should be; the message names the field.
    """
    if not path.is_symlink() and not path.exists():
        raise InputError(
            f"{path}: no such checkpoint\n"
            f"  Train first: cktrain rgb|flow DATASET --out {path.parent}"
        )
    content = load_tensors(path, what="a checkpoint", sealed=True)
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise InputError(
            f"{path}: not a checkpoint of cktrain, expected format {CHECKPOINT_FORMAT!r}"
        )
    version = content.get("version")
    if isinstance(version, bool) or version != CHECKPOINT_VERSION:
        raise InputError(
            f"{path}: version {clean(repr(version))}, expected {CHECKPOINT_VERSION}\n"
            "  Use the cktrain that wrote it."
        )
    return convert_record(content, Checkpoint, place=str(path))
