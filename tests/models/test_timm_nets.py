"""Nets of timm: any stream, cross-modality stem, dropout, its own weights, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from models.build import build_model, head_parameters, stem_parameters
from shard_builder.errors import InputError

ARCHS = ("test_efficientnet", "test_convnext", "test_resnet", "vit_tiny_patch16_224")


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("stream", "channels"), [("rgb", 3), ("flow", 6)])
def test_a_net_of_timm_takes_either_stream(arch: str, stream: str, channels: int) -> None:
    model = build_model(f"timm/{arch}", stream, num_classes=5, stack_length=3, weights="none")
    images = torch.rand(1, channels, 224, 224).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert model.eval()(images).shape == (1, 5)
    stem, *_ = stem_parameters(model)
    assert stem.shape[1] == channels and stem is next(
        p for name, p in model.named_parameters() if name.endswith("weight")
    )
    assert [len(parameter) for parameter in head_parameters(model)] == [5, 5]


def test_dropout_lies_before_the_classifier() -> None:
    model = build_model("timm/test_resnet", "rgb", num_classes=5, weights="none", dropout=0.25)
    probabilities = [m.p for m in model.modules() if isinstance(m, nn.Dropout) and m.p]
    assert probabilities == [0.25]


def test_pretrained_weights_are_timms_and_the_stem_their_mean_over_rgb(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create, asked = timm.create_model, []

    def downloaded(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
        asked.append((name, pretrained))
        net = create(name, **options)
        if pretrained:
            for parameter in net.parameters():
                nn.init.constant_(parameter, 0.5)
            nn.init.normal_(net.get_submodule("conv_stem").weight)
            pretrained_nets.append(net)
        return net

    pretrained_nets: list[nn.Module] = []
    monkeypatch.setattr(timm, "create_model", downloaded)
    arch = "timm/test_efficientnet.r160_in1k"
    model = build_model(arch, "flow", num_classes=5, stack_length=2, weights="imagenet")
    assert ("test_efficientnet.r160_in1k", True) in asked
    kernel = pretrained_nets[0].get_submodule("conv_stem").weight.detach()
    expected = kernel.mean(dim=1, keepdim=True).expand(-1, 4, -1, -1)
    torch.testing.assert_close(model.get_submodule("conv_stem").weight.detach(), expected)
    assert (model.get_submodule("conv_head").weight == 0.5).all()
    assert not (head_parameters(model)[0] == 0.5).any()


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_weights_that_cannot_be_fetched_are_an_error_of_one_line(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model

    def fail(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise error("no route\x1b[2J\nsecond line")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(InputError) as caught:
        build_model("timm/test_resnet", "rgb", num_classes=5, weights="imagenet")
    text = str(caught.value)
    assert "timm/test_resnet cannot be downloaded (no route" in text and "second" not in text
    assert "\x1b" not in text and "weights='none'" in text


def test_other_statistics_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=0, **o: create(name, **o))
    for arch, stream, expected in (
        ("test_resnet", "rgb", ["mean (0.5, 0.5, 0.5)"]),
        ("test_resnet", "flow", []),
        ("efficientnet_lite0", "rgb", []),
    ):
        notices: list[str] = []
        options: dict[str, Any] = {"weights": "imagenet", "on_notice": notices.append}
        build_model(f"timm/{arch}", stream, num_classes=5, **options)
        assert len(notices) == len(expected)
        assert all(words in notice for words, notice in zip(expected, notices, strict=True))


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("resnet17", r"arch='timm/resnet17', expected timm/.*Known: .*resnet1"),
        ("resnet18.tv", r"(?s)arch='timm/resnet18.tv'.*Known: .*resnet18.tv_in1k"),
        ("hf_hub:someone/net", "expected timm/ and a net of timm"),
        ("local-dir:/tmp", "expected timm/ and a net of timm"),
        ("", "expected timm/ and a net of timm"),
        ("deit_tiny_distilled_patch16_224", "last layer is .*, expected a Linear"),
        ("swin_base_patch4_window12_384", "takes images of 384 x 384 pixels only"),
    ],
)
def test_what_is_no_net_for_us_is_refused(arch: str, words: str) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        build_model(f"timm/{arch}", "rgb", num_classes=5, weights="none")


def test_an_entry_of_torchvisions_enum_is_none_of_timm() -> None:
    with pytest.raises(InputError, match=r"(?s)IMAGENET1K_V1.*no such file.*timm/NAME\.TAG"):
        build_model("timm/test_resnet", "rgb", num_classes=5, weights="IMAGENET1K_V1")
