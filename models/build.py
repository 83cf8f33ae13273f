"""``build_model``: nets of torchvision and timm with another stem, head, and weights by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torchvision.models as zoo
from torch import nn

from models.heads import ORIGINAL_NUM_OUTPUTS, Head, make_head, make_original_head
from models.timm_nets import (
    IMAGENET_CLASSES,
    foreign_statistics,
    is_timm,
    make_timm_net,
    timm_classifier,
    timm_first_conv,
    timm_state_dict,
)
from models.weights import Pretrained, load_by_name, read_weights, torchvision_state_dict
from shard_builder.checks import check_choice
from shard_builder.errors import InputError

DROPOUT = {"rgb": 0.8, "flow": 0.7}
"""Before the classifier. Source: TSN; rgb_resnet.py and flow_resnet.py of
two_stream_for_emotion_recognition."""
AUXILIARY_OUTPUTS = ("googlenet", "inception_v3")
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def build_model(
    arch: str = "resnet152",
    stream: str = "flow",
    *,
    num_classes: int,
    stack_length: int = 5,
    weights: str = "imagenet",
    dropout: float | None = None,
    original_head: bool = False,
    class_names: Sequence[str] = (),
    on_notice: Callable[[str], None] = lambda _text: None,
) -> nn.Module:
    """Build a network that turns (N, C, 224, 224) images into (N, num_classes) logits.

    C is 3 (rgb) or 2 ``stack_length`` (flow). The first convolution of pretrained rgb weights
    becomes the flow stem by its mean over RGB, repeated 2L times and not rescaled (cross-modality
    initialisation). Without weights, the net's own initialisation follows torch's global generator.

    Args:
        arch: Name of a torchvision classifier, or ``timm/NAME``, whose first layer is a Conv2d and
            whose last is a Linear.
        stream: ``rgb`` or ``flow``.
        num_classes: Outputs.
        stack_length: Flow pairs in a sample.
        weights: ``imagenet``, a name of torchvision's enum such as ``IMAGENET1K_V1``, ``none``, or
            a file: a checkpoint of ``cktrain``, of the original (``rgb_resnet152``,
            ``flow_resnet152``) or a state dict of torchvision or timm. Of a file with another head
            the body is taken and the head starts anew.
        dropout: Probability before the classifier; None takes 0.8 (rgb) or 0.7 (flow).
        original_head: The original's heads of 8 outputs, one for each of CK+'s codes 0..7;
            ``num_classes`` must be 8.
        class_names: Names of the outputs; the head of a checkpoint of ``cktrain`` with other names
            is not taken.
        on_notice: Called with a line where the head of the weights is not taken, or the net was
            pretrained on images normalised otherwise.

    Raises:
        InputError: If the name, a number or the weights do not fit; the message names the nets or
            the keys.

    Source: Wang et al., Temporal Segment Networks, ECCV 2016 (stem, dropout); He et al., Deep
        Residual Learning, CVPR 2016.
    """
    check_choice("stream", stream, DROPOUT)
    if num_classes < 2:
        raise InputError(f"num_classes={num_classes}, expected at least 2")
    if stack_length < 1:
        raise InputError(f"stack_length={stack_length}, expected 1 or more")
    probability = DROPOUT[stream] if dropout is None else dropout
    if not 0 <= probability < 1:
        raise InputError(f"dropout={probability}, expected 0 or more and less than 1")
    if original_head and num_classes != ORIGINAL_NUM_OUTPUTS:
        raise InputError(
            f"original_head=True has {ORIGINAL_NUM_OUTPUTS} outputs (CK+'s codes 0 to 7),"
            f" but {num_classes} are asked for"
        )
    num_channels = 3 if stream == "rgb" else 2 * stack_length
    model = _make_net(arch, num_channels)
    name, num_features = _last_linear(model, arch)
    if original_head:
        head = make_original_head(stream, num_features, dropout=probability)
    else:
        head = make_head(num_features, num_classes, dropout=probability)
    stem = _first_conv(model, arch, num_channels=num_channels if is_timm(arch) else 3)
    conv = model.get_submodule(stem)
    assert isinstance(conv, nn.Conv2d)
    if conv.in_channels != num_channels:
        conv.in_channels = num_channels
        conv.weight = nn.Parameter(cross_modality_stem(conv.weight.detach(), num_channels))
    model.set_submodule(name, head)
    if weights != "none":
        pretrained = _pretrained(arch, weights, head=name)
        _fit_stem(pretrained, f"{stem}.weight", num_channels, origin=weights)
        is_other = not original_head and pretrained.has_other_classes(class_names)
        load_by_name(
            model,
            pretrained.state,
            origin=weights,
            head=name,
            keep_head=not is_other,
            on_notice=on_notice if pretrained.is_file else lambda _text: None,
        )
        is_timms = is_timm(arch) and not pretrained.is_file
        if stream == "rgb" and is_timms and (statistics := foreign_statistics(arch)):
            on_notice(f"{arch} was pretrained with {statistics}; here ImageNet's are used")
    return model.to(memory_format=torch.channels_last)


def stem_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the first convolution."""
    stem = _first_conv(model, type(model).__name__, num_channels=None)
    return list(model.get_submodule(stem).parameters())


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the classifier."""
    return [
        p for module in model.modules() if isinstance(module, Head) for p in module.parameters()
    ]


def freeze_batch_norm(model: nn.Module) -> int:
    """Freeze the weights of every BatchNorm2d but the first; return of how many.

    Their statistics stay as they are after :func:`switch_to_training`. Freeze before the net is
    wrapped for many ranks, which wait for every weight's gradient, and before its layers become
    SyncBatchNorm, which is no BatchNorm2d.

    Source: TSN's partial BN.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)][1:]
    for layer in layers:
        layer.requires_grad_(False)
    return len(layers)


def switch_to_training(model: nn.Module) -> None:
    """Switch to training, but for the statistics of BatchNorm layers whose weights are frozen."""
    model.train()
    for layer in model.modules():
        if isinstance(layer, BATCH_NORMS) and not all(p.requires_grad for p in layer.parameters()):
            layer.eval()


def cross_modality_stem(weight: torch.Tensor, num_channels: int) -> torch.Tensor:
    """Return the mean over RGB of a first convolution (out, 3, h, w), for each of the channels.

    Source: TSN; not rescaled, so that the first activations grow with the number of channels, as in
        the original.
    """
    return weight.mean(dim=1, keepdim=True).repeat(1, num_channels, 1, 1)


def _make_net(arch: str, num_channels: int) -> nn.Module:
    return (
        make_timm_net(arch, num_channels=num_channels)
        if is_timm(arch)
        else (_torchvision_model(arch))
    )


def _torchvision_model(arch: str) -> nn.Module:
    names = zoo.list_models(module=zoo)
    if arch not in names or arch in AUXILIARY_OUTPUTS:
        known = (name for name in names if name not in AUXILIARY_OUTPUTS)
        raise InputError(
            f"arch={arch!r}, expected resnet18, 34, 50, 101 or 152,"
            " another classifier of torchvision.models with one output, or timm/NAME\n"
            f"  Known: {', '.join(known)}"
        )
    return zoo.get_model(arch, weights=None)  # type: ignore[no-any-return]


def _leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules that hold parameters themselves, in the order of the forward pass."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if not any(module.children()) and any(True for _ in module.parameters())
    ]


def _first_conv(model: nn.Module, arch: str, *, num_channels: int | None) -> str:
    name = timm_first_conv(model) or _leaves(model)[0][0]
    module = model.get_submodule(name)
    if not isinstance(module, nn.Conv2d) or (num_channels and module.in_channels != num_channels):
        raise InputError(
            f"arch={arch!r}: its first layer is {type(module).__name__},"
            f" expected a Conv2d of {num_channels} channels"
        )
    return name


def _last_linear(model: nn.Module, arch: str) -> tuple[str, int]:
    name = timm_classifier(model) if is_timm(arch) else _leaves(model)[-1][0]
    module = model.get_submodule(name) if name else model
    if not name or not isinstance(module, nn.Linear) or module.out_features != IMAGENET_CLASSES:
        raise InputError(
            f"arch={arch!r}: its last layer is {type(module).__name__}, expected a Linear"
        )
    return name, module.in_features


def _pretrained(arch: str, weights: str, *, head: str) -> Pretrained:
    path = Path(weights)
    if path.is_file():
        pretrained = read_weights(path, head=head)
        pretrained.check_arch(arch, origin=weights)
        return pretrained
    if os.path.lexists(path) and weights != "imagenet":
        raise InputError(f"{path}: is no regular file, expected weights")
    if not is_timm(arch):
        return Pretrained(state=torchvision_state_dict(arch, weights))
    if weights != "imagenet":
        raise InputError(
            f"weights={weights!r}: no such file, expected imagenet, none or a file of weights\n"
            "  Others of timm are chosen by a tag: arch timm/NAME.TAG with weights='imagenet'."
        )
    return Pretrained(state=timm_state_dict(arch))


def _fit_stem(pretrained: Pretrained, kernel: str, num_channels: int, *, origin: str) -> None:
    """Give a first convolution of rgb weights the channels of the net."""
    state = pretrained.state
    if kernel not in state or state[kernel].ndim != 4 or not state[kernel].is_floating_point():
        return  # named below, with all that does not fit
    actual = state[kernel].shape[1]
    if actual not in (num_channels, 3):
        raise InputError(
            f"{origin}: {kernel} has {actual} channels, expected {num_channels} or 3 (rgb)\n"
            "  A flow net of another stack length cannot be used:"
            " choose the stack_length that it was trained with."
        )
    if actual != num_channels:
        state[kernel] = cross_modality_stem(state[kernel], num_channels)
