"""Fits through the points of bench.scaling, carried on paper to 100 million sequences, and the
limits on the way.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CARRY_SEQUENCES, CARRY_FRAMES = 100_000_000, 18
"""Eighteen frames are CK+'s mean."""
RANKS, HOST_BYTES, CORES = 8, 256 << 30, 64
"""The host that is carried to."""
SOFT_OPEN_FILES, MAX_MAP_COUNT, ADDRESS_SPACE = 1024, 65530, 1 << 47
"""The usual limits of a Linux process: open files before ``ulimit -n``, memory maps, bytes of
addresses."""
PAGE_BYTES, PAGE_ENTRY_BYTES = 4096, 8
ARROW_OFFSETS = (1 << 31) - 1
MEMBER_INDEX_BYTES, MEMBER_FLAG_BYTES = 20, 1
"""A member in index.arrow: offset 8, size 8, CRC-32 4; and in a process: whether its CRC has been
checked."""
SHARD_NAMES, CKPLUS_NAMES = 1_000_000, 1_000_000
PLANE_BYTES, JPG_FRACTION = 340 * 256, 0.15
"""A stored plane, and what the build expects of jpg."""
LIMITS = {"open_s": 2.0, "plan_s": 0.5, "bytes_per_sample": 200.0}
DAY_S = 86400.0

Record = dict[str, Any]


def spread(values: Sequence[float]) -> Record:
    """Return ``median``, ``min`` and ``max`` of repeated measurements and the ``runs`` themselves.

    >>> spread([1.0, 4.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 4.0, 'runs': [1.0, 4.0, 2.0]}
    """
    runs = [float(f"{value:.6g}") for value in values]
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs), "runs": runs}


def middle(value: Any) -> float:
    """Return the median of a spread, or a plain number itself."""
    return float(value["median"] if isinstance(value, dict) else value)


def steps_per_sample(num: int) -> float:
    """Return how often the network of the permutation runs for each of ``num`` samples: its domain
    is a power of four.

    >>> steps_per_sample(1 << 20), round(steps_per_sample((1 << 20) + 1), 3)
    (1.0, 4.0)
    """
    half_bits = max(1, ((num - 1).bit_length() + 1) // 2)
    return float(4**half_bits / num)


def fit_points(built: Sequence[Record], index_only: Sequence[Record]) -> Record:
    """Fit ``a + b n`` to each quantity, and a further term to the plan: the steps of its
    permutation.

    Args:
        built: Points with shards; one size occurs again with more shards.
        index_only: Points without shards, with as many sequences a shard as the others.
    """
    common = [
        point for point in built if point["shards_per_stream"] <= _shards_of_line(point, built)
    ]
    opened = [*common, *index_only]
    lines: dict[str, Sequence[Record]] = dict.fromkeys(
        ("open_s", "plan_s", "split_s", "split_bytes"), opened
    )
    lines |= dict.fromkeys(
        ("resident_bytes", "anonymous_bytes", "kept_bytes", "planned_bytes"), opened
    )
    lines |= dict.fromkeys(
        ("build_s", "build_peak_bytes", "verify_quick_s", "verify_full_s"), common
    )
    lines |= dict.fromkeys(("verify_quick_peak_bytes",), common)
    fits = {name: fit(points, name, ("1", "n")) for name, points in lines.items()}
    fits["plan_s with n steps"] = fit(opened, "plan_s", ("1", "n", "n steps"))
    return fits


def _shards_of_line(point: Record, points: Sequence[Record]) -> int:
    return min(
        int(other["shards_per_stream"])
        for other in points
        if other["num_sequences"] == point["num_sequences"]
    )


def fit(points: Sequence[Record], name: str, terms: Sequence[str]) -> Record:
    """Fit a sum of terms to the medians of ``name`` with the least squares of relative errors; a
    term below 0 is left out.

    Returns:
        The coefficient of each term (``1``, ``n`` sequences, ``n steps`` of the permutation); under
        ``worst`` the largest relative error.
    """
    columns: dict[str, Callable[[Record], float]] = {
        "1": lambda point: 1.0,
        "n": lambda point: float(point["num_sequences"]),
        "n steps": lambda point: point["num_sequences"] * steps_per_sample(point["num_sequences"]),
    }
    values = np.array([middle(point[name]) for point in points])
    relative = (
        np.array([[columns[term](point) for term in terms] for point in points]) / values[:, None]
    )
    scale = relative.max(axis=0)
    kept, solved = list(range(len(terms))), np.zeros(len(terms))
    while kept:
        part = (
            np.linalg.lstsq(relative[:, kept] / scale[kept], np.ones(len(points)), rcond=None)[0]
            / scale[kept]
        )
        if (part >= 0).all():
            solved[kept] = part
            break
        kept.pop(int((part * scale[kept]).argmin()))
    worst = float(np.abs(relative @ solved - 1).max())
    return {term: float(f"{value:.6g}") for term, value in zip(terms, solved, strict=True)} | {
        "worst": round(worst, 4)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """The measured points carried to ``CARRY_SEQUENCES`` sequences of ``CARRY_FRAMES`` frames, both
    streams, jpg, 340x256.

    Args:
        record: The record of bench.scaling.
        shard_bytes: ``--shard-bytes`` of the build.
    """

    record: Record
    shard_bytes: int

    @property
    def density(self) -> int:
        """Sequences in a shard, as the build cuts them."""
        return int(self.record["carry"]["sequences_per_shard"][str(self.shard_bytes)])

    @property
    def more_frames(self) -> int:
        """Frames that a measured sequence has less."""
        return CARRY_FRAMES - int(self.record["frames"]["num_frames"])

    @property
    def row_bytes(self) -> float:
        """Bytes of a row of index.arrow: measured, plus those of the further frames and pairs."""
        point = self.record["index_only"][0]
        return float(
            point["index_bytes"] / point["num_sequences"]
            + 2 * MEMBER_INDEX_BYTES * self.more_frames
        )

    @property
    def kept_bytes(self) -> float:
        """Bytes a sequence in each process: measured, plus the flags of the further pairs."""
        return self.slope("kept_bytes") + MEMBER_FLAG_BYTES * self.more_frames

    @property
    def flow_bytes(self) -> float:
        """Bytes of a sequence in the flow shards, as the build expects them."""
        return 2 * PLANE_BYTES * (CARRY_FRAMES - 1) * JPG_FRACTION

    def slope(self, name: str) -> float:
        """Return a fitted cost of a sequence."""
        return float(self.record["fits"][name]["n"])

    def shard_cost(self, name: str) -> float:
        """Return what a shard of each stream adds to opening: the many-shard point against the same
        rows in few shards.
        """
        few, many = self.record["index_only"][0], self.record["index_only"][-1]
        return (middle(many[name]) - middle(few[name])) / float(
            many["shards_per_stream"] - few["shards_per_stream"]
        )

    def open_s(self, num: float) -> float:
        """Return the seconds of opening: rows by the fit, whose points have few shards, and shards
        on top.
        """
        line = self.record["fits"]["open_s"]
        return float(line["1"] + num * (line["n"] + self.shard_cost("open_s") / self.density))

    def bytes_per_sample(self) -> float:
        """Return anonymous bytes a sample of opening and an epoch's plan, the manifest of this many
        shards included.
        """
        return (
            self.slope("anonymous_bytes")
            + max(0.0, self.shard_cost("anonymous_bytes")) / self.density
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A limit.

    Args:
        name: What runs out.
        why: What it grows with.
        num_sequences: Sequences at which it is reached.
        remedy: What then.
    """

    name: str
    why: str
    num_sequences: float
    remedy: str


def find_breaks(carry: Carry) -> list[Break]:
    """Return the limits on the way, the nearest first; what is used up by nothing is none."""
    limits = [*_limits_by_shards(carry), *_limits_by_memory(carry), *_limits_of_formats(carry)]
    found = [
        Break(name=name, why=why, num_sequences=num, remedy=remedy)
        for name, why, num, remedy in limits
        if num < math.inf
    ]
    return sorted(found, key=lambda entry: entry.num_sequences)


def _fitting(available: float, per_sequence: float) -> float:
    return available / per_sequence if per_sequence > 0 else math.inf


def _limits_by_shards(carry: Carry) -> list[tuple[str, str, float, str]]:
    held, start_s = carry.record["carry"]["per_mapped_shard"], carry.record["fits"]["open_s"]["1"]
    return [
        (
            "open files",
            (
                f"each shard that a rank has read keeps {held['descriptors']:.0f};"
                f" {SOFT_OPEN_FILES:,} unless `ulimit -n` says more"
            ),
            _fitting(SOFT_OPEN_FILES, held["descriptors"] / carry.density),
            "larger shards, `ulimit -n`",
        ),
        (
            "memory maps",
            (
                f"each shard that a rank has read is {held['maps']:.0f}; {MAX_MAP_COUNT:,} unless"
                " `vm.max_map_count` says more"
            ),
            _fitting(MAX_MAP_COUNT, held["maps"] / carry.density),
            "larger shards, the sysctl; code: drop the maps that were not used for longest",
        ),
        (
            f"opening in {LIMITS['open_s']:g} s",
            "the manifest lists two files and a name for each shard, and is parsed whole",
            _fitting(LIMITS["open_s"] - start_s, carry.open_s(1) - start_s),
            "larger shards; code: checksums in a file of their own, which only verify reads",
        ),
        (
            "shard names",
            f"six digits; the manifest refuses number {SHARD_NAMES:,} when all shards are built",
            float(SHARD_NAMES * carry.density),
            "larger shards; code: refuse before the first one",
        ),
        (
            "quick verification in a day",
            "members are looked at in Python, under one interpreter lock",
            _fitting(DAY_S, carry.slope("verify_quick_s")),
            "code: a process a shard, as a build has",
        ),
    ]


def _limits_by_memory(carry: Carry) -> list[tuple[str, str, float, str]]:
    per_rank, kept = HOST_BYTES / RANKS, carry.kept_bytes
    return [
        (
            "memory of a build",
            (
                "the main process holds every sequence, task and row, and makes one record batch of"
                " dicts"
            ),
            _fitting(HOST_BYTES, carry.slope("build_peak_bytes")),
            (
                "several datasets; code: workers write their rows as Arrow, the main process joins"
                " the files"
            ),
        ),
        (
            "memory of verify",
            "every row is a Python dict",
            _fitting(HOST_BYTES, carry.slope("verify_quick_peak_bytes")),
            "code: the mapped columns, a shard's slice at a time",
        ),
        (
            "memory of splits",
            f"{RANKS} ranks of a host hold keys, subjects and split as Python strings",
            _fitting(per_rank, carry.slope("split_bytes") + kept),
            "code: a split of row numbers, made once a host; a hash instead of keys in checkpoints",
        ),
        (
            "page tables",
            (
                f"8 bytes for each {PAGE_BYTES} that each of {RANKS} ranks has ever read of its"
                " mapped shards"
            ),
            per_rank * PAGE_BYTES / (PAGE_ENTRY_BYTES * carry.flow_bytes),
            "code: unmap shards now and then, or read windows with `pread`",
        ),
        (
            "memory of row arrays",
            f"{RANKS} ranks of a host, each with its own",
            per_rank / kept,
            "code: the mapped int32 columns themselves, which ranks share",
        ),
    ]


def _limits_of_formats(carry: Carry) -> list[tuple[str, str, float, str]]:
    point = carry.record["index_only"][0]
    key, source = (
        point[f"{name}_text_bytes"] / point["num_sequences"] for name in ("key", "source")
    )
    fatal, remedy = (
        "`TypeError` when all shards are built",
        "several record batches or `large_` types (index version 2)",
    )
    longer = "a prepared tree or videos: keys of up to 80 characters"
    return [
        (
            "text columns",
            (
                f"int32 offsets: `source` {source:.0f} bytes a row, {fatal} (`key`, {key:.0f}, at"
                f" {ARROW_OFFSETS / key / 1e6:.0f} million)"
            ),
            ARROW_OFFSETS / source,
            remedy,
        ),
        (
            "list columns",
            f"int32 offsets, {CARRY_FRAMES} rgb members a row",
            ARROW_OFFSETS / CARRY_FRAMES,
            remedy,
        ),
        ("CK+ names", "`SNNN_NNN` counts no further", float(CKPLUS_NAMES), longer),
    ]
