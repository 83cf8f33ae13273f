"""``test.json``: the result of a test, as it is written and as it is read again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from models.fusion import FusionWeights
from pipelines.views import Views
from shard_builder.errors import InputError
from shard_builder.files import Sha256, digest_file, is_regular, read_regular
from shard_builder.format.manifest import MOST_CLASSES
from shard_builder.untrusted.records import MOST_BYTES, Count, check_version, parse_record
from train.evaluation.scores import SCORES_NAME, SequenceScores, read_sequences
from train.evaluation.statistics import McNemar, Metrics
from train.running.checkpoint import CHECKPOINTS

TEST_FORMAT, TEST_VERSION = "ckshard-test", 4
READ_VERSIONS = (3, TEST_VERSION)
TEST_NAME = "test.json"
RESULTS = ("rgb", "flow", "fused")


Part = Literal["val", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """Result of a test.

    Args:
        class_names: Names in label order.
        num_subjects: Subjects among the tested sequences; None where the source names none.
        views: ``ten`` or ``original``.
        checkpoint: ``last`` or ``best``.
        part: ``val``, or ``test``: a third part that neither trained nor validated.
        results: Metrics by stream; ``fused`` when two runs were tested.
        weights: Fusion weights and their origin; None for a single run.
        mcnemar: Whether the streams differ, rgb first; None for a single run.
        notices: What a reader must know before believing the numbers.
    """

    class_names: tuple[str, ...]
    num_subjects: int | None
    views: Views
    checkpoint: str
    part: Part
    results: dict[str, Metrics]
    weights: FusionWeights | None
    mcnemar: McNemar | None
    notices: tuple[str, ...] = ()

    @property
    def num_sequences(self) -> int:
        """Number of tested sequences."""
        return next(iter(self.results.values())).num_sequences

    def to_record(self) -> dict[str, Any]:
        """Return the content of ``test.json``: common fields, and metrics by stream."""
        record: dict[str, Any] = {
            "format": TEST_FORMAT,
            "version": TEST_VERSION,
            "num_sequences": self.num_sequences,
            "num_subjects": self.num_subjects,
            "classes": list(self.class_names),
            "views": self.views,
            "checkpoint": self.checkpoint,
            "part": self.part,
            "fusion": asdict(self.weights) if self.weights else None,
            "mcnemar": asdict(self.mcnemar) if self.mcnemar else None,
        }
        return record | {stream: asdict(metrics) for stream, metrics in self.results.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOfTest:
    """A run that was tested: its folder then, and SHA-256 of its checkpoint, split and dataset."""

    run: str
    checkpoint_sha256: Sha256
    split_sha256: Sha256
    manifest_sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTest:
    """``test.json``, as it is read.

    ``manifest_sha256`` is of the dataset that was tested on, ``scores_sha256`` of the table of
    scores beside it.
    """

    num_sequences: Count
    num_subjects: Count | None
    classes: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MOST_CLASSES)]
    checkpoint: Literal["last", "best"]
    views: Views
    manifest_sha256: Sha256
    scores_sha256: Sha256
    origin: Annotated[tuple[RunOfTest, ...], Meta(min_length=1, max_length=2)]
    rgb: Metrics | None = None
    flow: Metrics | None = None
    fused: Metrics | None = None

    def __post_init__(self) -> None:
        if not self.results():
            raise ValueError("no result, expected rgb, flow or fused")

    def results(self) -> dict[str, Metrics]:
        """Return the metrics by stream, in the order of ``RESULTS``."""
        streams = {name: getattr(self, name) for name in RESULTS}
        return {name: metrics for name, metrics in streams.items() if metrics is not None}


def read_test(path: Path) -> StoredTest:
    """Read a ``test.json``.

    Raises:
        InputError: If it is none, or a field is not as it should be; the message names it.
    """
    data, place = read_regular(path, most_bytes=MOST_BYTES), str(path)
    what = "test of cktrain"
    check_version(data, format=TEST_FORMAT, versions=READ_VERSIONS, place=place, what=what)
    return parse_record(data, StoredTest, place=place)


def read_test_scores(folder: Path) -> tuple[StoredTest, dict[str, SequenceScores], tuple[str, ...]]:
    """Read the test in a folder with its scores of whole sequences.

    Returns:
        The test, the scores by stream, and the class names.

    Raises:
        InputError: If one of the files is missing or damaged, or the scores are of another test.
    """
    path = folder / SCORES_NAME
    record = read_test(folder / TEST_NAME)
    streams, names = read_sequences(path)
    if digest_file(path).sha256 != record.scores_sha256:
        raise InputError(f"{path}: its SHA-256 is not the one in {TEST_NAME}: of another test")
    return record, streams, names


def why_stale(record: StoredTest, run: Path) -> str:
    """Say why a ``test.json`` is not that of the weights that its runs have now.

    Args:
        record: The test.
        run: The run in whose folder it lies. Another one that it fused is compared if it is still
            where it was.

    Returns:
        The reason; empty if it is.
    """
    name, hashes = CHECKPOINTS[record.checkpoint], [run.checkpoint_sha256 for run in record.origin]
    own = digest_file(run / name).sha256 if is_regular(run / name) else ""
    if own not in hashes:
        return "the test was of other weights than the run has now"
    for other in record.origin:
        weights = Path(other.run) / name
        is_there = other.checkpoint_sha256 != own and is_regular(weights)
        if is_there and digest_file(weights).sha256 != other.checkpoint_sha256:
            return f"the test was of other weights than {other.run} has now"
    return ""
