"""The run folder: what was run (config.json, split.json) and its results (metrics.jsonl, ...)."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from shard_builder.errors import InputError
from shard_builder.files import (
    TEMPORARY_NAME,
    Sha256,
    append_regular,
    is_regular,
    read_regular,
    remove_temporaries,
    write_atomically,
    write_json,
)
from shard_builder.split import Split, SplitKind, read_split, write_split
from shard_builder.untrusted.records import Count, check_version, parse_record, split_lines
from train.config import TrainConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CONFIG_NAME = "config.json"
SPLIT_NAME = "split.json"
METRICS_NAME = "metrics.jsonl"
FIGURES_NAME = "figures"
RUN_FORMAT = "ckshard-run"
RUN_VERSION = 2
MOST_CONFIG_BYTES = 1 << 24
MOST_METRICS_BYTES = 1 << 28
SCALARS = (
    *("loss", "accuracy", "val_loss", "val_accuracy", "lr"),
    *("data_wait_pct", "samples_per_s", "grad_norm"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDataset:
    """The dataset of a run: its path then, and the SHA-256 of its manifest."""

    path: str
    manifest_sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSplit:
    """The split of a run; its keys stand in split.json."""

    kind: SplitKind
    parameters: Mapping[str, int | str]
    sha256: Sha256
    num_train: Count
    num_val: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """``config.json``: what was run, and with what.

    ``weights_sha256`` is that of the file of weights that it began with, where it was a file.
    """

    stream: Literal["rgb", "flow"]
    options: TrainConfig
    precision: str
    device: str
    device_name: str
    cutter: str
    world_size: Annotated[int, Meta(ge=1, le=1 << 20)]
    dataset: RunDataset
    split: RunSplit
    weights_sha256: Sha256 | None = None
    classes: tuple[str, ...]
    num_parameters: Count
    command: str
    earlier_commands: tuple[str, ...] = ()
    git_revision: str | None
    versions: Mapping[str, str | None]


Share = Annotated[float, Meta(ge=0, le=1)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsRow:
    """What every row of metrics.jsonl holds."""

    kind: Literal["step", "epoch"]
    epoch: Count
    step: Count
    loss: Finite | None = None
    accuracy: Share | None = None
    lr: Finite | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow(MetricsRow):
    """A row of kind ``epoch``."""

    loss: Finite
    accuracy: Share
    lr: Finite
    val_loss: Finite | None
    val_accuracy: Share | None
    data_wait_pct: Annotated[float, Meta(ge=0, le=100)]
    samples_per_s: Annotated[float, Meta(ge=0, le=1e12)]
    compute_samples_per_s: Annotated[float, Meta(ge=0, le=1e12)]
    between_s: Annotated[float, Meta(ge=0, le=1e12)] = 0.0
    start_s: Annotated[float, Meta(ge=0, le=1e12)] = 0.0
    num_skipped_steps: Count
    num_damaged: Count


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
        """Flush TensorBoard's events; all that they hold stands in metrics.jsonl too."""
        board, self._board = self._board, None
        if board is not None:
            with suppress(OSError):  # a full disk has been told of, and must not hide that
                board.close()

    def log(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl and its scalars to TensorBoard."""
        if not self.is_writer:
            return
        line = json.dumps({name: _or_none(value) for name, value in row.items()}) + "\n"
        append_regular(self.path / METRICS_NAME, line.encode())
        board = self.board()
        for name in SCALARS:
            if row.get(name) is not None:
                board.add_scalar(f"{row['kind']}/{name}", row[name], row["step"])

    def board(self) -> SummaryWriter:
        """Return TensorBoard's writer, opened when first used: its import takes a second."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            # The rest of its name can be foreseen, and it is opened as any name is.
            self._board = SummaryWriter(str(self.path), filename_suffix=f".{secrets.token_hex(12)}")
        return self._board

    def note_save(self) -> None:
        """Remember that last.pt has just been written."""
        self._saved_at = time.monotonic()

    def seconds_since_save(self) -> float:
        """Return how long ago last.pt was written, or the folder opened."""
        return time.monotonic() - self._saved_at

    def forget_after(self, *, epoch: int, step: int) -> str:
        """Drop the rows that a killed run wrote after the checkpoint that is resumed from.

        Returns:
            A notice if the last line was cut short; else nothing.
        """
        notice = torn_notice(self.path)

        def is_before(row: dict[str, Any]) -> bool:
            return bool(row["step"] <= step and (row["kind"] != "epoch" or row["epoch"] < epoch))

        file = self.path / METRICS_NAME
        if self.is_writer:
            remove_temporaries(self.path)
        if self.is_writer and (file.is_symlink() or file.exists()):
            kept = read_metrics(self.path, keep=is_before)
            write_atomically(file, "".join(json.dumps(row) + "\n" for row in kept).encode())
        return notice


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
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    if any(name != SPLIT_NAME and not TEMPORARY_NAME.fullmatch(name) for name in names):
        raise InputError(f"{path}: is not empty, expected a new folder")


def create_run(path: Path, record: dict[str, Any], split: Split) -> None:
    """Make a run folder; config.json is written last."""
    path.mkdir(parents=True, exist_ok=True)
    write_split(path / SPLIT_NAME, split)
    _write_config(path, record | {"earlier_commands": []})


def update_run(path: Path, record: dict[str, Any]) -> None:
    """Write what a resumed run is now; its earlier commands and what it began with are kept."""
    before, _ = read_run(path)
    commands = [*before.earlier_commands, before.command]
    kept = {"earlier_commands": commands, "weights_sha256": before.weights_sha256}
    _write_config(path, record | kept)


def _write_config(path: Path, record: dict[str, Any]) -> None:
    write_json(path / CONFIG_NAME, {"format": RUN_FORMAT, "version": RUN_VERSION, **record})


def read_run(path: Path) -> tuple[RunRecord, Split]:
    """Read config.json and split.json of a run.

    Raises:
        InputError: If the folder is no run, one of another version, or a field is not as it should
            be; the message names file and field.
    """
    file = path / CONFIG_NAME
    if not file.is_symlink() and not file.exists():
        raise InputError(
            f"{path}: not a run: no {CONFIG_NAME} in it\n"
            f"  Train first: cktrain rgb|flow DATASET --out {path}"
        )
    data, place = read_regular(file, most_bytes=MOST_CONFIG_BYTES), str(file)
    what = "run of cktrain"
    check_version(data, format=RUN_FORMAT, versions=(RUN_VERSION,), place=place, what=what)
    record = parse_record(data, RunRecord, place=place)
    if record.options.stream != record.stream:
        raise InputError(f"{file}: stream {record.stream}, but options.stream differs")
    return record, read_split(path / SPLIT_NAME)


def read_metrics(
    path: Path, *, keep: Callable[[dict[str, Any]], bool] = bool
) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl.

    A last line that a kill cut short is left out; see :func:`torn_notice`.

    Raises:
        InputError: If a row is not as it should be; the message names file, line and field.
    """
    file = path / METRICS_NAME
    if not file.is_symlink() and not file.exists():
        return []
    lines, _ = split_lines(read_regular(file, most_bytes=MOST_METRICS_BYTES))
    rows = []
    for number, line in enumerate(lines, start=1):
        place = f"{file}, line {number}"
        kind = parse_record(line, MetricsRow, place=place).kind
        row = json.loads(line)
        if keep(row):
            if kind == "epoch":
                parse_record(line, EpochRow, place=place)
            rows.append(row)
    return rows


def torn_notice(path: Path) -> str:
    """Say that the last line of metrics.jsonl was cut short, if it was."""
    file = path / METRICS_NAME
    if not is_regular(file):
        return ""
    _, torn = split_lines(read_regular(file, most_bytes=MOST_METRICS_BYTES))
    return f"notice: {file}: its last line is cut short and left out" if torn else ""


def _or_none(value: Any) -> Any:
    """Return None in the place of a number that JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
