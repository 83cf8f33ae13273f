"""``ckshard split``: make a split of a dataset, count it, warn of leaks, write it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from rich.table import Table

from shard_builder.console import make_console
from shard_builder.files import write_atomically
from shard_builder.format.index import INDEX_NAME, read_index
from shard_builder.format.manifest import Manifest, read_manifest
from shard_builder.split import Split, leak_warning, make_split, write_split


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Key, subject and label of each row of an index."""

    keys: list[str]
    subjects: list[str]
    labels: list[int]


def run_split(
    dataset: Path,
    *,
    kind: str,
    folds: int,
    fold: int,
    subject: str,
    seed: int,
    out: Path | None,
    original_format: Path | None,
) -> None:
    """Make, print and write a split."""
    manifest = read_manifest(dataset)
    batch = read_index(dataset / INDEX_NAME, streams=manifest.streams)
    keys, subjects, labels = (
        batch.column(name).to_pylist() for name in ("key", "subject", "label")
    )
    split = make_split(
        Sequences(keys=keys, subjects=subjects, labels=labels),
        kind,
        folds=folds,
        fold=fold,
        subject=subject,
        seed=seed,
    )
    subject_of = dict(zip(keys, subjects, strict=True))
    console = make_console()
    console.print(split_table(split, manifest, dict(zip(keys, labels, strict=True)), subject_of))
    warning = leak_warning(split, subject_of)
    if warning:
        console.print(f"[bold red]{warning}[/]", highlight=False)
    if out:
        write_split(out, split)
        console.print(f"written: {out}", highlight=False)
    if original_format:
        for path in write_original_lists(original_format, split, manifest, batch):
            console.print(f"written: {path}", highlight=False)


def split_table(
    split: Split, manifest: Manifest, label_of: dict[str, int], subject_of: dict[str, str]
) -> Table:
    """Tabulate sequences and subjects of both sides by class."""
    made_with = ", ".join(f"{name} {value}" for name, value in split.parameters.items())
    table = Table(title=f"{split.kind} ({made_with})")
    table.add_column("class")
    sides = (("train", split.train), ("val", split.val))
    for name, _ in sides:
        table.add_column(name, justify="right")
    for entry in manifest.classes:
        table.add_row(
            entry.name,
            *(str(sum(label_of[key] == entry.label for key in side)) for _, side in sides),
        )
    table.add_section()
    table.add_row("sequences", *(str(len(side)) for _, side in sides))
    table.add_row("subjects", *(str(len({subject_of[key] for key in side})) for _, side in sides))
    return table


def write_original_lists(
    folder: Path, split: Split, manifest: Manifest, batch: pa.RecordBatch
) -> list[Path]:
    """Write ``{train,val}_{rgb,flow}_split.txt``, ``path count label`` a line, with the paths of
    ``ckshard prepare``'s trees.

    Source: two_stream_for_emotion_recognition, datasets/split.py; flow paths end in ``/x_flow``,
        labels are CK+'s codes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    codes = [entry.code for entry in manifest.classes]
    columns = (
        batch.column(name).to_pylist() for name in ("key", "label", "num_frames", "num_pairs")
    )
    facts = {
        key: (codes[label], frames, pairs)
        for key, label, frames, pairs in zip(*columns, strict=True)
    }
    written = []
    for side, keys in (("train", split.train), ("val", split.val)):
        for stream in ("rgb", "flow"):
            lines = []
            for key in keys:
                code, num_frames, num_pairs = facts[key]
                tail, count = ("", num_frames) if stream == "rgb" else ("/x_flow", num_pairs)
                lines.append(f"{stream}/{code}/{key}{tail} {count} {code}\n")
            path = folder / f"{side}_{stream}_split.txt"
            write_atomically(path, "".join(lines).encode())
            written.append(path)
    return written
