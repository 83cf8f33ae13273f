"""What tests of strangers' folders share: programs, marks, changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from tests.system.mutations.datasets import read_table, rehash, write_table

PROGRAMS = {"ckshard": "shard_builder.cli", "cktrain": "train.cli"}
MARK = "victim-5f1d2c"


Cli = Callable[..., tuple[int, str]]


def edit_json(path: Path, edit: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def set_column(dataset: Path, name: str, values: list[object], *, nullable: bool = False) -> None:
    table = read_table(dataset)
    field = table.schema.field(name).with_nullable(nullable)
    array = pa.array(values, field.type)
    write_table(dataset, table.set_column(table.column_names.index(name), field, array))
    rehash(dataset)
