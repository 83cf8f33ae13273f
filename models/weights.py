"""State dicts from torchvision or a file, loaded by name; what does not fit is named."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import torch
import torchvision.models as zoo
from torch import nn

from shard_builder.errors import InputError

State = dict[str, torch.Tensor]
MAX_NAMED_KEYS = 6
ORIGINAL_HEAD_KEY = "fc_action.weight"


def torchvision_state_dict(arch: str, weights: str) -> State:
    """Return pretrained weights, downloaded once; ``imagenet`` means the enum's default.

    Raises:
        InputError: If the enum has no such entry, or the download fails.
    """
    enum = zoo.get_model_weights(arch)
    known = [entry.name for entry in enum]
    if weights != "imagenet" and weights not in known:
        raise InputError(
            f"weights={weights!r}: no such file,"
            f" expected imagenet, none, {', '.join(known)} or a file of weights"
        )
    entry = enum.DEFAULT if weights == "imagenet" else enum[weights]
    try:
        return dict(entry.get_state_dict(progress=False, check_hash=True))
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"weights={weights!r}: {entry.url} cannot be downloaded ({error})\n"
            f"  Copy it into {torch.hub.get_dir()}/checkpoints,"
            " or pass a file of weights, or weights='none'."
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
            f"{path}: cannot be read as weights ({reason}), expected a file of torch.save"
        ) from None
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = content.values() if isinstance(content, dict) else ()
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors):
        raise InputError(f"{path}: holds no state dict, expected names and tensors")
    state = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    return _from_original(state, head) if ORIGINAL_HEAD_KEY in state else state


def _from_original(state: State, head: str) -> State:
    """Rename the original's head and leave out what the original builds but never uses."""
    is_flow = "conv1.weight" in state and state["conv1.weight"].shape[1] != 3
    rgb_only = ("bn_final.", "fc_final.")  # built, but never called in the flow net
    unused = ("fc.", "fc2.", *(rgb_only if is_flow else ()))
    parts = ("fc_action.", *rgb_only)
    return {
        f"{head}.{name}" if name.startswith(parts) else name: tensor
        for name, tensor in state.items()
        if not name.startswith(unused)
    }


def load_by_name(model: nn.Module, state: State, *, origin: str, head: str) -> None:
    """Load a state dict; torchvision's own classifier is left out, all else must fit.

    Raises:
        InputError: If keys are missing, unknown or of another shape; the message names them.
    """
    own = model.state_dict()
    classifier = {f"{head}.weight", f"{head}.bias"}  # a bare Linear in the head's place
    given = {name: tensor for name, tensor in state.items() if name not in classifier}
    is_pretrained_elsewhere = len(given) < len(state)
    missing = [
        name
        for name in own
        if name not in given
        and not (is_pretrained_elsewhere and name.startswith(f"{head}."))
        and not name.endswith("num_batches_tracked")
    ]
    unknown = [name for name in given if name not in own]
    shapes = [
        f"{name} {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in given.items()
        if name in own and own[name].shape != tensor.shape
    ]
    faults = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    lines = [f"  {len(names)} {what}: {_listed(names)}" for what, names in faults.items() if names]
    if lines:
        advice = (
            "  Check arch, stack_length, and original_head=True for the original's checkpoints."
        )
        text = "\n".join([*lines, advice])
        raise InputError(f"weights={origin!r}: does not fit this net\n{text}")
    model.load_state_dict(given, strict=False)


def _listed(names: list[str]) -> str:
    rest = len(names) - MAX_NAMED_KEYS
    return ", ".join(names[:MAX_NAMED_KEYS]) + (f" and {rest} more" if rest > 0 else "")
