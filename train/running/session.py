"""Everything a training loop needs, made from a configuration, a dataset and a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from models.build import build_model, freeze_batch_norm
from models.heads import ORIGINAL_NUM_OUTPUTS
from models.weights import load_whole
from pipelines.dataset import Dataset
from pipelines.loader import Loader, make_loader
from pipelines.plan.sampling import Sampling
from pipelines.reading import Reading
from shard_builder.errors import InputError
from shard_builder.split import Split
from train.config import TrainConfig
from train.device import DTYPES, choose_device, choose_precision, make_deterministic
from train.distributed import Ranks, wrap_model
from train.running.amp import load_scale, make_scaler
from train.running.checkpoint import Checkpoint, Progress
from train.running.classes import check_classes, outputs_of_classes, weights_of_classes
from train.running.optimizer import Schedule, load_optimizer, make_ema, make_optimizer


@dataclass(slots=True, kw_only=True)
class Session:
    """A run in memory.

    Args:
        model: The plain net, whose state is saved.
        net: The same, compiled and wrapped for many ranks as asked.
        schedule: Of the optimizer's rates.
        ema: Averages of the weights; None if they are not asked for.
        output_of_class: Output of the net for each class, ``int64`` (classes,).
        class_weights: Weight of each class in the loss (classes,).
        step_sums: Loss, correct and samples of the accumulation in progress on this rank,
            ``float64`` (3,).
        val_loader: None where nothing is validated: in the stall test.
    """

    config: TrainConfig
    dataset: Dataset
    split: Split
    ranks: Ranks
    device: torch.device
    precision: str
    model: nn.Module
    net: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ema: AveragedModel | None
    scaler: torch.amp.GradScaler
    train_loader: Loader
    val_loader: Loader | None
    output_of_class: torch.Tensor
    class_weights: torch.Tensor
    notices: tuple[str, ...]
    step_sums: torch.Tensor
    progress: Progress = field(default_factory=Progress)

    @property
    def epoch(self) -> int:
        """Epochs that are done: the number, from 0, of the one in progress."""
        return self.train_loader.epoch

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self.train_loader.num_samples // self.config.step_size)

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is done, or training has stopped early."""
        has_stopped = 0 < self.config.early_stop <= self.progress.num_not_lower
        return has_stopped or self.epoch >= self.config.epochs

    @property
    def tested_model(self) -> nn.Module:
        """The net that is validated and tested: with the averaged weights, if there are any."""
        return self.model if self.ema is None else self.ema.module

    def step_taken(self, *, has_moved: bool) -> None:
        """Follow a step of the optimizer: average the weights, if they moved; the next rates."""
        if self.ema is not None and has_moved:
            self.ema.update_parameters(self.model)
        self.schedule.advance()

    def close(self) -> None:
        """Stop the loaders."""
        self.train_loader.close()
        if self.val_loader is not None:
            self.val_loader.close()

    def to_checkpoint(self, *, with_optimizer: bool = True) -> dict[str, Any]:
        """Return the run as plain values and tensors, enough to use the net without the dataset.

        Args:
            with_optimizer: Add what resuming needs besides.
        """
        manifest, flow = self.dataset.manifest, self.dataset.manifest.flow
        subject_of = dict(zip(self.dataset.keys, self.dataset.subjects, strict=True))
        content: dict[str, Any] = {
            "stream": self.config.stream,
            "arch": self.config.arch,
            "stack_length": self.config.stack_length,
            "original_head": self.config.original_head,
            "classes": list(manifest.class_names),
            "output_of_class": self.output_of_class.tolist(),
            "geometry": {"height": manifest.geometry.height, "width": manifest.geometry.width},
            "crop": manifest.crop,
            "flow": flow and {name: asdict(flow)[name] for name in ("method", "bound_px", "size")},
            "sampling": asdict(manifest.sampling),
            "train_keys": list(self.split.train),
            "val_keys": list(self.split.val),
            "test_keys": list(self.split.test),
            "train_subjects": sorted({subject_of[key] for key in self.split.train}),
            **self._origin(),
            "config": self.config.to_record(),
            "epoch": self.epoch,
            "progress": asdict(self.progress),
            "model": self.tested_model.state_dict(),
        }
        if with_optimizer:
            content["unaveraged"] = None if self.ema is None else self.model.state_dict()
            content["optimizer"] = self.optimizer.state_dict()
            content["scaler"] = self.scaler.state_dict()
            content["loader"] = self.train_loader.state_dict()
        return content

    def load_checkpoint(self, content: Checkpoint, *, path: Path) -> None:
        """Restore the run to where :meth:`to_checkpoint` was called.

        Args:
            content: From :func:`train.running.checkpoint.read_checkpoint`.
            path: Where it lay.

        Raises:
            InputError: If the checkpoint belongs to another dataset or split, or does not fit.
        """
        for name, value in self._origin().items():
            if getattr(content, name) != value:
                what = "split" if name.startswith("split") else "dataset"
                raise InputError(
                    f"resume=True: the run was begun with another {what}, expected the same\n"
                    "  Start another run in another folder."
                )
        load_whole(self.tested_model, content.model, origin=path)
        self.progress = content.progress
        if self.ema is not None:
            load_whole(self.model, content.unaveraged, origin=path)
            self.ema.n_averaged.fill_(self.progress.step - self.progress.num_skipped_steps)
        load_optimizer(self.optimizer, content.optimizer, kind=self.config.optimizer, origin=path)
        if self.scaler.is_enabled() and content.scaler:
            load_scale(self.scaler, content.scaler, origin=path)
        self.train_loader.load_state_dict(content.loader or {})
        done = -(-self.train_loader.position // self.config.step_size)
        self.schedule.advance(self.epoch * self.steps_per_epoch + done)

    def _origin(self) -> dict[str, str]:
        """Return the hashes of what a checkpoint must not be separated from."""
        return {"split_sha256": self.split.sha256(), "manifest_sha256": self.dataset.sha256}


def open_session(
    config: TrainConfig,
    dataset: Dataset,
    split: Split,
    ranks: Ranks,
    *,
    pretrained: bool = True,
    is_validated: bool = True,
) -> Session:
    """Build the net, with pretrained weights unless a checkpoint follows, the optimizer and both
    loaders, or that of training alone.

    Raises:
        InputError: If an option does not fit the dataset, the split or the machine.
    """
    if config.deterministic:
        make_deterministic()
    device = choose_device(config.device, local_rank=ranks.local_rank, world_size=ranks.world_size)
    precision = choose_precision(config.precision, device)
    torch.backends.cudnn.benchmark = not config.deterministic
    notices = [*check_classes(dataset, split, untrained=config.untrained), *dataset.notices]
    outputs = outputs_of_classes(dataset, original_head=config.original_head)
    weights = weights_of_classes(dataset, split, config.class_weights)
    begun = config if pretrained else replace(config, weights="none")
    model = make_model(begun, device, ranks, dataset.class_names, on_notice=notices.append)
    make = partial(loader_of, config, dataset, ranks=ranks, device=device, precision=precision)
    train_loader = make(split.train, training=True)
    val_loader = make(split.val, training=False) if is_validated else None
    optimizer = make_optimizer(model, config)
    num_steps = -(-train_loader.num_samples // config.step_size)
    return Session(
        config=config,
        dataset=dataset,
        split=split,
        ranks=ranks,
        precision=precision,
        device=device,
        model=model,
        net=wrap_model(model, config, ranks),
        optimizer=optimizer,
        schedule=Schedule(optimizer, config, steps_per_epoch=num_steps),
        ema=make_ema(model, config.ema),
        scaler=make_scaler(device, precision),
        train_loader=train_loader,
        val_loader=val_loader,
        output_of_class=torch.tensor(outputs, device=device),
        class_weights=torch.tensor(weights, device=device),
        notices=tuple(notices),
        step_sums=torch.zeros(3, dtype=torch.float64, device=device),
    )


def make_model(
    config: TrainConfig,
    device: torch.device,
    ranks: Ranks,
    class_names: Sequence[str],
    *,
    on_notice: Callable[[str], None] = lambda _text: None,
) -> nn.Module:
    """Build the net on its device; its random weights follow from the seed."""
    torch.manual_seed(config.seed)
    model = build_model(
        config.arch,
        config.stream,
        num_classes=ORIGINAL_NUM_OUTPUTS if config.original_head else len(class_names),
        stack_length=config.stack_length,
        weights=config.weights,
        dropout=config.dropout,
        original_head=config.original_head,
        class_names=class_names,
        on_notice=on_notice,
    ).to(device)
    if config.partial_bn and not freeze_batch_norm(model):
        raise InputError(
            f"partial_bn=True, but {config.arch} has no BatchNorm2d beside its first, expected some"
        )
    if config.sync_bn and ranks.world_size > 1:
        if device.type != "cuda":
            raise InputError("sync_bn=True needs GPUs, but this run is on the CPU")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return model


def loader_of(
    config: TrainConfig,
    dataset: Dataset,
    keys: Sequence[str],
    *,
    training: bool,
    ranks: Ranks,
    device: torch.device,
    precision: str,
) -> Loader:
    """Make the loader of one side of the split."""
    return make_loader(
        dataset,
        config.stream,
        rows=dataset.rows_of(keys),
        training=training,
        batch_size=config.batch_size,
        sampling=Sampling(
            stack_length=config.stack_length,
            rgb_apex_frames=config.rgb_apex_frames,
            augmentation=config.aug,
            class_frequencies=config.sampling,
            seed=config.seed,
        ),
        reading=Reading(
            engine=config.loader,
            device=device,
            dtype=DTYPES[precision],
            num_threads=config.workers or None,
            cache=config.cache,
            cache_bytes=config.cache_bytes,
            read_ahead=config.read_ahead,
            shard_cache=config.shard_cache or None,
            shard_cache_bytes=config.shard_cache_bytes,
            on_error=config.on_error,
        ),
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
