"""The session: the net as it is trained, frozen, compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.build import switch_to_training
from shard_builder.errors import InputError
from tests.train.tiny_net import OPTIONS, Train
from train.config import TrainConfig
from train.distributed import Ranks
from train.running.session import make_model
from train.running.train_run import open_run

TWO_RANKS = Ranks(world_size=2)
NAMES = tuple("abcdefg")


@pytest.mark.parametrize("sync_bn", [False, True])
def test_partial_bn_freezes_the_same_layers_with_statistics_over_all_ranks(
    sync_bn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # a net of torchvision's
    monkeypatch.setattr(nn.Module, "to", lambda module, *_, **options: module)  # as if to a GPU
    config = TrainConfig(
        stream="flow", arch="resnet18", weights="none", partial_bn=True, sync_bn=sync_bn
    )
    model = make_model(config, torch.device("cuda", 0), TWO_RANKS, NAMES)
    switch_to_training(model)
    kind = nn.SyncBatchNorm if sync_bn else nn.BatchNorm2d
    norms = [module for module in model.modules() if isinstance(module, kind)]
    assert [norm.training for norm in norms] == [True] + [False] * 19


def test_partial_bn_that_would_freeze_nothing_is_refused() -> None:
    config = TrainConfig(stream="flow", arch="tiny", weights="none", partial_bn=True)
    with pytest.raises(InputError, match="partial_bn=True, but tiny has no BatchNorm2d"):
        make_model(config, torch.device("cpu"), Ranks(), NAMES)


def test_a_short_last_batch_compiles_one_more_graph_and_none_for_any_size(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """28 samples in batches of 6: four of 6 and one of 4 an epoch."""
    torch._dynamo.reset()
    shapes: list[tuple[object, ...]] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        values = [n.meta["example_value"] for n in graph.graph.nodes if n.op == "placeholder"]
        images = [value for value in values if getattr(value, "ndim", 0) == 4]
        shapes.append(next(tuple(image.shape) for image in images if len(image) != 8))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    train(compile=True, epochs=3, batch_size=6, iter_size=2, dropout=0.0)
    assert {type(shape[0]) for shape in shapes} == {int}, "a graph for any size"
    assert shapes == [(6, 10, 224, 224), (4, 10, 224, 224)]


def test_sampling_balanced_reaches_the_training_loader_and_no_other(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    for sampling in ("natural", "balanced"):
        config = TrainConfig(stream="flow", sampling=sampling, **OPTIONS)
        with open_run(config, tiny_dataset, tmp_path / sampling, resume=False) as run:
            session = run.session
            assert (session.train_loader.plan.classes is not None) == (sampling == "balanced")
            assert session.val_loader.plan.classes is None
