"""State dicts from torchvision or a file, loaded by name; what does not fit is named."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import torch
import torchvision.models as zoo
from torch import nn

from models.heads import SEED_FLOW_UNUSED
from shard_builder.errors import InputError

State = dict[str, torch.Tensor]
MAX_NAMED_KEYS = 6
ORIGINAL_HEAD_KEY = "fc_action.weight"


def torchvision_state_dict(arch: str, weights: str) -> State:
    """Return pretrained weights of torchvision, downloaded once; ``imagenet`` means the enum's
    default.

    Raises:
        InputError: If the enum has no such entry, or the download fails.
    """
    enum = zoo.get_model_weights(arch)
    known = [entry.name for entry in enum]
    if weights != "imagenet" and weights not in known:
        raise InputError(
            f"--weights {weights!r}: no such file, expected imagenet, none, {', '.join(known)} or a"
            " file of weights"
        )
    entry = enum.DEFAULT if weights == "imagenet" else enum[weights]
    try:
        return dict(entry.get_state_dict(progress=False, check_hash=True))
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"--weights {weights}: {entry.url} cannot be downloaded ({error})\n  Copy it into"
            f" {torch.hub.get_dir()}/checkpoints, or pass --weights FILE, or --weights none."
        ) from None


def read_state_dict(path: Path, *, head: str) -> State:
    """Read a state dict: a checkpoint of ``cktrain``, of the original, or a plain one.

    Args:
        path: The file.
        head: Name of the model's head; the original's head modules are found under it.

    Raises:
        InputError: If the file holds no state dict, or something other than tensors and plain
            values.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a foreign file makes torch.load raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"--weights {path}: cannot be read as weights ({reason}), expected a file of torch.save"
        ) from None
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        raise InputError(f"--weights {path}: holds no state dict, expected names and tensors")
    state = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    return _from_original(state, head) if ORIGINAL_HEAD_KEY in state else state


def _from_original(state: State, head: str) -> State:
    """Rename the original's head and leave out what the original builds but never uses."""
    is_flow = state["conv1.weight"].shape[1] != 3 if "conv1.weight" in state else False
    unused = ("fc.", "fc2.", *(SEED_FLOW_UNUSED if is_flow else ()))
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    parts = ("fc_action.", "bn_final.", "fc_final.")
    return {
        f"{head}.{name}" if name.startswith(parts) else name: tensor
        for name, tensor in kept.items()
    }


def load_by_name(model: nn.Module, state: State, *, origin: str, head: str) -> None:
    """Load a state dict; torchvision's 1000-class head is left out, every other difference is an
    error.

    Raises:
        InputError: If keys are missing, unknown or of another shape; the message names them.
    """
    own = model.state_dict()
    foreign_head = {
        f"{head}.weight",
        f"{head}.bias",
    }  # torchvision's own classifier: a bare Linear in the head's place
    given = {name: tensor for name, tensor in state.items() if name not in foreign_head}
    is_pretrained_elsewhere = len(given) < len(state)
    missing = [
        name
        for name in own
        if name not in given
        and not (is_pretrained_elsewhere and name.startswith(f"{head}."))
        and not name.endswith("num_batches_tracked")
    ]
    unknown = [name for name in given if name not in own]
    shapes = [name for name in given if name in own and own[name].shape != given[name].shape]
    lines = []
    for what, names in (("missing", missing), ("unknown", unknown)):
        if names:
            lines.append(f"{len(names)} {what}: {_listed(names)}")
    if shapes:
        named = [
            f"{name} {tuple(given[name].shape)}, expected {tuple(own[name].shape)}"
            for name in shapes
        ]
        lines.append(f"{len(shapes)} of another shape: {_listed(named)}")
    if lines:
        raise InputError(
            f"--weights {origin}: does not fit this net\n  " + "\n  ".join(lines) + "\n"
            "  Check --arch, --stack-length, and --original-head for the original's checkpoints."
        )
    model.load_state_dict(given, strict=False)


def _listed(names: list[str]) -> str:
    rest = len(names) - MAX_NAMED_KEYS
    return ", ".join(names[:MAX_NAMED_KEYS]) + (f" and {rest} more" if rest > 0 else "")
