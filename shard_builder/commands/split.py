"""``ckshard split``: make a split of a dataset, count it, warn of leaks, write it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from rich.table import Table

from shard_builder.console import make_console
from shard_builder.errors import InputError
from shard_builder.files import write_atomically
from shard_builder.format.index import INDEX_NAME, read_index
from shard_builder.format.manifest import Manifest, read_manifest
from shard_builder.split import (
    Split,
    leaking_subjects,
    read_split,
    split_from_list,
    split_leave_one_subject_out,
    split_original_random,
    split_subject_kfold,
    write_split,
)


def make_split(
    keys: list[str],
    subjects: list[str],
    labels: list[int],
    *,
    kind: str,
    folds: int,
    fold: int,
    subject: str,
    seed: int,
) -> Split:
    """Make a split of any kind; ``kind`` may also be a file: JSON of an earlier split, or a list in
    the original's form.

    Raises:
        InputError: If the kind is unknown, a parameter is out of range, or a file does not fit the
            dataset.
    """
    if kind == "subject-kfold":
        return split_subject_kfold(keys, subjects, num_folds=folds, fold=fold)
    if kind == "loso":
        if not subject:
            raise InputError(
                "loso: no subject given\n  Name the one to validate on with --subject, for instance"
                " --subject " + min(subjects)
            )
        return split_leave_one_subject_out(keys, subjects, subject=subject)
    if kind == "original-random":
        return split_original_random(keys, labels, seed=seed)
    path = Path(kind)
    if not path.is_file():
        raise InputError(
            f"split {kind!r}, expected subject-kfold, loso, original-random or a file (a split's"
            " JSON, or 'path count label' lines)"
        )
    if path.suffix != ".json":
        return split_from_list(keys, path.read_text(encoding="utf-8"), name=path.name)
    split = read_split(path)
    unknown = sorted({*split.train, *split.val} - set(keys))
    if unknown:
        raise InputError(
            f"{path}: {len(unknown)} sequences are not in the dataset, the first is {unknown[0]}"
        )
    return split


def leak_warning(split: Split, subject_of: dict[str, str]) -> str:
    """Return a loud line if subjects are on both sides, else an empty one."""
    leaking = leaking_subjects(split, subject_of)
    if not leaking:
        return ""
    num_val = sum(subject_of[key] in leaking for key in split.val)
    return (
        f"WARNING: {len(leaking)} subjects are in training AND in validation; {num_val} of"
        f" {len(split.val)} validation sequences show a known face. Accuracy on this split is not"
        " accuracy on new people."
    )


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
    made = make_split(
        keys, subjects, labels, kind=kind, folds=folds, fold=fold, subject=subject, seed=seed
    )
    subject_of = dict(zip(keys, subjects, strict=True))
    console = make_console()
    console.print(split_table(made, manifest, dict(zip(keys, labels, strict=True)), subject_of))
    warning = leak_warning(made, subject_of)
    if warning:
        console.print(f"[bold red]{warning}[/]", highlight=False)
    if out:
        write_split(out, made)
        console.print(f"written: {out}", highlight=False)
    if original_format:
        for path in write_original_lists(original_format, made, manifest, batch):
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
