"""State dicts from torchvision or a file, loaded by name; what does not fit is named."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import torch
import torchvision.models as zoo
from torch import nn

from models.tensor_file import load_tensors
from shard_builder.errors import InputError
from shard_builder.untrusted.text import clean

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
    content: Any = load_tensors(path, what="weights", sealed=False)
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = content.values() if isinstance(content, dict) else ()
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors):
        raise InputError(f"{path}: holds no state dict, expected names and tensors")
    for name, tensor in content.items():
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise InputError(f"{path}: {clean(name)} is no plain tensor of real numbers")
    state = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    return _from_original(state, head) if ORIGINAL_HEAD_KEY in state else state


def _from_original(state: State, head: str) -> State:
    """Rename the original's head and leave out what the original builds but never uses."""
    stem = state.get("conv1.weight")
    is_flow = stem is not None and stem.ndim == 4 and stem.shape[1] != 3
    rgb_only = ("bn_final.", "fc_final.")  # built, but never called in the flow net
    unused = ("fc.", "fc2.", *(rgb_only if is_flow else ()))
    parts = ("fc_action.", *rgb_only)
    return {
        f"{head}.{name}" if name.startswith(parts) else name: tensor
        for name, tensor in state.items()
        if not name.startswith(unused)
    }


def load_whole(model: nn.Module, state: Any, *, origin: Path) -> None:
    """Load a state dict that must have exactly the model's tensors, in name, shape and type.

    Raises:
        InputError: If it is none, or a tensor differs; the message names the first.
    """
    own = model.state_dict()
    if not isinstance(state, dict) or state.keys() != own.keys():
        names = state.keys() if isinstance(state, dict) else ()
        odd = sorted(map(str, own.keys() ^ names))
        raise InputError(f"{origin}: model: other tensors than the net's: {_listed(odd)}")
    for name, tensor in own.items():
        check_tensor(state[name], like=tensor, place=f"{origin}: model.{name}")
    model.load_state_dict(state)


def check_tensor(value: Any, *, like: torch.Tensor, place: str) -> None:
    """Make sure that a value is a tensor of the same shape, type and layout as another.

    Raises:
        InputError: If it is not.
    """
    expected = f"{like.dtype} {tuple(like.shape)}".removeprefix("torch.")
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{place}: {type(value).__name__}, expected a tensor {expected}")
    if (value.dtype, value.shape, value.layout) != (like.dtype, like.shape, torch.strided):
        actual = f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
        raise InputError(f"{place}: {actual}, expected {expected}")


def load_by_name(model: nn.Module, state: State, *, origin: str, head: str) -> None:
    """Load a state dict; torchvision's own classifier is left out, all else must fit.

    Raises:
        InputError: If keys are missing, unknown or of another shape; the message names them.
    """
    own = model.state_dict()
    origin = clean(origin)
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
    return ", ".join(map(clean, names[:MAX_NAMED_KEYS])) + (f" and {rest} more" if rest > 0 else "")
