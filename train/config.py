"""``TrainConfig``: every value of a training run, checked, with the original's defaults."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from shard_builder.errors import InputError

STREAMS = ("rgb", "flow")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
CLASS_WEIGHTS = ("none", "balanced")
CHANGEABLE = frozenset(
    {
        "epochs",
        "workers",
        "device",
        "loader",
        "cache",
        "on_error",
        "val_every",
        "save_every",
        "log_every",
        "compile",
    }
)
"""What may differ when a run is resumed: nothing in it decides which weights a given step gives,
but for float noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Options of a run; names are those of the command line, defaults are the original's.

    Args:
        stream: ``rgb`` or ``flow``.
        arch: torchvision classifier.
        weights: ``imagenet``, a name of torchvision's enum, a file, or ``none``.
        original_head: The original's heads of 8 outputs.
        dropout: Before the classifier; None takes 0.8 (rgb) or 0.7 (flow).
        epochs: Passes over the training sequences.
        batch_size: Samples of a batch over all ranks.
        iter_size: Batches accumulated into one step.
        lr: Learning rate.
        lr_steps: Epochs at which it is divided by 10.
        momentum: Of SGD.
        weight_decay: On every parameter.
        stem_lr_scale: Factor on the learning rate of the first convolution (TSN: 5 for flow).
        clip_grad: Largest norm of all gradients; 0 does not clip.
        partial_bn: Freeze every BatchNorm but the first (TSN).
        sync_bn: BatchNorm statistics over all ranks (GPUs).
        class_weights: ``none``, or ``balanced``: inverse to the frequency in the training part,
            mean 1 over its sequences.
        stack_length: Flow pairs in a sample.
        rgb_last_frames: In training, rgb takes one of the last so many frames.
        aug: ``standard``, or ``original``: the original's own crop table.
        split: ``subject-kfold``, ``loso``, ``original-random`` or a file.
        folds: subject-kfold: number of folds.
        fold: subject-kfold: the fold to validate on.
        subject: loso: the subject to validate on.
        seed: Of initial weights, order, augmentation, dropout and the original-random split.
        precision: ``auto``, ``bf16``, ``fp16`` or ``fp32``; auto is bf16 where it is faster.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        loader: ``auto``, ``dali`` or ``cpu``.
        cache: ``none`` or ``ram``.
        workers: Decoding threads of a rank; 0 takes all cores.
        on_error: ``raise``, or ``skip`` damaged samples.
        compile: ``torch.compile`` the net.
        deterministic: Only algorithms that repeat bit for bit.
        val_every: Epochs between validations.
        save_every: Epochs between checkpoints that are kept; 0 keeps only last.pt and best.pt.
        log_every: Steps between step rows in metrics.jsonl.
    """

    stream: str
    arch: str = "resnet152"
    weights: str = "imagenet"
    original_head: bool = False
    dropout: float | None = None
    epochs: int = 250
    batch_size: int = 10
    iter_size: int = 5
    lr: float = 1e-3
    lr_steps: tuple[int, ...] = (100, 200)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    stem_lr_scale: float = 1.0
    clip_grad: float = 0.0
    partial_bn: bool = False
    sync_bn: bool = False
    class_weights: str = "none"
    stack_length: int = 5
    rgb_last_frames: int = 1
    aug: str = "standard"
    split: str = "subject-kfold"
    folds: int = 10
    fold: int = 0
    subject: str = ""
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    loader: str = "auto"
    cache: str = "none"
    workers: int = 0
    on_error: str = "raise"
    compile: bool = False
    deterministic: bool = False
    val_every: int = 5
    save_every: int = 0
    log_every: int = 10

    def __post_init__(self) -> None:
        """Check every value on its own.

        Raises:
            InputError: With the option's name, its value and what was expected.
        """
        object.__setattr__(self, "lr_steps", tuple(self.lr_steps))
        choices = (("stream", STREAMS), ("precision", PRECISIONS), ("class_weights", CLASS_WEIGHTS))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise InputError(
                    f"{flag(name)} {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )
        for name in (
            "epochs",
            "batch_size",
            "iter_size",
            "stack_length",
            "rgb_last_frames",
            "val_every",
            "log_every",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{flag(name)} {getattr(self, name)}, expected 1 or more")
        for name in ("workers", "save_every", "seed", "clip_grad", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{flag(name)} {getattr(self, name)}, expected 0 or more")
        for name in ("lr", "stem_lr_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{flag(name)} {getattr(self, name)}, expected a number above 0")
        if not 0 <= self.momentum < 1:
            raise InputError(f"--momentum {self.momentum}, expected 0 or more and less than 1")
        if list(self.lr_steps) != sorted(set(self.lr_steps)) or any(
            step < 1 for step in self.lr_steps
        ):
            raise InputError(
                f"--lr-steps {','.join(map(str, self.lr_steps))}, expected rising epochs such as"
                " 100,200"
            )

    def to_record(self) -> dict[str, Any]:
        """Return the values as plain JSON types."""
        return asdict(self) | {"lr_steps": list(self.lr_steps)}

    def check_resumes(self, other: TrainConfig) -> None:
        """Make sure that this configuration may go on with a run of ``other``.

        Raises:
            InputError: If a value differs that decides the result.
        """
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs and field.name not in CHANGEABLE:
                raise InputError(
                    f"{flag(field.name)} {mine}, but the run was begun with {theirs}\n  Leave the"
                    " option out to go on as begun, or start another run with another --out."
                )


def flag(name: str) -> str:
    """Return the command-line form of an option.

    >>> flag("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")


def parse_lr_steps(text: str) -> tuple[int, ...]:
    """Parse ``100,200`` or ``100 200``; an empty text means a constant learning rate.

    >>> parse_lr_steps("100,200")
    (100, 200)

    Raises:
        InputError: If a part is not an integer.
    """
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise InputError(f"--lr-steps {text!r}, expected epochs such as 100,200") from None
