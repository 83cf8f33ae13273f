"""The run folder: what was run (config.json, split.json) and its results (metrics.jsonl, ...)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shard_builder.errors import InputError
from shard_builder.files import write_atomically, write_json
from shard_builder.split import Split, read_split, write_split

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CONFIG_NAME = "config.json"
SPLIT_NAME = "split.json"
METRICS_NAME = "metrics.jsonl"
FIGURES_NAME = "figures"
RUN_FORMAT = "ckshard-run"
RUN_VERSION = 2
SCALARS = (
    *("loss", "accuracy", "val_loss", "val_accuracy", "lr"),
    *("data_wait_pct", "samples_per_s", "grad_norm"),
)


class RunFolder:
    """A run folder being written by the first rank; on the other ranks nothing is written.

    Args:
        path: The folder; it exists and holds config.json.
        is_writer: Whether this rank writes.
    """

    def __init__(self, path: Path, *, is_writer: bool) -> None:
        self.path, self.is_writer = path, is_writer
        self._board: SummaryWriter | None = None
        self._saved_at = time.monotonic()

    def close(self) -> None:
        """Flush TensorBoard's events."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def log(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl and its scalars to TensorBoard."""
        if not self.is_writer:
            return
        with (self.path / METRICS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        board = self.board()
        for name in SCALARS:
            if row.get(name) is not None:
                board.add_scalar(f"{row['kind']}/{name}", row[name], row["step"])

    def board(self) -> SummaryWriter:
        """Return TensorBoard's writer, opened when first used: its import takes a second."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path))
        return self._board

    def note_save(self) -> None:
        """Remember that last.pt has just been written."""
        self._saved_at = time.monotonic()

    def seconds_since_save(self) -> float:
        """Return how long ago last.pt was written, or the folder opened."""
        return time.monotonic() - self._saved_at

    def forget_after(self, *, epoch: int, step: int) -> None:
        """Drop the rows that a killed run wrote after the checkpoint that is resumed from."""

        def is_before(row: dict[str, Any]) -> bool:
            return bool(row["step"] <= step and (row["kind"] != "epoch" or row["epoch"] < epoch))

        file = self.path / METRICS_NAME
        if self.is_writer and file.is_file():
            kept = read_metrics(self.path, keep=is_before)
            write_atomically(file, "".join(json.dumps(row) + "\n" for row in kept).encode())


def check_new(path: Path) -> None:
    """Refuse a folder that holds anything but the leftovers of a run that was killed at its start.

    Raises:
        InputError: If it does, or is a file.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, expected a folder")
    if (path / CONFIG_NAME).is_file():
        raise InputError(
            f"{path}: holds a run already\n  Resume it with resume=True, or choose another folder."
        )
    leftovers = {SPLIT_NAME, f"{SPLIT_NAME}.tmp", f"{CONFIG_NAME}.tmp"}
    if path.is_dir() and {entry.name for entry in path.iterdir()} - leftovers:
        raise InputError(f"{path}: is not empty, expected a new folder")


def create_run(path: Path, record: dict[str, Any], split: Split) -> None:
    """Make a run folder; config.json is written last."""
    path.mkdir(parents=True, exist_ok=True)
    write_split(path / SPLIT_NAME, split)
    _write_config(path, record | {"earlier_commands": []})


def update_run(path: Path, record: dict[str, Any]) -> None:
    """Write what a resumed run is now; the commands it was run with before are kept."""
    before, _ = read_run(path)
    commands = [*before.get("earlier_commands", []), before["command"]]
    _write_config(path, record | {"earlier_commands": commands})


def _write_config(path: Path, record: dict[str, Any]) -> None:
    write_json(path / CONFIG_NAME, {"format": RUN_FORMAT, "version": RUN_VERSION, **record})


def read_run(path: Path) -> tuple[dict[str, Any], Split]:
    """Read config.json and split.json of a run.

    Raises:
        InputError: If the folder is no run, or one of another version.
    """
    file = path / CONFIG_NAME
    if not file.is_file():
        raise InputError(
            f"{path}: not a run: no {CONFIG_NAME} in it\n"
            f"  Train first: cktrain rgb|flow DATASET --out {path}"
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: is not JSON ({error})") from None
    expected = {"format": RUN_FORMAT, "version": RUN_VERSION}
    if not isinstance(record, dict) or not record.items() >= expected.items():
        raise InputError(f"{file}: expected format {RUN_FORMAT!r} and version {RUN_VERSION}")
    return record, read_split(path / SPLIT_NAME)


def read_metrics(
    path: Path, *, keep: Callable[[dict[str, Any]], bool] = bool
) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl; a last line that a kill cut short is left out."""
    file = path / METRICS_NAME
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [row for row in rows if keep(row)]
