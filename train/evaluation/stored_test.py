"""``test.json``: the result of a test, as it is read again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from pipelines.views import Views
from shard_builder.files import Sha256, digest_file, is_regular, read_regular
from shard_builder.format.manifest import MOST_CLASSES
from shard_builder.untrusted.records import MOST_BYTES, Count, check_version, parse_record
from train.evaluation.statistics import Metrics
from train.running.checkpoint import CHECKPOINTS

TEST_FORMAT, TEST_VERSION = "ckshard-test", 2
TEST_NAME = "test.json"
RESULTS = ("rgb", "flow", "fused")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOfTest:
    """A run that was tested: its folder then, and the SHA-256 of its checkpoint."""

    run: str
    checkpoint_sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTest:
    """``test.json``, as it is read."""

    num_sequences: Count
    num_subjects: Count
    classes: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MOST_CLASSES)]
    checkpoint: Literal["last", "best"]
    views: Views
    origin: tuple[RunOfTest, ...]
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
    check_version(data, format=TEST_FORMAT, versions=(TEST_VERSION,), place=place, what=what)
    return parse_record(data, StoredTest, place=place)


def is_test_of(record: StoredTest, run: Path) -> bool:
    """Tell whether a ``test.json`` is that of the run's weights as they are now."""
    weights = run / CHECKPOINTS[record.checkpoint]
    hashes = [entry.checkpoint_sha256 for entry in record.origin]
    return is_regular(weights) and digest_file(weights).sha256 in hashes
