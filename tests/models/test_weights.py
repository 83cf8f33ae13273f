"""Weights by name: the original's checkpoints, those of another net, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision.models as zoo

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
