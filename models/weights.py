"""State dicts from torchvision or a file, loaded by name; what does not fit is named."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision.models as zoo
from torch import nn

from models.tensor_file import load_tensors
from shard_builder.errors import InputError
from shard_builder.files import digest_file
from shard_builder.untrusted.text import clean

State = dict[str, torch.Tensor]
MAX_NAMED_KEYS = 6
ORIGINAL_HEAD_KEY = "fc_action.weight"
COUNTER = "num_batches_tracked"
"""Of BatchNorm; older files have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """Weights and what is known of the net they come from.

    Args:
        state: Tensors by the names of the net.
        is_file: Whether they come from a file.
        arch: Name of the net; empty if the file does not say.
        classes: Names of its outputs; empty if the file does not say.
    """

    state: State
    is_file: bool = False
    arch: str = ""
    classes: tuple[str, ...] = ()

    def check_arch(self, arch: str, *, origin: str) -> None:
        """Make sure that they are of a net of this name; timm's and torchvision's may share one.

        Raises:
            InputError: If the file says that they are of another.
        """
        if self.arch and _bare_name(self.arch) != _bare_name(arch):
            raise InputError(
                f"weights={clean(origin)!r} are of {clean(self.arch)}, but arch={arch!r} is asked"
                f" for\n  Choose that arch, or weights of {arch}."
            )

    def has_other_classes(self, class_names: Sequence[str]) -> bool:
        """Return whether its outputs are known to be of other classes, or in another order."""
        return bool(self.classes and class_names) and self.classes != tuple(class_names)


def _bare_name(arch: str) -> str:
    name = arch.removeprefix("timm/").partition(".")[0]
    return name.removeprefix("rgb_").removeprefix("flow_")  # as the original calls its nets


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


def weights_sha256(weights: str) -> str | None:
    """Return the SHA-256 of a file of weights; None if they are named otherwise."""
    return digest_file(Path(weights)).sha256 if Path(weights).is_file() else None


def read_weights(path: Path, *, head: str) -> Pretrained:
    """Read weights: a checkpoint of ``cktrain``, of the original, or a plain state dict.

    Args:
        path: The file.
        head: Name of the model's head; the original's head modules are found under it.

    Raises:
        InputError: If the file holds no state dict, or something other than tensors and plain
            values.
    """
    content: Any = load_tensors(path, what="weights", sealed=False)
    arch = content.get("arch") if isinstance(content, dict) else None
    classes = content.get("classes") if isinstance(content, dict) else None
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
    is_named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return Pretrained(
        state=_from_original(state, head) if ORIGINAL_HEAD_KEY in state else state,
        is_file=True,
        arch=arch if isinstance(arch, str) else "",
        classes=tuple(classes) if classes and is_named else (),
    )


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
    check_whole(model, state, origin=origin)
    model.load_state_dict(state)


def check_whole(model: nn.Module, state: Any, *, origin: Path) -> None:
    """Make sure that a state dict has exactly the model's tensors, in name, shape and type.

    Args:
        model: May lie on the device ``meta``, where it takes no memory.
        state: Of a file.
        origin: The file.

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


def load_by_name(
    model: nn.Module,
    state: State,
    *,
    origin: str,
    head: str,
    keep_head: bool = True,
    on_notice: Callable[[str], None],
) -> None:
    """Load a state dict; a head that is not the model's is left out, all else must fit.

    Args:
        model: The net.
        state: Tensors by name.
        origin: Where they come from.
        head: Name of the model's head.
        keep_head: Whether a head that fits is taken.
        on_notice: Called with a line if the head of ``state`` is not taken.

    Raises:
        InputError: If keys are missing, unknown or of another shape; the message names them.
    """
    own = model.state_dict()
    origin = clean(origin)
    own_head, given_head = (_shapes_of_head(tensors, head) for tensors in (own, state))
    is_kept = keep_head and given_head == own_head
    given = {n: t for n, t in state.items() if is_kept or not n.startswith(f"{head}.")}
    missing = [
        name
        for name in own
        if name not in given and (is_kept or name not in own_head) and not name.endswith(COUNTER)
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
    if not is_kept:
        on_notice(
            f"{origin}: {_head_in_words(given_head, own_head)}:"
            f" the head starts anew, the body's {len(given)} tensors are taken"
        )


def _shapes_of_head(state: State, head: str) -> dict[str, torch.Size]:
    return {
        name: tensor.shape
        for name, tensor in state.items()
        if name.startswith(f"{head}.") and not name.endswith(COUNTER)
    }


def _head_in_words(given: dict[str, torch.Size], own: dict[str, torch.Size]) -> str:
    theirs, ours = ({s[0] for s in shapes.values() if len(s) == 2} for shapes in (given, own))
    if not theirs:
        return "holds no head"
    if theirs == ours:
        return "its head is of other classes or another kind"
    return f"its head has {max(theirs)} outputs, this net {max(ours)}"


def _listed(names: list[str]) -> str:
    rest = len(names) - MAX_NAMED_KEYS
    return ", ".join(map(clean, names[:MAX_NAMED_KEYS])) + (f" and {rest} more" if rest > 0 else "")
