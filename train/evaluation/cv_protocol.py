"""What every fold of a cross-validation must be, and the proof by hash that a fold is that."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from models.weights import weights_sha256
from pipelines.dataset import Dataset
from shard_builder.errors import InputError
from shard_builder.files import Sha256, folder_inside, read_regular, write_json
from shard_builder.format.manifest import manifest_sha256
from shard_builder.split import Split
from shard_builder.untrusted.records import MOST_BYTES, check_version, parse_record
from train.config import TrainConfig
from train.evaluation.cv_options import CV_SPLITS, CvOptions, CvSplit, Selection, Views
from train.running.run_folder import RunDataset

PROTOCOL_NAME = "protocol.json"
PROTOCOL_FORMAT = "ckshard-cv-protocol"
PROTOCOL_VERSION = 1
SET_BY_CV = {"stream", "split", "folds", "fold", "subject"}
"""Options of a training that a cross-validation sets in each fold."""
DECIDES_NOTHING = {
    *("loader", "cache", "cache_bytes", "workers", "on_error", "device", "compile"),
    *("save_every", "log_every", "val_every"),
}
"""Options that may differ from fold to fold: where and how fast it is trained, what is written."""
WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldKeys:
    """Hashes of a fold's sequences.

    Args:
        trained: Of the split that it is trained on: :meth:`shard_builder.split.Split.sha256`.
        tested: Of the sequences that it is tested on.
    """

    trained: Sha256
    tested: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """``protocol.json``: what the folds of one stream and one way of splitting have in common.

    Args:
        stream: What the nets see.
        split: How the folds are made.
        select: How the epoch is chosen.
        views: How sequences are tested.
        dataset: Its path when this was begun, and its hash.
        options: Of every training; those that a fold sets are not compared.
        weights_sha256: Of the file of weights that each begins with, if it is a file.
        folds: What each fold holds out, by its number.
    """

    stream: Literal["rgb", "flow"]
    split: CvSplit
    select: Selection
    views: Views
    dataset: RunDataset
    options: TrainConfig
    weights_sha256: Sha256 | None
    folds: Annotated[Mapping[int, FoldKeys], Meta(min_length=2)]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.stream}-{self.split}"

    @property
    def checkpoint(self) -> str:
        """The checkpoint that is tested."""
        return "best" if self.select == "inner" else "last"

    def deciding_options(self) -> list[str]:
        """Name the options of a training that decide what a fold's result is."""
        free = SET_BY_CV | DECIDES_NOTHING
        if self.select == "inner" or self.options.early_stop:  # when the best is looked for
            free = free - {"val_every"}
        return [entry.name for entry in fields(TrainConfig) if entry.name not in free]

    def other_option(self, options: TrainConfig) -> tuple[str, object, object] | None:
        """Return the first option that decides and differs: its name, its value here and there."""
        for name in self.deciding_options():
            own, other = getattr(self.options, name), getattr(options, name)
            if own != other:
                return name, own, other
        return None


def make_protocol(
    dataset: Dataset,
    config: TrainConfig,
    options: CvOptions,
    splits: Mapping[int, tuple[Split, Split]],
) -> Protocol:
    """Say what the folds of a cross-validation must be.

    Args:
        dataset: The open dataset.
        config: Training options.
        options: Of the cross-validation.
        splits: By fold the split that it is tested on, and the one it is trained on.
    """
    return Protocol(
        stream=config.stream,
        split=options.split,
        select=options.select,
        views=options.views,
        dataset=RunDataset(path=dataset.place, manifest_sha256=manifest_sha256(dataset.path)),
        options=config,
        weights_sha256=weights_sha256(config.weights),
        folds={
            fold: FoldKeys(trained=trained.sha256(), tested=keys_sha256(tested.val))
            for fold, (tested, trained) in splits.items()
        },
    )


def keys_sha256(keys: Iterable[str]) -> str:
    """Hash the keys of sequences, in whatever order they are."""
    return hashlib.sha256(json.dumps(sorted(keys)).encode()).hexdigest()


def read_protocol(folder: Path) -> Protocol:
    """Read the protocol of a folder of folds.

    Raises:
        InputError: If it is missing, or a field is not as it should be; the message names it.
    """
    path = folder / PROTOCOL_NAME
    data, place = read_regular(path, most_bytes=MOST_BYTES), str(path)
    what = "protocol of cktrain"
    check_version(
        data, format=PROTOCOL_FORMAT, versions=(PROTOCOL_VERSION,), place=place, what=what
    )
    return parse_record(data, Protocol, place=place)


def write_protocol(folder: Path, protocol: Protocol) -> None:
    """Write the protocol of a folder of folds."""
    header = {"format": PROTOCOL_FORMAT, "version": PROTOCOL_VERSION}
    record = asdict(protocol) | {"options": protocol.options.to_record()}
    write_json(folder / PROTOCOL_NAME, header | record)


def find_protocols(out: Path) -> list[Protocol]:
    """Read what was begun in a cross-validation folder, by split and stream."""
    folders = (folder_inside(out, f"{s}-{split}") for split in CV_SPLITS for s in ("rgb", "flow"))
    return [read_protocol(folder) for folder in folders if os.path.lexists(folder / PROTOCOL_NAME)]


def fold_dir(out: Path, stream: str, split: str, fold: int) -> Path:
    """Return the run folder of a fold.

    Raises:
        InputError: If a folder on the way to it, or it itself, is a link.
    """
    return folder_inside(out, f"{stream}-{split}", f"fold-{fold:02d}")


def check_same(out: Path, now: Protocol, begun: Protocol) -> None:
    """Compare a protocol with one that the folder holds already.

    One folder is of one dataset. Streams under one split share their folds, so that they can be
    fused; everything else is compared within one stream and split. Views may change: folds are
    then tested again.

    Raises:
        InputError: If they do not go together; the message names the first difference.
    """
    folder = out / begun.name
    if now.dataset.manifest_sha256 != begun.dataset.manifest_sha256:
        what = (
            f"{now.dataset.path} is another dataset than {folder} was begun with"
            f" ({begun.dataset.path}; manifest {begun.dataset.manifest_sha256[:16]}, now"
            f" {now.dataset.manifest_sha256[:16]})"
        )
    elif now.split != begun.split:
        return
    elif reason := other_folds(now, begun):
        what = f"{reason} ({folder})"
    elif now.stream != begun.stream:
        return
    elif now.select != begun.select:
        what = f"select={now.select!r}, but {folder} was begun with {begun.select!r}"
    elif other := now.other_option(begun.options):
        name, own, then = other
        what = f"{name}={own!r}, but {folder} was begun with {then!r}"
    elif now.weights_sha256 != begun.weights_sha256:
        what = f"weights={now.options.weights!r}: another file than {folder} was begun with"
    else:
        return
    raise refusal(what, remove=folder)


def other_folds(now: Protocol, begun: Protocol) -> str:
    """Say how the folds of two protocols differ; empty if they test the same sequences."""
    if len(now.folds) != len(begun.folds):
        return f"folds={len(now.folds)}, but it was begun with {len(begun.folds)}"
    for fold, keys in now.folds.items():
        if fold not in begun.folds:
            return f"split={now.split!r}: fold {fold} is new"
        if keys.tested != begun.folds[fold].tested:
            return f"split={now.split!r}: fold {fold} tests other sequences than it was begun with"
    return ""


def refusal(what: str, *, remove: Path) -> InputError:
    """Make the error that says what does not belong to a cross-validation, and what to remove."""
    return InputError(
        f"{what}; nothing was trained\n"
        f"  Folds of different trainings are not pooled: choose another folder, or remove {remove}."
    )


def same_folds(one: Protocol, other: Protocol) -> bool:
    """Tell whether the results of two streams are of the same sequences, tested alike."""
    return (
        one.dataset.manifest_sha256 == other.dataset.manifest_sha256
        and one.views == other.views
        and not other_folds(one, other)
    )
