"""``TrainConfig``: every value of a training run, checked, with the original's defaults.

The command line is made from its fields, so this module stays free of torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from shard_builder.checks import check_choice, option
from shard_builder.errors import InputError, counted

Stream = Literal["rgb", "flow"]
MOST_STACK = 256
MOST_EPOCHS = 1_000_000


def changeable(default: Any, help: str, **limits: float) -> Any:
    """Declare an option that may differ when a run is resumed.

    It does not decide which weights a given step gives, but for float noise.
    """
    return option(default, help, changeable=True, **limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Options of a run; the help text of each field says what it is.

    ``least`` and ``most`` are the smallest and largest values that are allowed, ``above`` a limit
    that a value must exceed.

    Raises:
        InputError: If a value cannot be; the message quotes it and says what was expected.
    """

    stream: Stream

    # The net
    arch: str = option(
        "resnet152", "resnet18, 34, 50, 101, 152, another torchvision classifier, or timm/NAME."
    )
    weights: str = option("imagenet", "imagenet, an entry of torchvision's enum, a file, or none.")
    original_head: bool = option(False, "The original's heads of 8 outputs.")
    dropout: float | None = option(None, "Before the classifier; 0.8 rgb, 0.7 flow unless given.")
    partial_bn: bool = option(False, "Freeze every BatchNorm but the first (TSN).")
    sync_bn: bool = option(False, "BatchNorm statistics over all GPUs.")

    # The schedule
    epochs: int = changeable(250, "Passes over the training sequences.", least=1, most=MOST_EPOCHS)
    batch_size: int = option(10, "Samples of a batch, over all ranks.", least=1, most=1 << 16)
    iter_size: int = option(5, "Batches accumulated into one step.", least=1, most=1 << 16)
    lr: float = option(1e-3, "Learning rate.", above=0, most=1e30)
    lr_steps: tuple[int, ...] = option((100, 200), "Epochs at which it is divided by 10.")
    optimizer: Literal["sgd", "adamw"] = option("sgd", "SGD with momentum, or AdamW.")
    schedule: Literal["steps", "cosine", "one-cycle"] = option(
        "steps", "steps: --lr-steps; the others fall step by step, over all epochs."
    )
    warmup_epochs: int = option(
        0, "Epochs in which the rate rises; one-cycle takes 30 % unless given.", least=0
    )
    momentum: float = option(0.9, "Momentum of SGD, first beta of AdamW.")
    weight_decay: float = option(5e-4, "Weight decay, on every parameter.", least=0, most=1e6)
    stem_lr_scale: float = option(
        1.0, "Factor on the first convolution's learning rate (TSN: 5 for flow).", above=0, most=1e6
    )
    head_lr_scale: float = option(
        1.0, "Factor on the new head's learning rate (fine-tuning: 5).", above=0, most=1e6
    )
    label_smoothing: float = option(0.0, "Part of a label that all classes share.")
    ema: float = option(
        0.0, "Decay of averaged weights, which are then tested; 0 keeps none (often 0.99)."
    )
    early_stop: int = changeable(
        0,
        "End after so many validations without a lower loss; 0: never.",
        least=0,
        most=MOST_EPOCHS,
    )
    clip_grad: float = option(
        0.0, "Largest gradient norm (TSN: 20); 0 does not clip.", least=0, most=1e6
    )
    untrained: Literal["raise", "wrong"] = option(
        "raise", "wrong: a class that is validated and never trained is counted as wrong."
    )
    class_weights: Literal["none", "balanced"] = option(
        "none", "balanced: inverse to the frequency in the training part, mean 1 over it."
    )
    val_every: int = changeable(5, "Epochs between validations.", least=1, most=MOST_EPOCHS)

    # The data
    stack_length: int = option(
        5, "Flow pairs in a sample (the original's new_length).", least=1, most=MOST_STACK
    )
    rgb_apex_frames: int = option(
        1, "rgb trains on one of so many frames up to the apex.", least=1, most=1 << 16
    )
    aug: Literal["standard", "strong", "original"] = option(
        "standard",
        "strong: also light, turn, scale and erasing; original: the original's own crops.",
    )
    sampling: Literal["natural", "balanced"] = option(
        "natural", "balanced: each class equally often in an epoch, whatever its size."
    )
    split: str = option(
        "subject-kfold", "subject-kfold, loso, original-random (leaks), fold or a file."
    )
    folds: int | None = option(
        None,
        "subject-kfold: number of folds; 10, or one a subject if fewer, unless given.",
        least=2,
        most=1 << 20,
    )
    fold: int = option(
        0,
        "The fold to validate on: subject-kfold counts from 0, official ones have numbers.",
        least=0,
        most=1 << 20,
    )
    subject: str = option("", "loso: the subject to validate on.")
    seed: int = option(
        0,
        "Initial weights, order, augmentation, dropout, original-random follow from it.",
        least=0,
        most=(1 << 63) - 1,
    )
    loader: Literal["auto", "dali", "cpu"] = changeable("auto", "The engine that decodes.")
    cache: Literal["none", "ram", "device"] = changeable(
        "none", "Keep decoded planes: in ram, or on the device, where they are then cut."
    )
    cache_bytes: int | None = changeable(
        None, "Limit of that: 4 GiB in ram, 40 % of what is free on the device unless given."
    )
    read_ahead: int = changeable(
        8, "Batches asked for from a store before they are needed.", least=0, most=1 << 16
    )
    shard_cache: str = changeable("", "Folder that keeps what was read from a store.")
    shard_cache_bytes: int = changeable(
        64 << 30, "Limit of that: 64 GiB unless given.", least=0, most=1 << 53
    )
    workers: int = changeable(
        0, "Decoding threads of a rank; 0 takes all cores.", least=0, most=4096
    )
    on_error: Literal["raise", "skip"] = changeable("raise", "skip damaged samples (at most 1 %).")

    # The hardware and the run folder
    precision: Literal["auto", "bf16", "fp16", "fp32"] = option(
        "auto", "auto is bf16 where it is faster."
    )
    device: str = changeable("auto", "auto, cpu, cuda or cuda:N.")
    compile: bool = changeable(False, "torch.compile the net.")
    deterministic: bool = option(False, "Only algorithms that repeat bit for bit.")
    save_every: int = changeable(
        0,
        "Keep a checkpoint every so many epochs; 0: last and best only.",
        least=0,
        most=MOST_EPOCHS,
    )
    log_every: int = changeable(
        10, "Steps between step rows in metrics.jsonl.", least=1, most=MOST_EPOCHS
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr_steps", tuple(self.lr_steps))
        for entry in fields(self):
            value, limits = getattr(self, entry.name), entry.metadata
            least, above = limits.get("least"), limits.get("above")
            if entry.name in CHOICES:
                check_choice(entry.name, value, CHOICES[entry.name])
            if value is None:
                continue
            if least is not None and not least <= value < math.inf:
                raise _refused(entry.name, value, f"{least} or more")
            if above is not None and not above < value < math.inf:
                raise _refused(entry.name, value, f"a number above {above}")
            if (most := limits.get("most")) is not None and value > most:
                raise _refused(entry.name, value, f"{most} or less")
        for name in ("momentum", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise _refused(name, getattr(self, name), "0 or more and less than 1")
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise _refused(
                "warmup_epochs", self.warmup_epochs, f"fewer than {counted(self.epochs, 'epoch')}"
            )
        if self.cache_bytes is not None and not 0 <= self.cache_bytes < 1 << 53:
            raise _refused("cache_bytes", self.cache_bytes, "0 or more")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise _refused("dropout", self.dropout, "0 or more and less than 1")
        steps = self.lr_steps
        if list(steps) != sorted(set(steps)) or any(not 1 <= n <= MOST_EPOCHS for n in steps):
            raise _refused("lr_steps", steps, "rising epochs such as 100,200")

    @property
    def step_size(self) -> int:
        """Samples of one optimizer step."""
        return self.batch_size * self.iter_size

    def to_record(self) -> dict[str, Any]:
        """Return the values as plain JSON types."""
        return asdict(self) | {"lr_steps": list(self.lr_steps)}

    def check_resumes(self, begun: TrainConfig) -> None:
        """Make sure that a run that was begun with other options may be resumed with these.

        Raises:
            InputError: If a value differs that decides the result.
        """
        is_bound = begun.schedule != "steps"  # the whole schedule follows from its length
        for entry in fields(self):
            now, then = getattr(self, entry.name), getattr(begun, entry.name)
            is_changeable = entry.metadata.get("changeable")
            if now != then and (not is_changeable or (is_bound and entry.name == "epochs")):
                raise InputError(
                    f"{entry.name}={now!r}, but the run was begun"
                    f" {f'with {then!r}' if then not in (None, '') else 'without it'}\n"
                    "  Leave it out to resume, or start another run in another folder."
                )


CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(kind)
    for name, kind in get_type_hints(TrainConfig).items()
    if get_origin(kind) is Literal
}
"""What each option with a fixed set of values may be."""


def _refused(name: str, value: object, expected: str) -> InputError:
    return InputError(f"{name}={value}, expected {expected}")
