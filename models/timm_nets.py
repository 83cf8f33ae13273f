"""Nets of the library timm: made by a name that it knows, with its pretrained weights.

Only names of its registry are taken: it would also take addresses of files and of models on a hub,
and a name may stand in a stranger's checkpoint.
"""

from __future__ import annotations

import logging
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from shard_builder.errors import InputError
from shard_builder.untrusted.text import clean

PREFIX = "timm/"
IMAGE_SIZE = 224
"""Height and width of every crop, in pixels."""
IMAGENET_CLASSES = 1000
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def is_timm(arch: str) -> bool:
    """Return whether a net is timm's: ``timm/NAME`` or ``timm/NAME.TAG``."""
    return arch.startswith(PREFIX)


def make_timm_net(arch: str, *, num_channels: int) -> nn.Module:
    """Make a net with random weights, for images of 224 x 224.

    Args:
        arch: ``timm/NAME``.
        num_channels: Of its images.

    Raises:
        InputError: If timm knows no such net, or it takes images of another size only.
    """
    import timm

    name = _known_name(arch)
    config = timm.models.get_pretrained_cfg(name)
    size = tuple(config.input_size[1:]) if config is not None else ()
    if config is not None and config.fixed_input_size and size != (IMAGE_SIZE, IMAGE_SIZE):
        raise InputError(
            f"arch={arch!r} takes images of {size[1]} x {size[0]} pixels only,"
            f" expected a net for {IMAGE_SIZE} x {IMAGE_SIZE}"
        )
    net: nn.Module = timm.create_model(name, num_classes=IMAGENET_CLASSES, in_chans=num_channels)
    return net


def timm_classifier(net: nn.Module) -> str | None:
    """Return the name of the one Linear that makes the logits; None if it is no such layer."""
    classifier: Any = net.get_classifier()  # type: ignore[operator]
    names = (name for name, module in net.named_modules() if module is classifier)
    return next(names, None) if isinstance(classifier, nn.Linear) else None


def timm_first_conv(net: nn.Module) -> str | None:
    """Return the name of the first convolution of a net of timm; None if it is none, or has two."""
    config = getattr(net, "pretrained_cfg", None)
    name = config.get("first_conv") if isinstance(config, dict) else None
    return name if isinstance(name, str) else None


def timm_state_dict(arch: str) -> dict[str, torch.Tensor]:
    """Return a net's own pretrained weights, downloaded once from the hub that timm names.

    Raises:
        InputError: If it has none, or the download fails.
    """
    import timm

    name = _known_name(arch)
    advice = "Pass a file of weights, or weights='none'."
    if not (config := timm.models.get_pretrained_cfg(name)) or not config.has_weights:
        raise InputError(f"weights='imagenet': {arch} has no pretrained weights\n  {advice}")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # one line below says it
    try:
        net = timm.create_model(name, pretrained=True, num_classes=IMAGENET_CLASSES)
    except (OSError, RuntimeError) as error:
        reason = clean(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise InputError(
            f"weights='imagenet': those of {arch} cannot be downloaded ({reason})\n  {advice}"
        ) from None
    return dict(net.state_dict())


def foreign_statistics(arch: str) -> str | None:
    """Say with which mean and deviation a net was pretrained; None if they are ImageNet's."""
    import timm

    config = timm.models.get_pretrained_cfg(_known_name(arch))
    if config is None or (tuple(config.mean), tuple(config.std)) == IMAGENET_STATISTICS:
        return None
    return f"mean {tuple(config.mean)}, deviation {tuple(config.std)}"


def _known_name(arch: str) -> str:
    import timm

    name = arch.removeprefix(PREFIX)
    base, _, tag = name.partition(".")
    is_model = timm.is_model(base)
    tags = timm.list_pretrained(base) if is_model else []
    if is_model and (not tag or name in tags):
        return name
    known = tags if is_model else get_close_matches(base, timm.list_models(), n=6)
    raise InputError(
        f"arch={arch!r}, expected timm/ and a net of timm\n"
        f"  Known: {', '.join(known[:12]) or 'timm.list_models() lists them'}"
    )
