"""build_model: stem, heads, weights by name, what is refused, and channels_last to the last
convolution."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision.models as zoo
from torch import nn
from torch.profiler import ProfilerActivity, profile

from models.build import build_model, cross_modality_stem, freeze_batch_norm, stem_parameters
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


def test_default_dropout_is_the_seeds() -> None:
    for stream, probability in (("rgb", 0.8), ("flow", 0.7)):
        model = build_model("resnet18", stream, num_classes=7, weights="none")
        assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [probability]


def seed_state(stream: str) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of the original's resnet-152 nets, unused modules
    included."""
    channels = 3 if stream == "rgb" else 10
    state = {
        f"module.{k}": v
        for k, v in zoo.resnet152(weights=None).state_dict().items()
        if not k.startswith("fc.")
    }
    state["module.conv1.weight"] = torch.randn(64, channels, 7, 7)
    state |= {
        "module.fc_action.weight": torch.randn(8, 2048),
        "module.fc_action.bias": torch.randn(8),
    }
    state |= {
        f"module.bn_final.{k}": torch.rand(8)
        for k in ("weight", "bias", "running_mean", "running_var")
    }
    state |= {"module.fc_final.weight": torch.randn(8, 8), "module.fc_final.bias": torch.randn(8)}
    if stream == "rgb":
        state |= {"module.fc2.weight": torch.randn(101, 2048), "module.fc2.bias": torch.randn(101)}
    return state


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_the_originals_checkpoints_load_by_name(stream: str, tmp_path: Path) -> None:
    state = seed_state(stream)
    torch.save(
        {"epoch": 225, "arch": f"{stream}_resnet152", "state_dict": state},
        tmp_path / "original.pth.tar",
    )
    model = build_model(
        "resnet152",
        stream,
        num_classes=8,
        weights=str(tmp_path / "original.pth.tar"),
        use_original_head=True,
    )
    own = model.state_dict()
    assert torch.equal(own["conv1.weight"], state["module.conv1.weight"])
    assert torch.equal(own["fc.fc_action.weight"], state["module.fc_action.weight"])
    assert ("fc.fc_final.weight" in own) == (stream == "rgb")
    if stream == "rgb":
        assert torch.equal(own["fc.bn_final.running_var"], state["module.bn_final.running_var"])


def test_original_head_takes_a_last_batch_of_one_in_training() -> None:
    model = build_model(
        "resnet18", "rgb", num_classes=8, weights="none", use_original_head=True
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
    model = build_model("resnet18", "flow", num_classes=7, weights="none").train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert freeze_batch_norm(model) == len(norms) - 1
    assert [m.training for m in norms] == [True] + [False] * (len(norms) - 1)
    assert not norms[1].weight.requires_grad and norms[0].weight.requires_grad


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arch": "resnet17"}, "--arch 'resnet17'.*resnet18"),
        ({"arch": "inception_v3"}, "--arch 'inception_v3'"),
        ({"arch": "squeezenet1_0"}, "squeezenet1_0.*last layer is Conv2d, expected a Linear"),
        ({"stream": "depth"}, "stream 'depth', expected rgb or flow"),
        ({"num_classes": 1}, "1 classes, expected at least 2"),
        ({"stack_length": 0}, "--stack-length 0"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"use_original_head": True}, "--original-head has 8 outputs.*7 are asked for"),
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


def test_weights_of_another_net_name_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(zoo.resnet34(weights=None).state_dict(), path)
    with pytest.raises(InputError, match=r"(?s)unknown: layer1\.2\.conv1\.weight"):
        build_model("resnet18", "rgb", num_classes=7, weights=str(path))
    state = zoo.resnet18(weights=None).state_dict()
    del state["layer3.0.conv1.weight"]
    torch.save(state, path)
    with pytest.raises(InputError, match=r"1 missing: layer3\.0\.conv1\.weight"):
        build_model("resnet18", "rgb", num_classes=7, weights=str(path))
    torch.save(build_model("resnet18", "flow", num_classes=5, weights="none").state_dict(), path)
    with pytest.raises(InputError, match=r"fc\.1\.weight \(5, 512\), expected \(7, 512\)"):
        build_model("resnet18", "flow", num_classes=7, weights=str(path))
    with pytest.raises(InputError, match=r"conv1\.weight has 10 channels, expected 6 or 3"):
        build_model("resnet18", "flow", num_classes=5, stack_length=3, weights=str(path))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as weights"):
        build_model("resnet18", "rgb", num_classes=7, weights=str(path))
    torch.save({"model": 3}, path)
    with pytest.raises(InputError, match="holds no state dict"):
        build_model("resnet18", "rgb", num_classes=7, weights=str(path))


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
