"""Where a net looks: Grad-CAM of an answer, laid over what the net was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipelines.streams import kind_of
from shard_builder.errors import InputError
from shard_builder.images import Image
from shard_builder.inspection.flow_picture import flow_to_rgb
from shard_builder.untrusted.text import plain_label
from train.figures import INK, make_figure, save_figure
from train.prediction.stream_model import StreamModel
from train.prediction.window_predictor import WindowPrediction

NUM_WINDOWS = 6
"""Columns of a clip's picture."""


def check_explainable(models: Sequence[StreamModel]) -> None:
    """Make sure that answers can be explained.

    Raises:
        InputError: If captum is not installed, or a net runs elsewhere than in torch.
    """
    try:
        import captum.attr  # noqa: F401
    except ImportError:
        raise InputError(
            "Grad-CAM needs captum\n  Install it: pip install 'ckshard[explain]'"
        ) from None
    for model in models:
        if not isinstance(model.net, nn.Module):
            raise InputError(
                f"{model.run}: Grad-CAM needs gradients, which onnxruntime has not\n"
                "  Take the run folder, or export with --format torch."
            )


def grad_cam(
    model: StreamModel, images: torch.Tensor, labels: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Compute what speaks for a class, and where.

    Args:
        model: A net that :func:`check_explainable` took.
        images: Normalised (N, C, 224, 224).
        labels: For each of them the class that is explained.

    Returns:
        ``float32`` (N, 224, 224), 0 (nothing) to 1 (most in this sample).

    Raises:
        InputError: If the net has no layer of feature maps.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017; the last feature maps, as there.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    assert isinstance(model.net, nn.Module)
    images = images.to(model.device)
    outputs = torch.tensor([model.content.output_of_class[n] for n in labels], device=model.device)
    layer = _last_feature_maps(model, images[:1])
    with torch.enable_grad():
        maps = LayerGradCam(model.net, layer).attribute(
            images, target=outputs, relu_attributions=True
        )
    maps = LayerAttribution.interpolate(maps.detach(), images.shape[2:], "bilinear")[:, 0]
    most = maps.amax(dim=(1, 2), keepdim=True)
    heat: npt.NDArray[np.float32] = (maps / most.clamp(min=1e-12)).float().cpu().numpy()
    return heat


def _last_feature_maps(model: StreamModel, images: torch.Tensor) -> nn.Module:
    """Return the module that is done last of those that give feature maps (N, K, h, w)."""
    found: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        shape = output.shape if isinstance(output, torch.Tensor) else ()
        if len(shape) == 4 and 1 < shape[2] == shape[3]:  # else its channels come last
            found.append(module)

    assert isinstance(model.net, nn.Module)
    hooks = [module.register_forward_hook(note) for module in model.net.modules()]
    try:
        with torch.no_grad():
            model.net(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        arch = model.content.arch
        raise InputError(f"{model.run}: {arch} has no layer of feature maps, which Grad-CAM needs")
    return found[-1]


def overlays(model: StreamModel, images: torch.Tensor, labels: Sequence[int]) -> list[Image]:
    """Return what a net was shown with Grad-CAM over it, RGB (224, 224, 3).

    Of a flow window the pair in its middle is shown, coloured as in ``ckshard inspect``.

    Args:
        model: See :func:`grad_cam`; so are the others.
        images: Normalised (N, C, 224, 224).
        labels: The class that is explained in each.
    """
    pictures = []
    for image, heat in zip(images.cpu(), grad_cam(model, images, labels), strict=True):
        shown = _picture(model, image.float().numpy()).astype(np.float32)
        warm = cv2.applyColorMap((255 * heat).round().astype(np.uint8), cv2.COLORMAP_JET)
        weight = 0.6 * heat[..., None]
        mixed = shown * (1 - weight) + warm[..., ::-1] * weight
        pictures.append(mixed.round().astype(np.uint8))
    return pictures


def _picture(model: StreamModel, image: npt.NDArray[np.float32]) -> Image:
    kind = kind_of(model.stream)
    mean, deviation = (np.array(v, np.float32)[:, None, None] for v in (kind.mean, kind.deviation))
    levels = (255 * (image * deviation + mean)).round().clip(0, 255).astype(np.uint8)
    if not kind.has_pairs:
        return np.ascontiguousarray(levels.transpose(1, 2, 0))
    middle = len(levels) // 4 * 2
    pair = np.concatenate([levels[middle], levels[middle + 1]])
    return flow_to_rgb(pair, bound_px=model.bound_px)[0]


class ClipExplanation:
    """What the nets saw in a few windows, evenly spaced, of a clip of unknown length.

    Args:
        models: One model, or an rgb and a flow model.
    """

    def __init__(self, models: Sequence[StreamModel]) -> None:
        self._models = models
        self._seen: list[tuple[WindowPrediction, Mapping[str, list[Image]]]] = []
        self._step = 1

    def offer(self, window: WindowPrediction, seen: Mapping[str, list[Image]]) -> None:
        """Keep a window and what each stream's model saw of it, if it is in the spacing."""
        if window.window % self._step:
            return
        self._seen.append((window, seen))
        if len(self._seen) >= 4 * NUM_WINDOWS:
            self._seen = self._seen[::2]
            self._step *= 2

    def write(self, path: Path, *, class_names: Sequence[str], title: str) -> None:
        """Draw a column for each window and a row for each stream, and write a PNG."""
        last = len(self._seen) - 1
        chosen = np.linspace(0, last, min(NUM_WINDOWS, last + 1)).round().astype(int)
        windows = [self._seen[n] for n in chosen]
        labels = [int(window.decision.argmax()) for window, _ in windows]
        figure = make_figure(0.5 + 2.1 * len(windows), 0.9 + 2.2 * len(self._models))
        cells = figure.subplots(len(self._models), len(windows), squeeze=False)
        for row, model in zip(cells, self._models, strict=True):
            images = torch.cat([model.images_of(seen[model.stream]) for _, seen in windows])
            pictures = overlays(model, images, labels)
            for cell, picture, (window, _), label in zip(
                row, pictures, windows, labels, strict=True
            ):
                cell.imshow(picture)
                cell.set_xticks([])
                cell.set_yticks([])
                share = f"{window.probs[model.stream][label]:.0%}"
                name = plain_label(class_names[label])
                cell.set_title(f"{window.frames}\n{name} {share}", fontsize=8, color=INK)
            row[0].set_ylabel(model.stream, color=INK)
        figure.suptitle(plain_label(title, most=90), fontsize=10, x=0.01, ha="left", color=INK)
        save_figure(figure, path)
