"""``build_model``: torchvision classifiers with another stem, another head, and weights by name."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torchvision.models as zoo
from torch import nn

from models.heads import ORIGINAL_NUM_OUTPUTS, make_original_head
from models.weights import load_by_name, read_state_dict, torchvision_state_dict
from shard_builder.checks import check_choice
from shard_builder.errors import InputError

DROPOUT = {"rgb": 0.8, "flow": 0.7}
"""Before the classifier. Source: TSN; rgb_resnet.py and flow_resnet.py of
two_stream_for_emotion_recognition."""
AUXILIARY_OUTPUTS = ("googlenet", "inception_v3")
IMAGENET_CLASSES = 1000
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
) -> nn.Module:
    """Build a network that turns (N, C, 224, 224) images into (N, num_classes) logits.

    C is 3 (rgb) or 2 ``stack_length`` (flow). The first convolution of pretrained rgb weights
    becomes the flow stem by its mean over RGB, repeated 2L times and not rescaled (cross-modality
    initialisation). Without weights, torchvision's own initialisation follows torch's global
    generator.

    Args:
        arch: Name of a torchvision classifier whose first layer is a Conv2d of 3 channels and whose
            last is a Linear.
        stream: ``rgb`` or ``flow``.
        num_classes: Outputs.
        stack_length: Flow pairs in a sample.
        weights: ``imagenet``, a name of torchvision's enum such as ``IMAGENET1K_V1``, ``none``, or
            a file: a checkpoint of ``cktrain``, of the original (``rgb_resnet152``,
            ``flow_resnet152``) or a state dict of torchvision.
        dropout: Probability before the classifier; None takes 0.8 (rgb) or 0.7 (flow).
        original_head: The original's heads of 8 outputs, one for each of CK+'s codes 0..7;
            ``num_classes`` must be 8.

    Raises:
        InputError: If the name, a number or the weights do not fit; the message names the keys.

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
    model = _torchvision_model(arch)
    name, num_features = _last_linear(model, arch)
    if original_head:
        head = make_original_head(stream, num_features, dropout=probability)
    else:
        head = nn.Sequential(nn.Dropout(probability), nn.Linear(num_features, num_classes))
    stem = _first_conv(model, arch)
    if stream == "flow":
        conv, num_channels = model.get_submodule(stem), 2 * stack_length
        assert isinstance(conv, nn.Conv2d)
        conv.in_channels = num_channels
        conv.weight = nn.Parameter(cross_modality_stem(conv.weight.detach(), num_channels))
    model.set_submodule(name, head)
    if weights != "none":
        _load(model, arch, weights, stem=stem, head=name)
    return model.to(memory_format=torch.channels_last)


def stem_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the first convolution."""
    stem = _first_conv(model, type(model).__name__, num_channels=None)
    return list(model.get_submodule(stem).parameters())


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


def _torchvision_model(arch: str) -> nn.Module:
    names = zoo.list_models(module=zoo)
    if arch not in names or arch in AUXILIARY_OUTPUTS:
        known = (name for name in names if name not in AUXILIARY_OUTPUTS)
        raise InputError(
            f"arch={arch!r}, expected resnet18, 34, 50, 101 or 152,"
            " or another classifier of torchvision.models with one output\n"
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


def _first_conv(model: nn.Module, arch: str, *, num_channels: int | None = 3) -> str:
    name, module = _leaves(model)[0]
    if not isinstance(module, nn.Conv2d) or (num_channels and module.in_channels != num_channels):
        raise InputError(
            f"arch={arch!r}: its first layer is {type(module).__name__},"
            " expected a Conv2d of 3 channels"
        )
    return name


def _last_linear(model: nn.Module, arch: str) -> tuple[str, int]:
    name, module = _leaves(model)[-1]
    if not isinstance(module, nn.Linear) or module.out_features != IMAGENET_CLASSES:
        raise InputError(
            f"arch={arch!r}: its last layer is {type(module).__name__}, expected a Linear"
        )
    return name, module.in_features


def _load(model: nn.Module, arch: str, weights: str, *, stem: str, head: str) -> None:
    path = Path(weights)
    is_file = path.is_file()
    if not is_file and os.path.lexists(path) and weights != "imagenet":
        raise InputError(f"{path}: is no regular file, expected weights")
    state = read_state_dict(path, head=head) if is_file else torchvision_state_dict(arch, weights)
    kernel = f"{stem}.weight"
    wanted = model.state_dict()[kernel].shape[1]
    # A kernel of other dimensions is named below, with all that does not fit.
    is_kernel = kernel in state and state[kernel].ndim == 4 and state[kernel].is_floating_point()
    num_channels = state[kernel].shape[1] if is_kernel else wanted
    if num_channels not in (wanted, 3):
        raise InputError(
            f"{weights}: {kernel} has {num_channels} channels, expected {wanted} or 3 (rgb)\n"
            "  A flow net of another stack length cannot be used:"
            " choose the stack_length that it was trained with."
        )
    if num_channels != wanted:
        state[kernel] = cross_modality_stem(state[kernel], wanted)
    load_by_name(model, state, origin=weights, head=head)
