"""The proof by hash that a fold of a cross-validation is what its protocol says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shard_builder.errors import InputError, counted
from shard_builder.files import digest_file, folder_inside, is_regular
from shard_builder.format.streams import STREAMS
from shard_builder.lock import lock_path, locked
from shard_builder.untrusted.text import clean
from train.evaluation.cv_options import CV_SPLITS
from train.evaluation.cv_protocol import (
    PROTOCOL_NAME,
    WAIT_S,
    FoldKeys,
    Protocol,
    check_same,
    find_protocols,
    keys_sha256,
    refusal,
    write_protocol,
)
from train.evaluation.scores import SequenceScores
from train.evaluation.stored_test import TEST_NAME, read_test_scores
from train.running.checkpoint import CHECKPOINTS
from train.running.run_folder import CONFIG_NAME, read_run


def begin(out: Path, protocol: Protocol, *, take_over: bool = False) -> None:
    """Begin or resume a cross-validation: what was begun in its folder must go together with it.

    Raises:
        InputError: If something was made with another dataset, split or option; the message names
            the first difference.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, expected a folder")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / PROTOCOL_NAME, take_over=take_over, wait_s=WAIT_S):
        begun_before = find_protocols(out)
        for begun in begun_before:
            check_same(out, protocol, begun)
        if not begun_before:
            check_new(out)
        folder = folder_inside(out, protocol.name)
        check_folds_belong(folder, protocol)
        folder.mkdir(exist_ok=True)
        write_protocol(folder, protocol)


def check_new(out: Path) -> None:
    """Make sure that a folder in which no cross-validation was begun holds nothing else.

    Raises:
        InputError: If it does: a dataset, a run.
    """
    series = {f"{stream}-{split}" for stream in STREAMS for split in CV_SPLITS}
    foreign = sorted(
        path.name
        for path in out.iterdir()
        if path.name not in series and path.name != lock_path(out / PROTOCOL_NAME).name
    )
    if foreign:
        raise InputError(
            f"{out}: holds {clean(foreign[0])}, expected a new folder or one of cktrain cv"
        )


def check_folds_belong(folder: Path, protocol: Protocol) -> None:
    """Make sure that every fold that was begun has the protocol's dataset, split and options.

    Args:
        folder: The folder of the folds.
        protocol: What they must be.

    Raises:
        InputError: If one has not; the message names the first difference.
    """
    for path in sorted(folder.glob("fold-*")):
        number = re.fullmatch(r"fold-(\d+)", path.name)
        if not number or not (path / CONFIG_NAME).exists():
            continue
        if reason := foreign_reason(path, protocol, int(number[1])):
            raise refusal(f"{path}: {reason}", remove=path)


def foreign_reason(folder: Path, protocol: Protocol, fold: int) -> str:
    """Say what a fold's run was trained with that is not as the protocol says; empty if nothing.

    Raises:
        InputError: If the folder is no run.
    """
    record, split = read_run(folder)
    if fold not in protocol.folds:
        return f"fold {fold}, expected one of {', '.join(map(str, protocol.folds))}"
    if record.stream != protocol.stream:
        return f"trained on {record.stream}, expected {protocol.stream}"
    if record.dataset.manifest_sha256 != protocol.dataset.manifest_sha256:
        return (
            f"trained on another dataset ({record.dataset.path}), expected {protocol.dataset.path}"
        )
    if protocol.folds[fold].trained not in {split.sha256()} & {record.split.sha256}:
        parameters = ", ".join(f"{name} {value}" for name, value in split.parameters.items())
        return (
            f"trained on another split ({split.kind}, {parameters}), expected"
            f" fold {fold} of {len(protocol.folds)} ({protocol.split})"
        )
    if other := protocol.other_option(record.options):
        name, own, then = other
        return f"{name}={own!r}, but it was trained with {then!r}"
    if record.weights_sha256 != protocol.weights_sha256:
        return f"weights={record.options.weights!r}: it was trained from another file"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldResult:
    """A fold's test that was proven to belong to the cross-validation.

    Args:
        scores: What it says of its sequences.
        class_names: Names in label order.
    """

    scores: SequenceScores
    class_names: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of its sequences that are right."""
        return float((self.scores.probs.argmax(axis=1) == self.scores.labels).mean())

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.1f} % of {counted(len(self.scores.keys), 'sequence')}"


def read_result(folder: Path, protocol: Protocol, fold: int) -> FoldResult | str:
    """Read a fold's test; or say why there is none that belongs to the cross-validation.

    The run has the protocol's dataset, split and options; its test is of the checkpoint that lies
    in the folder (if it is still there) and of the fold's sequences.

    Raises:
        InputError: If a folder on the way is a link.
    """
    test = folder_inside(folder, "test")
    if not (folder / CONFIG_NAME).exists():
        return "not begun"
    try:
        if reason := foreign_reason(folder, protocol, fold):
            return reason
        if not is_regular(test / TEST_NAME):
            return "not finished"
        return _proven_test(folder, test, protocol, protocol.folds[fold])
    except InputError as error:
        return str(error).splitlines()[0]


def _proven_test(folder: Path, test: Path, protocol: Protocol, keys: FoldKeys) -> FoldResult | str:
    record, streams, names = read_test_scores(test)
    if record.views != protocol.views:
        return f"views={protocol.views!r}, but it was tested with {record.views!r}"
    if record.checkpoint != protocol.checkpoint or len(record.origin) != 1:
        return f"its test is not that of {CHECKPOINTS[protocol.checkpoint]}"
    (origin,) = record.origin
    weights = folder / CHECKPOINTS[protocol.checkpoint]
    if is_regular(weights) and digest_file(weights).sha256 != origin.checkpoint_sha256:
        return f"its test is of other weights than {weights.name}"
    datasets = {origin.manifest_sha256, record.manifest_sha256}
    if datasets != {protocol.dataset.manifest_sha256} or origin.split_sha256 != keys.trained:
        return "its test is of another dataset or split"
    scores = streams.get(protocol.stream)
    if scores is None or keys_sha256(scores.keys) != keys.tested:
        return "its test is of other sequences"
    return FoldResult(scores=scores, class_names=names)
