"""``ckshard split``: make a split of a dataset, count it, warn of leaks, write it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.table import Table

from shard_builder.checks import check_path, check_targets
from shard_builder.commands.transfer import folder_to_read
from shard_builder.console import make_console, make_table
from shard_builder.files import write_atomically
from shard_builder.format.index import INDEX_NAME, read_index
from shard_builder.format.manifest import Manifest, read_manifest
from shard_builder.split import Split, folds_notice, leak_warning, make_split, write_split

COLUMNS = ["key", "label", "num_frames", "num_pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """What a split is made of: columns of an index."""

    keys: list[str]
    subjects: list[str]
    labels: list[int]
    folds: list[str]
    sources: list[str]


def run_split(dataset: Path, *, out: Path | None, original_format: Path | None, **how: Any) -> None:
    """Make, print and write a split; ``how`` are the arguments of ``make_split``."""
    check_targets(out)
    if original_format:
        check_path(original_format)
    with folder_to_read(dataset, whole=False) as folder:
        manifest = read_manifest(folder)
        batch = read_index(folder / INDEX_NAME, streams=manifest.streams, version=manifest.version)
    names = ("key", "subject", "label", "fold", "source")
    columns = {f"{name}s": batch.column(name).to_pylist() for name in names}
    sequences = Sequences(**columns)
    split = make_split(sequences, **how)
    subject_of = dict(zip(sequences.keys, sequences.subjects, strict=True))
    label_of = dict(zip(sequences.keys, sequences.labels, strict=True))
    console = make_console()
    console.print(split_table(split, manifest, label_of, subject_of))
    if how["kind"] == split.kind and (notice := folds_notice(split, folds=how["folds"])):
        console.print(notice)
    if warning := leak_warning(split, subject_of, has_subjects=manifest.has_subjects):
        console.print(warning, style="bold red")
    if out:
        write_split(out, split)
        console.print(f"written: {out}")
    if original_format:
        for path in write_original_lists(original_format, split, manifest, batch):
            console.print(f"written: {path}")


def split_table(
    split: Split, manifest: Manifest, label_of: dict[str, int], subject_of: dict[str, str]
) -> Table:
    """Tabulate sequences and subjects of both sides by class."""
    parameters = ", ".join(f"{name} {value}" for name, value in split.parameters.items())
    sides = [split.train, split.val, *([split.test] if split.test else [])]
    names = ("train", "val", "test")[: len(sides)]
    title = f"{split.kind} ({parameters})" if parameters else split.kind
    table = make_table(title, "class", *names)
    for entry in manifest.classes:
        counts = (sum(label_of[key] == entry.label for key in side) for side in sides)
        table.add_row(entry.name, *map(str, counts))
    table.add_section()
    table.add_row("sequences", *(str(len(side)) for side in sides))
    if manifest.has_subjects:
        table.add_row("subjects", *(str(len({subject_of[key] for key in side})) for side in sides))
    return table


def write_original_lists(
    folder: Path, split: Split, manifest: Manifest, batch: pa.RecordBatch
) -> list[Path]:
    """Write the original's four lists, ``{train,val}_{rgb,flow}_split.txt``, and of a third part.

    A line is ``path count label``, with the paths of ``ckshard prepare``'s trees.

    Source: two_stream_for_emotion_recognition, datasets/split.py; flow paths end in ``/x_flow``,
        labels are CK+'s codes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row_of = {row["key"]: row for row in batch.select(COLUMNS).to_pylist()}
    written = []
    sides = [("train", split.train), ("val", split.val)]
    for side, keys in [*sides, *([("test", split.test)] if split.test else [])]:
        for stream, tail, count in (("rgb", "", "num_frames"), ("flow", "/x_flow", "num_pairs")):
            lines = []
            for row in (row_of[key] for key in keys):
                code = manifest.classes[row["label"]].code
                lines.append(f"{stream}/{code}/{row['key']}{tail} {row[count]} {code}\n")
            path = folder / f"{side}_{stream}_split.txt"
            write_atomically(path, "".join(lines).encode())
            written.append(path)
    return written
