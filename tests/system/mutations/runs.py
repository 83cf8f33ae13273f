"""Mutations of a run folder: its records, its checkpoints, its links."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.system.mutations.box import Victims
from tests.system.mutations.files import EXTREMES, HOSTILE_TEXT, OTHER_TYPES, mutate_file, places_in


def mutate_run(draw: random.Random, run: Path, victims: Victims) -> str:
    """Mutate one thing of a run; returns the class of the mutation."""
    kind = draw.choice(["file"] * 6 + list(KINDS))
    if kind == "file":
        return mutate_any_file(draw, run, victims)
    KINDS[kind](draw, run, victims)
    return kind


def mutate_any_file(draw: random.Random, folder: Path, victims: Victims) -> str:
    """Mutate one file below a folder; returns the class of the mutation and the file's name."""
    path = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    kind = mutate_file(draw, path, victims)
    return f"{kind} {'events' if path.name.startswith('events') else path.name}"


def _checkpoint(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    return content


def save_sealed(path: Path, content: dict[str, Any]) -> None:
    """Save a checkpoint with the checksum that belongs to it."""
    from train.running import checkpoint

    plain = {k: v for k, v in content.items() if k not in ("format", "version")}
    path.unlink()
    checkpoint.write_checkpoint(path, plain)


def _edit_checkpoint(draw: random.Random, run: Path, victims: Victims) -> None:
    """Change a value of the checkpoint, sealed again: only its schema can tell."""
    content = _checkpoint(run)
    places = [
        (where, key)
        for where, key in places_in(content)
        if not isinstance(where[key], torch.Tensor)
    ]
    where, key = draw.choice(places)
    if draw.random() < 0.2:
        del where[key]
    else:
        where[key] = draw.choice((*EXTREMES, *OTHER_TYPES, *HOSTILE_TEXT))
    save_sealed(run / "last.pt", content)


def _weights(draw: random.Random, run: Path, victims: Victims) -> None:
    """Change a tensor: its values, shape, type or strides."""
    content = _checkpoint(run)
    model = content["model"]
    name = draw.choice(list(model))
    tensor = model[name]
    model[name] = draw.choice(
        (
            torch.full_like(tensor, float("nan")),
            torch.full_like(tensor, float("inf")),
            tensor[None],
            tensor.flatten()[:1],
            tensor.to(torch.complex64),
            tensor.to(torch.int64),
            torch.zeros(1).expand(1 << 40),
            torch.empty(0),
            tensor.to_sparse(),
            "text",
        )
    )
    save_sealed(run / "last.pt", content)


def _rezip(draw: random.Random, run: Path, victims: Victims) -> None:
    """Pack a checkpoint again: compressed, with an entry that swells, or repeated."""
    path = run / "last.pt"
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    kind = draw.choice(("bomb", "deflated", "twice", "huge-entry"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            data = source.read(entry)
            method = zipfile.ZIP_STORED if kind in ("twice", "huge-entry") else zipfile.ZIP_DEFLATED
            if kind == "bomb" and entry.filename.endswith("data/0"):
                with target.open(entry.filename, "w", force_zip64=True) as file:
                    for _ in range(48):
                        file.write(bytes(1 << 26))
                continue
            target.writestr(entry.filename, data, method)
    if kind == "huge-entry":
        data = bytearray(path.read_bytes())
        at = data.rfind(b"PK\x01\x02")
        data[at + 20 : at + 28] = b"\xf0\xff\xff\x7f" * 2
        path.write_bytes(data)


def _folder_link(draw: random.Random, run: Path, victims: Victims) -> None:
    """A folder of the run is a link to one outside that holds the same."""
    folder = draw.choice([run / "test", run / "figures"])
    for path in sorted(folder.iterdir()):
        victims.add(f"{folder.name}/{path.name}", path.read_bytes())
        path.unlink()
    folder.rmdir()
    folder.symlink_to(victims.folder / folder.name)


def _folder_gone(draw: random.Random, run: Path, victims: Victims) -> None:
    """No test yet, and links where it will be written."""
    for path in sorted((run / "test").iterdir()):
        path.unlink()
    for name in ("test.json", "scores.parquet", "predictions.jsonl", "confusion-rgb.png"):
        (run / "test" / name).symlink_to(victims.add(f"written/{name}", b"keep me"))


KINDS: dict[str, Callable[[random.Random, Path, Victims], None]] = {
    "checkpoint-value": _edit_checkpoint,
    "checkpoint-weights": _weights,
    "checkpoint-zip": _rezip,
    "folder-link": _folder_link,
    "folder-gone": _folder_gone,
}
