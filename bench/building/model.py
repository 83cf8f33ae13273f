"""What the record of the build benchmark says: its ratios, what CK+ would come to, and the text for
the documentation.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CKPLUS_NUM_FRAMES = 5876
CKPLUS_NUM_PAIRS = CKPLUS_NUM_FRAMES - 327
"""Each of the 327 labelled sequences has a pair less than frames."""
ORIGINAL_SLEEP_S = 0.1
"""The original sleeps after every pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One turn of one contender.

    Args:
        num_pairs: Flow pairs prepared.
        seconds: From start to end.
        start_s: Of these, a command's start, imports, scan and end; None for code that ran in this
            process.
        shares_pct: Where the workers' time went.
    """

    num_pairs: int
    seconds: float
    start_s: float | None
    shares_pct: dict[str, float]


def summarise_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the turns of one contender come to, as plain values for JSON."""
    starts = [run.start_s for run in runs if run.start_s is not None]
    return {
        "num_pairs": runs[0].num_pairs,
        "pairs_per_s": spread([run.num_pairs / run.seconds for run in runs]),
        "start_s": spread(starts) if starts else None,
        "shares_pct": {
            name: spread([run.shares_pct[name] for run in runs])["median"]
            for name in runs[0].shares_pct
        },
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return ``median``, ``min`` and ``max`` of repeated measurements and the ``runs`` themselves.

    >>> spread([1.0, 4.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 4.0, 'runs': [1.0, 4.0, 2.0]}
    """
    runs = [round(value, 4) for value in values]
    return {
        "median": round(statistics.median(runs), 4),
        "min": min(runs),
        "max": max(runs),
        "runs": runs,
    }


def speed_ups(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Divide: builds by the build with one worker, and everything by the original-style
    preparation.

    Returns:
        Records of ``of``, ``over``, the ``ratio`` of medians, and ``min`` and ``max`` of the ratios
        of single turns.
    """
    original, (first, *more) = _original_style(records), _builds(records)
    others = [record for record in records if record is not original]
    return [
        *(_ratio(record, first) for record in more),
        *(_ratio(record, original) for record in others),
    ]


def _original_style(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return next(record for record in records if record["extrapolated"])


def _builds(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["name"] == "ckshard build"]


def _ratio(record: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    ours, theirs = record["pairs_per_s"], base["pairs_per_s"]
    turns = [one / other for one, other in zip(ours["runs"], theirs["runs"], strict=True)]
    return {
        "of": contender_name(record),
        "over": contender_name(base),
        "ratio": round(ours["median"] / theirs["median"], 3),
        "min": round(min(turns), 3),
        "max": round(max(turns), 3),
    }


def contender_name(record: dict[str, Any]) -> str:
    """Name a contender with its workers.

    >>> contender_name({"name": "ckshard build", "workers": 2})
    'ckshard build, 2 workers'
    """
    return f"{record['name']}, {record['workers']} worker{'s' * (record['workers'] != 1)}"


def reckon_ckplus(
    records: Sequence[dict[str, Any]], sizes: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Reckon, not measure, what all of CK+ would take: minutes of each contender and megabytes of
    each codec.
    """
    original_pair_s = 1 / _original_style(records)["pairs_per_s"]["median"]
    minutes = {
        contender_name(record): CKPLUS_NUM_PAIRS / record["pairs_per_s"]["median"] / 60
        for record in records
    }
    return {
        "num_frames": CKPLUS_NUM_FRAMES,
        "num_pairs": CKPLUS_NUM_PAIRS,
        "minutes": {name: round(value, 1) for name, value in minutes.items()},
        "original_sleep_minutes": round(CKPLUS_NUM_PAIRS * ORIGINAL_SLEEP_S / 60, 1),
        "original_with_sleep_pairs_per_s": round(1 / (original_pair_s + ORIGINAL_SLEEP_S), 4),
        "megabytes": {row["codec"]: round(_ckplus_bytes(row) / 1e6, 1) for row in sizes},
    }


def _ckplus_bytes(row: dict[str, Any]) -> float:
    members = (
        CKPLUS_NUM_PAIRS * row["flow_bytes_per_pair"]
        + CKPLUS_NUM_FRAMES * row["rgb_bytes_per_frame"]
    )
    return float(members * (1 + row["tar_overhead_pct"] / 100))


def build_blocks(record: dict[str, Any]) -> dict[str, str]:
    """Write the Markdown of a record, by the names of the blocks it goes into: ``build`` and
    ``bytes``.
    """
    return {"build": _build_block(record), "bytes": _bytes_block(record)}


def _build_block(record: dict[str, Any]) -> str:
    release, machine, minutes = (
        record["release"],
        record["machine"],
        record["ckplus_reckoned"]["minutes"],
    )
    lines = [
        (
            f"`{record['command']}`: {release['num_sequences']} drawn sequences of"
            f" {release['width']}x{release['height']}, a shard each,"
        ),
        (
            f"{machine['usable_cores']} cores of {machine['processor']}, whole commands, medians of"
            f" {record['repeats']} interleaved turns:"
        ),
        "",
        (
            "| preparation | writes | workers | pairs a turn | pairs/s | range | all of CK+,"
            " estimated |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for entry in record["records"]:
        speed = entry["pairs_per_s"]
        cells = [
            entry["name"] + (" (extrapolated)" if entry["extrapolated"] else ""),
            entry["writes"],
            str(entry["workers"]),
            str(entry["num_pairs"]),
            f"{speed['median']:.2f}",
            f"{speed['min']:.2f} - {speed['max']:.2f}",
            f"{minutes[contender_name(entry)]:.1f} min",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| speed-up | ratio of medians | range over the turns |", "|---|---|---|"]
    lines += [
        f"| {entry['of']} / {entry['over']} | {entry['ratio']:.2f} | {entry['min']:.2f} -"
        f" {entry['max']:.2f} |"
        for entry in record["speed_ups"]
    ]
    return "\n".join([*lines, "", *_build_sentences(record)])


def _build_sentences(record: dict[str, Any]) -> list[str]:
    """Say what the original-style row leaves out, and where the time of a build goes."""
    estimated, original, builds = (
        record["ckplus_reckoned"],
        _original_style(record["records"]),
        _builds(record["records"]),
    )
    shares = ", ".join(f"{name} {share:.0f} %" for name, share in builds[0]["shares_pct"].items())
    loop_pct, with_sleep = (
        original["shares_pct"]["quantise"],
        estimated["original_with_sleep_pairs_per_s"],
    )
    starts = [
        f"{build['start_s']['median']:.1f} s with --workers {build['workers']}" for build in builds
    ]
    return [
        (
            f"The original-style row is extrapolated from {original['num_pairs']} pairs a turn:"
            " Farneback, a Python loop over the pixels"
        ),
        (
            f"({loop_pct:.0f} % of the time) and PNGs, in one process. The original's sleep of"
            f" {ORIGINAL_SLEEP_S} s after each pair is left out;"
        ),
        (
            f"by arithmetic it adds {estimated['original_sleep_minutes']:.1f} minutes to CK+"
            f" ({with_sleep:.2f} pairs/s with it)."
        ),
        (
            f"Worker time of a build: {shares}. Start, imports and scan of the main process"
            f" ({', '.join(starts)}) are inside the rates."
        ),
    ]


def _bytes_block(record: dict[str, Any]) -> str:
    megabytes = record["ckplus_reckoned"]["megabytes"]
    raw = next(row for row in record["bytes"] if row["codec"] == "raw")
    lines = [
        (
            f"Members of {raw['num_pairs']} pairs and {raw['num_frames']} frames of drawn faces at"
            f" {raw['width']}x{raw['height']}:"
        ),
        "",
        (
            "| codec | bytes a pair | of raw | bytes an rgb frame | of raw | tar adds | all of CK+,"
            " estimated |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["bytes"]:
        cells = [row["codec"] if row["quality"] is None else f"{row['codec']} {row['quality']}"]
        for name in ("flow_bytes_per_pair", "rgb_bytes_per_frame"):
            cells += [f"{row[name]:,}", f"{100 * row[name] / raw[name]:.1f} %"]
        cells += [f"{row['tar_overhead_pct']:.1f} %", f"{megabytes[row['codec']]:,.0f} MB"]
        lines.append(f"| {' | '.join(cells)} |")
    errors = [
        f"{error['stream']} levels are off by {error['mean_abs']:.2f} on average and"
        f" {error['largest']} at most (PSNR {error['psnr_db']:.1f} dB, {error['num_compared']}"
        " compared)"
        for error in record["jpg_errors"]
    ]
    return "\n".join(
        [*lines, "", f"jpg against png: {'; '.join(errors)}. png and raw are lossless."]
    )
