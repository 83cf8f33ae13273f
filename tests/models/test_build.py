"""build_model: stem, heads, weights by name, what is refused, and channels_last to the last
convolution."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision.models as zoo
from torch import nn
from torch.profiler import ProfilerActivity, profile

from models.build import (
    build_model,
    cross_modality_stem,
    freeze_batch_norm,
    stem_parameters,
    switch_to_training,
)
from models.heads import BatchNormOfLogits
from pipelines.dataset import open_dataset
from pipelines.loader import make_loader
from shard_builder.errors import InputError

ARCHS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "mobilenet_v3_small",
    "vgg11_bn",
    "convnext_tiny",
)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("stream", "channels"), [("rgb", 3), ("flow", 10)])
def test_every_arch_gives_logits_of_the_classes(arch: str, stream: str, channels: int) -> None:
    model = build_model(arch, stream, num_classes=7, weights="none").eval()
    images = torch.rand(1, channels, 224, 224).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert model(images).shape == (1, 7)


@pytest.mark.parametrize("stack_length", [1, 3, 10])
def test_flow_stem_takes_any_stack_length(stack_length: int) -> None:
    model = build_model(
        "resnet18", "flow", num_classes=7, stack_length=stack_length, weights="none"
    )
    assert [tuple(p.shape) for p in stem_parameters(model)] == [(64, 2 * stack_length, 7, 7)]


def test_flow_stem_is_the_mean_over_rgb_repeated_and_not_rescaled(tmp_path: Path) -> None:
    torch.manual_seed(3)
    pretrained = zoo.resnet18(weights=None)
    torch.save(pretrained.state_dict(), tmp_path / "rgb.pth")
    model = build_model("resnet18", "flow", num_classes=7, weights=str(tmp_path / "rgb.pth"))
    kernel = pretrained.conv1.weight
    for channel in range(10):
        by_hand = (kernel[:, 0] + kernel[:, 1] + kernel[:, 2]) / 3
        torch.testing.assert_close(model.conv1.weight[:, channel], by_hand)
    for name in ("layer1.0.conv1.weight", "layer4.1.bn2.running_var"):
        assert torch.equal(model.state_dict()[name], pretrained.state_dict()[name])


def test_a_constant_rgb_input_gives_the_same_response_scaled_by_the_channels() -> None:
    kernel = torch.randn(4, 3, 7, 7)
    stem = cross_modality_stem(kernel, 10)
    gray, stack = torch.ones(1, 3, 7, 7), torch.ones(1, 10, 7, 7)
    response = nn.functional.conv2d(gray, kernel)
    torch.testing.assert_close(
        nn.functional.conv2d(stack, stem), response * 10 / 3, rtol=1e-4, atol=1e-4
    )


def test_default_dropout_is_the_originals() -> None:
    for stream, probability in (("rgb", 0.8), ("flow", 0.7)):
        model = build_model("resnet18", stream, num_classes=7, weights="none")
        assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [probability]


def test_original_head_takes_a_last_batch_of_one_in_training() -> None:
    model = build_model(
        "resnet18", "rgb", num_classes=8, weights="none", original_head=True
    ).train()
    norm = next(m for m in model.modules() if isinstance(m, BatchNormOfLogits))
    before = norm.running_mean.clone()
    assert model(torch.rand(1, 3, 224, 224)).shape == (1, 8)
    assert torch.equal(norm.running_mean, before), (
        "one sample has no variance: it must not enter the statistics"
    )
    model(torch.rand(2, 3, 224, 224))
    assert not torch.equal(norm.running_mean, before)


def test_resnet_trains_on_a_last_batch_of_one() -> None:
    model = build_model("resnet18", "flow", num_classes=7, weights="none").train()
    model(torch.rand(1, 10, 224, 224)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_partial_bn_freezes_all_but_the_first() -> None:
    model = build_model("resnet18", "flow", num_classes=7, weights="none")
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert freeze_batch_norm(model) == len(norms) - 1 == 19
    for _ in range(2):
        switch_to_training(model)
        assert [m.training for m in norms] == [True] + [False] * 19
        assert model.training and model.layer1.training
        model.eval()
    assert not norms[1].weight.requires_grad and norms[0].weight.requires_grad


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_partial_bn_stays_what_it_was_with_statistics_over_all_ranks(arch: str) -> None:
    """The original's rgb head has a BatchNorm of its own, which is not among those of TSN."""
    model = build_model(arch, "rgb", num_classes=8, weights="none", original_head=True)
    num_frozen = freeze_batch_norm(model)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    switch_to_training(model)
    norms = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert num_frozen == len(norms) - 2
    assert [m.training for m in norms] == [True] + [False] * num_frozen + [True]
    assert [m.weight.requires_grad for m in norms] == [m.training for m in norms]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arch": "resnet17"}, "arch='resnet17'.*resnet18"),
        ({"arch": "inception_v3"}, "arch='inception_v3'"),
        ({"arch": "squeezenet1_0"}, "squeezenet1_0.*last layer is Conv2d, expected a Linear"),
        ({"stream": "depth"}, "stream='depth', expected one of rgb, flow"),
        ({"num_classes": 1}, "num_classes=1, expected at least 2"),
        ({"stack_length": 0}, "stack_length=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"original_head": True}, "original_head=True has 8 outputs.*7 are asked for"),
        ({"weights": "IMAGENET1K_V9"}, "IMAGENET1K_V9.*no such file.*IMAGENET1K_V1"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], words: str) -> None:
    arguments = {
        "arch": "resnet18",
        "stream": "flow",
        "num_classes": 7,
        "weights": "none",
    } | options
    with pytest.raises(InputError, match=f"(?s){words}"):
        build_model(**arguments)  # type: ignore[arg-type]


def test_channels_last_survives_from_the_loader_to_the_last_convolution(tiny_dataset: Path) -> None:
    """No layout copy is hidden in the way: every convolution sees channels_last, and nothing is
    cloned or made contiguous."""
    model = build_model("resnet50", "flow", num_classes=7, weights="none").eval()
    seen: list[bool] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _, inputs, output: seen.append(
                    inputs[0].is_contiguous(memory_format=torch.channels_last)
                    and output.is_contiguous(memory_format=torch.channels_last)
                )
            )
    with open_dataset(tiny_dataset) as dataset:
        rows = dataset.rows_of(dataset.keys[:4])
        with make_loader(dataset, "flow", rows=rows, training=False, batch_size=4) as loader:
            batch = next(iter(loader))
            assert batch.images.stride() == (10 * 224 * 224, 1, 10 * 224, 10)
            with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as profiled:
                model(batch.images)
    counts = {event.key: event.count for event in profiled.key_averages()}
    assert counts.get("aten::contiguous", 0) == 0 and counts.get("aten::clone", 0) == 0
    assert len(seen) == 53 and all(seen)
