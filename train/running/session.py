"""Everything a training loop needs, made from a configuration, a dataset and a split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.build import build_model
from models.heads import ORIGINAL_NUM_OUTPUTS
from pipelines.dataset import Dataset
from pipelines.loader import Loader, make_loader
from shard_builder.errors import InputError
from shard_builder.format.manifest import manifest_sha256
from shard_builder.split import Split
from train.config import TrainConfig
from train.device import DTYPES, choose_device, choose_precision
from train.distributed import Ranks
from train.running.amp import make_scaler
from train.running.optimizer import make_optimizer


@dataclass(slots=True)
class Progress:
    """Where a run is; all of it goes into checkpoints.

    Args:
        epoch: Epoch in progress, from 0.
        step: Optimizer steps taken or, with fp16, skipped.
        num_skipped_steps: Steps that fp16 skipped.
        meter: Sums over the samples of this epoch on all ranks: loss, correct, samples.
        best_accuracy: Best validation accuracy; negative before the first validation.
        best_loss: Validation loss at the best accuracy.
        best_epoch: Epoch of it, counted from 1.
    """

    epoch: int = 0
    step: int = 0
    num_skipped_steps: int = 0
    meter: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    best_accuracy: float = -1.0
    best_loss: float = float("inf")
    best_epoch: int = 0


@dataclass(slots=True, kw_only=True)
class Session:
    """A run in memory.

    Args:
        model: The plain net, whose state is saved.
        net: The same, compiled and wrapped for many ranks as asked.
        output_of_class: Output of the net for each class, ``int64`` (classes,).
        class_weights: Weight of each class in the loss (classes,).
        window_sums: Loss, correct and samples of the accumulation in progress on this rank,
            ``float64`` (3,).
    """

    config: TrainConfig
    dataset: Dataset
    split: Split
    ranks: Ranks
    device: torch.device
    precision: str
    model: nn.Module
    net: nn.Module
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler
    train_loader: Loader
    val_loader: Loader
    output_of_class: torch.Tensor
    class_weights: torch.Tensor
    notices: tuple[str, ...]
    window_sums: torch.Tensor
    progress: Progress = field(default_factory=Progress)

    def close(self) -> None:
        """Stop the loaders."""
        self.train_loader.close()
        self.val_loader.close()

    def to_checkpoint(self, *, with_optimizer: bool = True) -> dict[str, Any]:
        """Return the run as plain values and tensors: to go on with it, and to use the net without
        the dataset.
        """
        manifest, subject_of = (
            self.dataset.manifest,
            dict(zip(self.dataset.keys, self.dataset.subjects, strict=True)),
        )
        flow = manifest.flow
        content: dict[str, Any] = {
            "stream": self.config.stream,
            "arch": self.config.arch,
            "stack_length": self.config.stack_length,
            "original_head": self.config.original_head,
            "classes": list(manifest.class_names),
            "output_of_class": self.output_of_class.tolist(),
            "geometry": {"height": manifest.geometry.height, "width": manifest.geometry.width},
            "crop": manifest.crop,
            "flow": {"method": flow.method, "bound_px": flow.bound_px} if flow else None,
            "train_keys": list(self.split.train),
            "val_keys": list(self.split.val),
            "train_subjects": sorted({subject_of[key] for key in self.split.train}),
            "split_sha256": self.split.sha256(),
            "manifest_sha256": manifest_sha256(self.dataset.path),
            "config": self.config.to_record(),
            "progress": {name: getattr(self.progress, name) for name in Progress.__slots__},
            "model": self.model.state_dict(),
        }
        if with_optimizer:
            content["optimizer"] = self.optimizer.state_dict()
            content["scaler"] = self.scaler.state_dict()
            content["loader"] = self.train_loader.state_dict()
        return content

    def load_checkpoint(self, content: dict[str, Any]) -> None:
        """Go on where :meth:`to_checkpoint` was called.

        Raises:
            InputError: If the checkpoint belongs to another dataset or split.
        """
        own = {
            "split_sha256": self.split.sha256(),
            "manifest_sha256": manifest_sha256(self.dataset.path),
        }
        for name, value in own.items():
            if content[name] != value:
                what = "split" if name.startswith("split") else "dataset"
                raise InputError(
                    f"--resume: the run was begun with another {what}, expected the same\n  Use"
                    " another --out."
                )
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.scaler.is_enabled() and content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        self.train_loader.load_state_dict(content["loader"])
        self.progress = Progress(**content["progress"])


def open_session(config: TrainConfig, dataset: Dataset, split: Split, ranks: Ranks) -> Session:
    """Build the net, the optimizer and both loaders.

    Raises:
        InputError: If an option does not fit the dataset, the split or the machine.
    """
    device = choose_device(config.device, local_rank=ranks.local_rank)
    precision = choose_precision(config.precision, device)
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.deterministic
    notices = check_classes(dataset, split)
    outputs = outputs_of_classes(dataset, use_original_head=config.original_head)
    torch.manual_seed(config.seed)
    model = build_model(
        config.arch,
        config.stream,
        num_classes=ORIGINAL_NUM_OUTPUTS if config.original_head else len(outputs),
        stack_length=config.stack_length,
        weights=config.weights,
        dropout=config.dropout,
        use_original_head=config.original_head,
    ).to(device)
    if config.sync_bn and ranks.world_size > 1:
        if device.type != "cuda":
            raise InputError("--sync-bn needs GPUs, but this run is on the CPU")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    dtype = DTYPES[precision]
    return Session(
        config=config,
        dataset=dataset,
        split=split,
        ranks=ranks,
        precision=precision,
        device=device,
        model=model,
        net=_wrap(model, config, ranks),
        optimizer=make_optimizer(model, config),
        scaler=make_scaler(device, precision),
        train_loader=loader_of(
            config, dataset, split.train, ranks, training=True, device=device, dtype=dtype
        ),
        val_loader=loader_of(
            config, dataset, split.val, ranks, training=False, device=device, dtype=dtype
        ),
        output_of_class=torch.tensor(outputs, device=device),
        class_weights=torch.tensor(
            weights_of_classes(dataset, split, config.class_weights), device=device
        ),
        notices=notices,
        window_sums=torch.zeros(3, dtype=torch.float64, device=device),
    )


def loader_of(
    config: TrainConfig,
    dataset: Dataset,
    keys: tuple[str, ...],
    ranks: Ranks,
    *,
    training: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> Loader:
    """Make the loader of one side of the split."""
    return make_loader(
        dataset,
        stream=config.stream,
        rows=dataset.rows_of(keys),
        training=training,
        batch_size=config.batch_size,
        stack_length=config.stack_length,
        seed=config.seed,
        engine=config.loader,
        device=device,
        dtype=dtype,
        rank=ranks.rank,
        world_size=ranks.world_size,
        num_threads=config.workers or None,
        aug=config.aug,
        rgb_last_frames=config.rgb_last_frames,
        cache=config.cache,
        on_error=config.on_error,
    )


def check_classes(dataset: Dataset, split: Split) -> tuple[str, ...]:
    """Compare the classes of both sides of the split; return what is worth a notice.

    A class that is only missing in validation is no error: fold 10 of CK+'s standard protocol has
    no fear.

    Raises:
        InputError: If a class is validated that is never trained.
    """
    counts = {
        side: np.bincount(dataset.labels[dataset.rows_of(keys)], minlength=len(dataset.class_names))
        for side, keys in (("train", split.train), ("val", split.val))
    }
    notices = []
    for label, name in enumerate(dataset.class_names):
        if counts["val"][label] and not counts["train"][label]:
            raise InputError(
                f"class {name}: {counts['val'][label]} sequences in validation and none in"
                " training, expected some\n  Choose another fold or split: ckshard split DATASET"
                " shows the counts."
            )
        if not counts["val"][label] and counts["train"][label]:
            notices.append(
                f"notice: no {name} among the {len(split.val)} validation sequences; pool folds for"
                " its recall"
            )
    return tuple(notices)


def outputs_of_classes(dataset: Dataset, *, use_original_head: bool) -> list[int]:
    """Return the net's output for each class: its label, or with the original's head its CK+ code.

    Raises:
        InputError: If a code does not fit the original's 8 outputs.
    """
    if not use_original_head:
        return list(range(len(dataset.class_names)))
    codes = [entry.code for entry in dataset.manifest.classes]
    if not all(0 <= code < ORIGINAL_NUM_OUTPUTS for code in codes):
        raise InputError(
            f"--original-head: class codes {codes}, expected CK+'s 0 to {ORIGINAL_NUM_OUTPUTS - 1}"
        )
    return codes


def weights_of_classes(dataset: Dataset, split: Split, kind: str) -> list[float]:
    """Return the loss weight of each class; ``balanced``: inverse to its frequency, mean 1 over the
    training sequences.
    """
    counts = np.bincount(
        dataset.labels[dataset.rows_of(split.train)], minlength=len(dataset.class_names)
    )
    if kind == "none":
        return [1.0] * len(counts)
    num_present = int((counts > 0).sum())
    return [float(counts.sum() / (num_present * count)) if count else 0.0 for count in counts]


def _wrap(model: nn.Module, config: TrainConfig, ranks: Ranks) -> nn.Module:
    net: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
    if ranks.world_size == 1:
        return net
    device = next(model.parameters()).device
    return DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None)
