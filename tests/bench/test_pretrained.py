"""Pretrained weights from a package: under the names of timm's net, which then knows pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import pytest
import skimage
import timm
import torch

from bench.pretrained import NAME, main, package_weights
from models.build import build_model

CATS, CUPS = range(281, 286), (504, 967, 968)
"""Numbers of ImageNet's cats, and of coffee mug, espresso and cup."""


def test_the_net_knows_a_cat_and_a_cup_of_coffee() -> None:
    net = timm.create_model("efficientnet_lite0").eval()
    net.load_state_dict(package_weights())
    for name, classes in (("chelsea", CATS), ("coffee", CUPS)):
        path = Path(skimage.__file__).parent / "data" / f"{name}.png"
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        side = min(picture.shape[:2])
        y, x = ((length - side) // 2 for length in picture.shape[:2])
        square = cv2.resize(picture[y : y + side, x : x + side], (224, 224))
        levels = torch.from_numpy(square).permute(2, 0, 1) / 255
        mean, deviation = (torch.tensor(v)[:, None, None] for v in timm_statistics())
        with torch.inference_mode():
            best = int(net(((levels - mean) / deviation)[None]).argmax())
        assert best in classes, name


def timm_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    config = timm.models.get_pretrained_cfg("efficientnet_lite0")
    return config.mean, config.std


def test_the_command_writes_a_file_that_training_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights"
    monkeypatch.setattr(sys, "argv", ["pretrained", str(out)])
    main()
    assert "Apache-2.0" in capsys.readouterr().out
    options = {"num_classes": 7, "weights": str(out / NAME)}
    model = build_model("timm/efficientnet_lite0", "rgb", **options)  # type: ignore[arg-type]
    expected = package_weights()["conv_head.weight"]
    assert torch.equal(model.get_submodule("conv_head").weight, expected)


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.pretrained.SHA256", "0" * 64)
    with pytest.raises(SystemExit, match=r"SHA-256 579344.*expected 0000"):
        package_weights()
    monkeypatch.setattr("bench.pretrained.PACKAGE", "no_such_package")
    monkeypatch.setattr(sys, "argv", ["pretrained", "."])
    with pytest.raises(SystemExit, match="error: no_such_package is not installed"):
        main()
