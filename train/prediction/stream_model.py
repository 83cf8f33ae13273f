"""A trained net of one stream, ready to use: from one file alone, without its dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.build import build_model
from models.weights import check_whole
from pipelines.dataset import Dataset
from pipelines.engines.cutter import make_cutter
from pipelines.engines.normalize import Normalizer
from pipelines.loader import make_loader
from pipelines.plan.crops import INPUT_SIZE, center_crop
from pipelines.plan.sampling import Sampling
from pipelines.reading import Reading
from pipelines.streams import kind_of
from shard_builder.checks import check_choice
from shard_builder.errors import InputError
from shard_builder.files import digest_file
from shard_builder.format.streams import StreamName
from shard_builder.images import Image
from train.device import choose_device, choose_precision
from train.running.amp import autocast
from train.running.checkpoint import CHECKPOINTS, Checkpoint, TrainedNet, read_checkpoint


class StreamModel:
    """A net with what it was trained on and how its inputs are made.

    Args:
        run: The run folder, or the exported file.
        content: What the net is. What it was trained on is known from a checkpoint only.
        net: Turns images (N, C, 224, 224) into outputs (N, ``content.num_outputs``).
        checkpoint_sha256: Of the checkpoint.
        device: Where the images are normalised.
        precision: ``bf16``, ``fp16`` or ``fp32``.

    Attributes:
        run: The run folder, or the exported file.
        content: What the net is.
        stream: ``rgb`` or ``flow``.
        stack_length: Flow pairs in a sample.
        class_names: Names in label order.
        train_subjects: Subjects it has seen.
        train_keys: Sequences it has seen.
        val_keys: Sequences of the validation part, sorted.
        test_keys: Sequences of a third part that neither trained nor validated, sorted.
        height: Height of frames and planes before the crop, in pixels.
        width: Width of them.
        flow_method: ``farneback`` or ``dis``; None if the dataset had no flow.
        bound_px: Displacement at which flow saturates.
        flow_size: Of the frames that flow is computed on; None: the source's.
        sampling: Which frames of a clip the dataset takes.
    """

    def __init__(
        self,
        run: Path,
        content: TrainedNet,
        *,
        net: Callable[[torch.Tensor], torch.Tensor],
        checkpoint_sha256: str,
        device: torch.device,
        precision: str,
    ) -> None:
        self.run, self.content, self.device, self.net = run, content, device, net
        self.stream: StreamName = content.stream
        self.stack_length = content.stack_length
        self.class_names = content.classes
        seen = content if isinstance(content, Checkpoint) else None
        self.train_subjects = seen.train_subjects if seen else ()
        self.train_keys = seen.train_keys if seen else ()
        self.val_keys = tuple(sorted(seen.val_keys)) if seen else ()
        self.test_keys = tuple(sorted(seen.test_keys)) if seen else ()
        self.split_sha256 = content.split_sha256
        self._manifest_sha256 = content.manifest_sha256
        self._checkpoint_sha256 = checkpoint_sha256
        self.height, self.width = content.geometry.height, content.geometry.width
        flow = content.flow
        self.flow_method = flow.method if flow else None
        self.bound_px = flow.bound_px if flow else 0.0
        self.flow_size = flow.size if flow else None
        self.sampling = content.sampling
        self.crop = content.crop
        self._precision = precision
        self._outputs = torch.tensor(content.output_of_class, device=device)
        kind = kind_of(self.stream)
        num_channels = kind.num_channels(self.stack_length)
        self._box = tuple(center_crop(height=self.height, width=self.width)[0].tolist())
        shape = (self.height, self.width)
        window = (num_channels, *shape) if kind.has_pairs else (*shape, num_channels)
        self._cutter = make_cutter(kind, window, torch.uint8)
        self._cut_shape = (INPUT_SIZE, INPUT_SIZE, num_channels)
        self._normalizer = Normalizer(kind, num_channels, dtype=torch.float32, device=device)

    def origin(self) -> dict[str, str]:
        """Return what a result of this model belongs to: the run, and hashes of what decided it."""
        return {
            "run": str(self.run.absolute()),
            "stream": self.stream,
            "checkpoint_sha256": self._checkpoint_sha256,
            "split_sha256": self.split_sha256,
            "manifest_sha256": self._manifest_sha256,
        }

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height before the crop, in pixels."""
        return self.width, self.height

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, classes), ``float32``, of normalised images (N, C, 224, 224).

        Raises:
            InputError: If one is not finite: the weights are damaged.
        """
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self._precision):
            outputs = self.net(images)
        logits: torch.Tensor = outputs.float()[:, self._outputs]
        if not torch.isfinite(logits).all():
            raise InputError(
                f"{self.run}: its net answers with numbers that are not finite\n"
                "  Its weights are damaged, or its training diverged. Train it again."
            )
        return logits

    def images_of(self, planes: Sequence[Image]) -> torch.Tensor:
        """Return one sample's centre crop, normalised, (1, C, 224, 224).

        Args:
            planes: One RGB frame (H, W, 3), or x1 y1 x2 y2 ... planes (H, W), ``uint8``, of the
                dataset's height and width.
        """
        window = np.stack(planes) if len(planes) > 1 else planes[0]
        levels = np.empty(self._cut_shape, np.uint8)
        self._cutter.cut(window, self._box, False, levels)
        batch = torch.from_numpy(levels)[None].permute(0, 3, 1, 2)
        return self._normalizer(batch.to(self.device))

    def logits_of(self, planes: Sequence[Image]) -> npt.NDArray[np.float64]:
        """Return the logits (classes,) of one sample's centre crop; see :meth:`images_of`."""
        return self.forward(self.images_of(planes))[0].double().cpu().numpy()


def center_windows(dataset: Dataset, model: StreamModel, keys: Sequence[str]) -> torch.Tensor:
    """Return the centre crop of each sequence's middle window, as validation sees it.

    Args:
        dataset: An open dataset that fits the model.
        model: The model.
        keys: N sequences.

    Returns:
        Normalised ``float32`` (N, C, 224, 224), on the CPU.
    """
    with make_loader(
        dataset,
        model.stream,
        rows=dataset.rows_of(keys),
        training=False,
        batch_size=len(keys),
        sampling=Sampling(stack_length=model.stack_length),
        reading=Reading(engine="cpu", device="cpu", num_threads=1),
    ) as loader:
        batch = next(iter(loader))
        return batch.images[batch.valid].contiguous()


def load_stream_model(run: Path, *, checkpoint: str = "last", device: str = "auto") -> StreamModel:
    """Load the net of a run.

    Args:
        run: Run folder.
        checkpoint: ``last`` or ``best``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: If the folder or the checkpoint cannot be used.
    """
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    if not run.is_dir():
        raise InputError(
            f"{run}: no such run folder\n  Train first: cktrain rgb|flow DATASET --out {run}"
        )
    path, chosen = run / CHECKPOINTS[checkpoint], choose_device(device)
    content = read_checkpoint(path)
    net = build_trained(content, content.model, origin=path)
    return StreamModel(
        run,
        content,
        net=net.to(chosen).to(memory_format=torch.channels_last),
        checkpoint_sha256=digest_file(path).sha256,
        device=chosen,
        precision=choose_precision(content.config.precision, chosen),
    )


def make_net(content: TrainedNet) -> nn.Module:
    """Build the net of that name, with other weights.

    Raises:
        InputError: If there is none.
    """
    return build_model(
        content.arch,
        content.stream,
        num_classes=content.num_outputs,
        stack_length=content.stack_length,
        weights="none",
        original_head=content.original_head,
    )


def build_trained(content: TrainedNet, state: dict[str, Any], *, origin: Path) -> nn.Module:
    """Build a net and load its weights, ready to answer.

    Raises:
        InputError: If the weights are not exactly the net's.
    """
    with torch.device("meta"):  # a small file may name a net of gigabytes
        check_whole(make_net(content), state, origin=origin)
    net = make_net(content)
    net.load_state_dict(state)
    return net.eval()


def check_pair(models: Sequence[StreamModel]) -> None:
    """Make sure that one or two runs can be tested or fused together.

    Raises:
        InputError: If there are more than two, both have one stream, or their classes, splits or
            geometries differ, or one was trained on a subject that the other is tested on.
    """
    if not 1 <= len(models) <= 2:
        raise InputError(f"{len(models)} runs, expected one, or an rgb and a flow run")
    if len(models) == 1:
        return
    one, other = models
    both = f"{one.run} and {other.run}"
    if one.stream == other.stream:
        raise InputError(f"{both}: both are {one.stream} runs, expected an rgb and a flow run")
    for what, left, right in (
        ("classes", one.class_names, other.class_names),
        ("frame size", one.frame_size, other.frame_size),
        ("frames taken", str(one.sampling), str(other.sampling)),
    ):
        if left != right:
            raise InputError(f"{both}: their {what} differ: {left} and {right}, expected the same")
    if one.split_sha256 != other.split_sha256:
        keys = sorted({*one.val_keys, *one.test_keys} ^ {*other.val_keys, *other.test_keys})
        named = [f"; {key} (subject {key.partition('_')[0]}) is validated in one" for key in keys]
        raise InputError(
            f"{both}: their splits differ, expected the same{''.join(named[:1])}\n"
            "  Train both with the same split, folds and fold."
        )


def check_fits(model: StreamModel, dataset: Dataset) -> None:
    """Make sure that a dataset gives a model the inputs it was trained on.

    Raises:
        InputError: If classes, geometry, face crop or flow differ.
    """
    geometry, flow = dataset.manifest.geometry, dataset.manifest.flow
    pairs: list[tuple[str, Any, Any]] = [
        ("classes", dataset.class_names, model.class_names),
        ("frame size", (geometry.width, geometry.height), model.frame_size),
        ("face crop", dataset.manifest.crop, model.crop),
        ("frames taken", str(dataset.manifest.sampling), str(model.sampling)),
    ]
    if model.stream == "flow" and flow is not None:
        trained_flow = (model.flow_method, model.bound_px, model.flow_size)
        pairs.append(
            ("flow method, bound and size", (flow.method, flow.bound_px, flow.size), trained_flow)
        )
    for what, own, trained in pairs:
        if own != trained:
            raise InputError(
                f"{dataset.address}: {what} {own}, but {model.run} was trained on {trained}"
            )
