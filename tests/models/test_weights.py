"""Weights by name: the original's checkpoints, those of another net, and files that are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models as zoo
from torch import nn

from models.build import build_model
from shard_builder.errors import InputError


def original_state(stream: str) -> dict[str, torch.Tensor]:
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
    state = original_state(stream)
    torch.save(
        {"epoch": 225, "arch": f"{stream}_resnet152", "state_dict": state},
        tmp_path / "original.pth.tar",
    )
    model = build_model(
        "resnet152",
        stream,
        num_classes=8,
        weights=str(tmp_path / "original.pth.tar"),
        original_head=True,
    )
    own = model.state_dict()
    assert torch.equal(own["conv1.weight"], state["module.conv1.weight"])
    assert torch.equal(own["fc.fc_action.weight"], state["module.fc_action.weight"])
    assert ("fc.fc_final.weight" in own) == (stream == "rgb")
    if stream == "rgb":
        assert torch.equal(own["fc.bn_final.running_var"], state["module.bn_final.running_var"])


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
    with pytest.raises(InputError, match=r"conv1\.weight has 10 channels, expected 6 or 3"):
        build_model("resnet18", "flow", num_classes=5, stack_length=3, weights=str(path))


def checkpoint(path: Path, arch: str, names: Sequence[str], **options: Any) -> nn.Module:
    """Write what of a checkpoint of cktrain fine-tuning reads."""
    model = build_model(arch, "flow", num_classes=len(names), weights="none", **options)
    torch.save({"arch": arch, "classes": list(names), "model": model.state_dict()}, path)
    return model


def tuned(
    path: Path, arch: str, names: Sequence[str], **options: Any
) -> tuple[nn.Module, list[str]]:
    """Build a net from a file of weights; return it and the notices."""
    notices: list[str] = []
    model = build_model(
        arch,
        "flow",
        num_classes=len(names),
        weights=str(path),
        class_names=() if options.get("original_head") else names,
        on_notice=notices.append,
        **options,
    )
    return model, notices


def same_parts(one: nn.Module, other: nn.Module, head: str) -> tuple[bool, bool]:
    """Whether the bodies are equal, and the heads."""
    left, right = one.state_dict(), other.state_dict()
    body = [name for name in left if not name.startswith(head)]
    return (
        all(torch.equal(left[name], right[name]) for name in body),
        left.keys() == right.keys()
        and all(torch.equal(left[name], right[name]) for name in left if name.startswith(head)),
    )


@pytest.mark.parametrize(
    ("arch", "head"),
    [("resnet18", "fc."), ("mobilenet_v3_small", "classifier.3."), ("timm/test_resnet", "fc.")],
)
@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("abc", "its head has 5 outputs, this net 3: the head starts anew"),
        ("abcdefg", "its head has 5 outputs, this net 7: the head starts anew"),
        ("edcba", "its head is of other classes or another kind: the head starts anew"),
        ("abcde", ""),
    ],
)
def test_weights_of_another_set_keep_the_body_and_start_the_head_anew(
    arch: str, head: str, names: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    trained = checkpoint(path, arch, "abcde")
    model, notices = tuned(path, arch, names)
    assert same_parts(trained, model, head) == (True, not words)
    assert [words in notice and str(path) in notice for notice in notices] == [True] * bool(words)


def test_a_head_of_another_kind_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    trained = checkpoint(path, "resnet18", "abcdefgh", original_head=True)
    model, notices = tuned(path, "resnet18", "abcdefgh")
    assert same_parts(trained, model, "fc.") == (True, False) and len(notices) == 1
    model, notices = tuned(path, "resnet18", "abcdefgh", original_head=True)
    assert same_parts(trained, model, "fc.") == (True, True) and not notices


@pytest.mark.parametrize(
    ("trained", "asked"),
    [("resnet18", "resnet34"), ("timm/test_resnet", "timm/test_convnext"), ("alexnet", "vgg11")],
)
def test_weights_of_another_arch_name_both(trained: str, asked: str, tmp_path: Path) -> None:
    checkpoint(tmp_path / "last.pt", trained, "abcde")
    with pytest.raises(InputError, match=f"last.pt' are of {trained}, but arch='{asked}' is asked"):
        tuned(tmp_path / "last.pt", asked, "abcde")


def test_weights_of_the_same_net_of_the_other_library_are_taken(tmp_path: Path) -> None:
    trained = checkpoint(tmp_path / "last.pt", "resnet18", "abcde")
    model, notices = tuned(tmp_path / "last.pt", "timm/resnet18", "abcde")
    assert same_parts(trained, model, "fc.") == (True, True) and not notices


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as weights"):
        build_model("resnet18", "rgb", num_classes=7, weights=str(path))
    torch.save({"model": 3}, path)
    with pytest.raises(InputError, match="holds no state dict"):
        build_model("resnet18", "rgb", num_classes=7, weights=str(path))
