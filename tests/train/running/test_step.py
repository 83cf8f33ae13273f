"""A step of the optimizer as a GPU sees it: how often the host waits, and what is copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models.build import build_model, switch_to_training
from pipelines.batch import Batch
from pipelines.dataset import Dataset, open_dataset
from tests.train.tiny_net import OPTIONS
from train.config import TrainConfig
from train.distributed import Ranks
from train.running import step
from train.running.amp import make_scaler
from train.running.checkpoint import Progress
from train.running.optimizer import make_optimizer
from train.running.session import Session, open_session
from train.running.step import finish_step, forward_backward, iter_steps
from train.running.train_run import split_of
from train.running.validate import validate

SIZE_FROM_VALUES = ("nonzero", "masked_select", "bincount", "unique", "repeat_interleave")


class Operators(TorchDispatchMode):
    """Calls a function with each operator that torch runs, its result and its arguments."""

    def __init__(self, look: Callable[[str, Any, tuple[Any, ...]], None]) -> None:
        super().__init__()
        self._look = look

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._look(func.name(), result, args)
        return result


@contextmanager
def host_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note what makes the host wait for a GPU: a value that is read, and a size that depends on
    values, such as that of what a mask selects."""
    reads: list[str] = []

    def look(name: str, result: Any, args: tuple[Any, ...]) -> None:
        masks = args[1] if name.startswith("aten::index") and isinstance(args[1], list) else ()
        if (
            name in ("aten::item", "aten::_local_scalar_dense")
            or any(word in name for word in SIZE_FROM_VALUES)
            or any(mask is not None and mask.dtype == torch.bool for mask in masks)
        ):
            reads.append(name)

    def tolist(values: torch.Tensor) -> list[float]:
        reads.append("tolist")
        return values.numpy().tolist()  # type: ignore[no-any-return]

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    with Operators(look):
        yield reads


def session_of(dataset: Dataset, **options: object) -> Session:
    config = TrainConfig(stream="flow", **(OPTIONS | options))  # type: ignore[arg-type]
    session = open_session(config, dataset, split_of(config, dataset), Ranks())
    switch_to_training(session.model)
    return session


@pytest.mark.parametrize("clip_grad", [0.0, 20.0])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_host_reads_numbers_of_the_device_once_a_step(
    precision: str, clip_grad: float, tiny_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """28 samples in batches of 5: steps of three and of three."""
    with (
        open_dataset(tiny_dataset) as dataset,
        closing(session_of(dataset, precision=precision, clip_grad=clip_grad)) as session,
    ):
        batches = [batch.clone() for batch in session.train_loader]
        session.train_loader.set_epoch(0)
        with host_reads(monkeypatch) as reads:
            steps = list(iter_steps(session, batches, is_asked_to_stop=lambda: False))
    assert len(steps) == 2 and [batch.global_size for batch in batches] == [5, 5, 5, 5, 5, 3]
    assert reads == ["tolist"] * 2


def test_validation_selects_nothing_by_a_mask_and_reads_once(
    tiny_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_dataset(tiny_dataset) as dataset, closing(session_of(dataset)) as session:
        assert session.val_loader and len(session.val_loader) > 1
        transfers: list[torch.Tensor] = []
        real = torch.Tensor.cpu

        def cpu(tensor: torch.Tensor) -> torch.Tensor:
            transfers.append(tensor)
            return real(tensor)

        monkeypatch.setattr(torch.Tensor, "cpu", cpu)
        with host_reads(monkeypatch) as reads:
            result = validate(session)
            found = list(reads)
    # What is left after the one transfer is read of the host's own memory.
    assert len(transfers) == 1 and found == ["aten::item"] * 3
    assert int(result.confusion.sum()) == session.val_loader.num_samples


def without_memory(model: nn.Module, mode: FakeTensorMode) -> None:
    """Put tensors that only have sizes and strides in the place of a net's."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(mode.from_tensor(parameter.detach())))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, mode.from_tensor(buffer))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_step_copies_no_image_into_another_layout(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward of a ResNet on tensors without memory: channels_last all along, but for
    the gradient of the mean over the last map (7 x 7), which torch makes in NCHW."""
    monkeypatch.undo()  # torchvision's nets
    monkeypatch.setattr(step, "read_numbers", lambda values: [2.0, 1.0, 2.0, 0.0, 1.0])
    changed: list[str] = []
    num_images = 0

    def is_image(value: object) -> bool:
        return isinstance(value, torch.Tensor) and value.ndim == 4 and min(value.shape[1:]) > 1

    def look(name: str, result: Any, args: tuple[Any, ...]) -> None:
        nonlocal num_images
        images = [value for value in (result, *args) if is_image(value)]
        num_images += len(images)
        changed.extend(
            f"{name} {tuple(image.shape)} {image.stride()}"
            for image in images
            if not image.is_contiguous(memory_format=torch.channels_last)
        )

    config = TrainConfig(stream="flow", arch="resnet18", weights="none", clip_grad=20.0)
    model = build_model("resnet18", "flow", num_classes=7, stack_length=5, weights="none")
    mode = FakeTensorMode()
    without_memory(model, mode)
    with mode:
        switch_to_training(model)
        cpu, optimizer = torch.device("cpu"), make_optimizer(model, config)
        session = SimpleNamespace(
            config=config,
            device=cpu,
            precision=precision,
            model=model,
            net=model,
            optimizer=optimizer,
            scaler=make_scaler(cpu, precision),
            ranks=Ranks(),
            progress=Progress(),
            epoch=0,
            schedule=SimpleNamespace(lr=0.1),
            step_taken=lambda *, has_moved: None,
            output_of_class=torch.arange(7),
            class_weights=torch.ones(7),
            step_sums=torch.zeros(3, dtype=torch.float64),
        )
        images = torch.empty(2, 10, 224, 224).contiguous(memory_format=torch.channels_last)
        batch = Batch(
            images=images.to(torch.bfloat16) if precision == "bf16" else images,
            labels=torch.zeros(2, dtype=torch.int64),
            valid=torch.ones(2, dtype=torch.bool),
            keys=("a", "b"),
            positions=np.arange(2),
            epoch=0,
            global_size=2,
        )
        with Operators(look):
            forward_backward(cast(Session, session), batch, 2)
            finish_step(cast(Session, session), is_stopping=False)
    assert num_images > 1000
    assert [text for text in changed if "(2, 512, 7, 7)" not in text] == []
