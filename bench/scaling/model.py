"""The record of bench.scaling as Markdown: pure functions that fill the blocks of
docs/scaling.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from bench.scaling.carry import (
    ADDRESS_SPACE,
    CARRY_FRAMES,
    CARRY_SEQUENCES,
    CORES,
    HOST_BYTES,
    LIMITS,
    PAGE_BYTES,
    PAGE_ENTRY_BYTES,
    RANKS,
    Carry,
    find_breaks,
    middle,
    steps_per_sample,
)

Record = dict[str, Any]


def scaling_blocks(record: Record) -> dict[str, str]:
    """Write the blocks of docs/scaling.md by name."""
    return {
        "scaling-opening": f"{_setup_lines(record)}\n\n{_opening_table(record)}",
        "scaling-limits": _limits_block(record),
        "scaling-building": _building_block(record),
        "scaling-carry": _carry_block(record),
        "scaling-breaks": _breaks_block(record),
    }


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(header)
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _range(value: Any, factor: float = 1.0, digits: int = 1) -> str:
    """Write a spread as median and range."""
    median, low, high = (f"{factor * value[name]:,.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} ({low} - {high})"


def _count(value: float) -> str:
    """Write a large number in words that can be compared at a glance.

    >>> _count(11264), _count(720_830), _count(9.99e7), _count(math.inf)
    ('11.3 thousand', '721 thousand', '99.9 million', 'none')
    """
    if math.isinf(value):
        return "none"
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g}"


def _setup_lines(record: Record) -> str:
    frames, machine, versions = record["frames"], record["machine"], record["versions"]
    named = ", ".join(
        f"{name} {versions[name]}"
        for name in ("python", "numpy", "pyarrow", "opencv-python-headless")
    )
    fewest = min(len(point["verify_full_s"]["runs"]) for point in record["built"])
    return "\n".join(
        [
            (
                f"Sequences of {frames['num_frames']} frames of"
                f" {frames['width']}x{frames['height']}, {frames['flow_method']} flow, both"
                f" streams, {frames['codec']}, planes of {frames['plane']}. {machine['processor']},"
                f" {machine['cores']} cores; {named}."
            ),
            (
                "Each measurement is a fresh process on one core, its files in the page cache;"
                f" medians of {record['repeats']} with the range (full verification of the largest:"
                f" {fewest}, builds: 1)."
            ),
        ]
    )


def _fit_row(record: Record, columns: Sequence[tuple[str, float] | None]) -> list[str]:
    """Write the fits of a table's columns, each a name in the record and a factor, as the row at
    its foot.
    """
    cells = ["fit, n in millions: worst error"]
    for column in columns:
        if column is None:
            cells.append("")
            continue
        line, factor = record["fits"][column[0]], column[1]
        terms = [("1", 1.0, ""), ("n", 1e6, " n"), ("n steps", 1e6, " n steps")]
        parts = [
            f"{scale * factor * line[term]:,.3g}{name}"
            for term, scale, name in terms
            if line.get(term)
        ]
        cells.append(f"{' + '.join(parts)}: {100 * line['worst']:.0f} %")
    return cells


def _opening_table(record: Record) -> str:
    rows = []
    for point in [*record["built"], *record["index_only"]]:
        num = point["num_sequences"]
        arrays = (
            f"{point[name] / num:.0f}" for name in ("kept_bytes", "planned_bytes", "peak_bytes")
        )
        rows.append(
            [
                f"{num:,}" + ("" if "build_s" in point else ", index only"),
                f"{point['shards_per_stream']:,}",
                _range(point["open_s"], 1e3),
                _range(point["plan_s"], 1e3),
                f"{steps_per_sample(num):.2f}",
                _range(point["batch_plan_us"], digits=0),
                (
                    f"{middle(point['anonymous_bytes']) / 1e6:.1f} of"
                    f" {middle(point['resident_bytes']) / 1e6:.1f}"
                ),
                " / ".join(arrays),
                _range(point["split_s"], 1e3),
                f"{middle(point['split_bytes']) / 1e6:.1f}",
            ]
        )
    fitted: list[tuple[str, float] | None] = [
        None,
        ("open_s", 1e3),
        ("plan_s with n steps", 1e3),
        None,
        None,
    ]
    fitted += [("anonymous_bytes", 1e-6), None, ("split_s", 1e3), ("split_bytes", 1e-6)]
    names = (
        "sequences|shards|open, ms|plan of an epoch, ms|steps|plan of a batch, us|anonymous of"
        " resident MB"
    )
    return "\n".join(
        _table(
            [*names.split("|"), "array bytes a sample", "split, ms", "MB"],
            [*rows, _fit_row(record, fitted)],
        )
    )


def _limits_block(record: Record) -> str:
    """Hold the promises of a million samples against the points."""
    point, worst, many = record["index_only"][0], record["index_only"][-2], record["index_only"][-1]
    num = point["num_sequences"]
    lines = []
    for name, what, digits in (("open_s", "open in", 3), ("plan_s", "plan an epoch in", 2)):
        held = "met" if point[name]["max"] < LIMITS[name] else "MISSED"
        lines.append(
            f"- {num:,} samples {what} {point[name]['median']:.{digits}f} s"
            f" ({point[name]['min']:.{digits}f} - {point[name]['max']:.{digits}f}); under"
            f" {LIMITS[name]:g} s is {held}."
        )
    memory, kept, peak = (
        middle(point[name]) / num for name in ("anonymous_bytes", "kept_bytes", "peak_bytes")
    )
    held = "met" if max(memory, peak) < LIMITS["bytes_per_sample"] else "MISSED"
    per_shard = (middle(many["anonymous_bytes"]) - middle(point["anonymous_bytes"])) / many[
        "shards_per_stream"
    ]
    fewest = per_shard / (LIMITS["bytes_per_sample"] - memory)
    lines += [
        (
            f"- They add {memory:.0f} bytes of anonymous memory a sample, {kept:.0f} of them kept"
            f" in training, and peak at {peak:.0f} in arrays while the table is made; under"
            f" {LIMITS['bytes_per_sample']:g} is {held}."
        ),
        (
            f"- {worst['num_sequences']:,} samples, the worst number near a million, plan an epoch"
            f" in {worst['plan_s']['median']:.2f} s ({worst['plan_s']['min']:.2f} -"
            f" {worst['plan_s']['max']:.2f})."
        ),
        (
            f"- In {many['shards_per_stream']:,} shards a stream, what full-size CK+-like sequences"
            f" make at 8 MiB each, the same rows open in {many['open_s']['median']:.2f} s and add"
            f" {middle(many['anonymous_bytes']) / num:.0f} bytes a sample: a manifest of"
            f" {many['manifest_bytes'] / 1e6:.0f} MB. The promise of memory needs {fewest:.0f}"
            " sequences a shard or more."
        ),
    ]
    return "\n".join(lines)


def _building_block(record: Record) -> str:
    rows = [
        [
            f"{point['num_sequences']:,}",
            f"{point['shards_per_stream']:,}",
            f"{point['build_s']:,.1f}",
            f"{point['build_peak_bytes'] / 1e6:,.0f}",
            _range(point["verify_quick_s"], digits=2),
            f"{middle(point['verify_quick_peak_bytes']) / 1e6:,.0f}",
            _range(point["verify_full_s"], digits=2),
        ]
        for point in record["built"]
    ]
    fitted = [None, ("build_s", 1.0), ("build_peak_bytes", 1e-6), ("verify_quick_s", 1.0)]
    fitted += [("verify_quick_peak_bytes", 1e-6), ("verify_full_s", 1.0)]
    names = "sequences|shards|build on one core, s|peak MB|verify --quick, s|added MB|verify, s"
    lines = _table(names.split("|"), [*rows, _fit_row(record, fitted)])
    if record["cores"]:
        runs = [f"{run['build_s']:.1f} s on {run['workers']}" for run in record["cores"]]
        lines += [
            "",
            (
                f"Cores: {record['cores'][0]['num_sequences']:,} sequences are built in"
                f" {', '.join(runs)}."
            ),
        ]
    return "\n".join(lines)


def _carries(record: Record) -> list[Carry]:
    return [
        Carry(record=record, shard_bytes=int(size))
        for size in record["carry"]["sequences_per_shard"]
    ]


def _carry_block(record: Record) -> str:
    num, carries = CARRY_SEQUENCES, _carries(record)
    many, few = record["index_only"][-1], record["index_only"][0]
    listed = (many["manifest_bytes"] - few["manifest_bytes"]) / (
        many["shards_per_stream"] - few["shards_per_stream"]
    )
    same = ["the same"] * (len(carries) - 1)
    rows = [
        [
            "shards a stream (sequences in each)",
            *(f"{num / carry.density:,.0f} ({carry.density:,})" for carry in carries),
        ],
        [
            "`manifest.json`",
            *(f"{num / carry.density * listed / 1e6:,.0f} MB" for carry in carries),
        ],
        ["open", *(f"{carry.open_s(num):,.0f} s" for carry in carries)],
        [
            "anonymous bytes a sample, opened and planned",
            *(f"{carry.bytes_per_sample():.0f}" for carry in carries),
        ],
        *([what, value, *same] for what, value in _carry_rows(carries[0], num)),
    ]
    sizes = (f"`--shard-bytes {carry.shard_bytes:,}`" for carry in carries)
    return "\n".join(_table((f"{num:,} sequences of {CARRY_FRAMES} frames", *sizes), rows))


def _carry_rows(carry: Carry, num: int) -> list[tuple[str, str]]:
    """Carry what does not depend on the shards' size."""
    batch_us = carry.record["carry"]["batch_plan_us"]
    rows_gb, split_gb = num * carry.kept_bytes / 1e9, num * carry.slope("split_bytes") / 1e9
    table_gb = num * carry.flow_bytes * PAGE_ENTRY_BYTES / PAGE_BYTES / 1e9
    build_h, verify_h = (num * carry.slope(name) / 3600 for name in ("build_s", "verify_quick_s"))
    peaks = [
        num * carry.slope(name) / 1e12 for name in ("build_peak_bytes", "verify_quick_peak_bytes")
    ]
    return [
        (
            "`index.arrow`, and its page cache",
            f"{num * carry.row_bytes / 1e9:,.0f} GB, {carry.row_bytes:.0f} bytes a row",
        ),
        (
            f"row arrays of a rank; of a host with {RANKS}",
            f"{rows_gb:,.1f} GB; {RANKS * rows_gb:,.0f} GB",
        ),
        (
            "strings of a split, the same; minutes",
            f"{split_gb:,.0f} GB; {RANKS * split_gb:,.0f} GB; {_split_minutes(carry, num)}",
        ),
        (
            "plan of a batch of 32; of an epoch's, one rank",
            f"{_range(batch_us, digits=0)} us; {_plan_hours(carry, num)} h",
        ),
        (
            f"build of tiny frames, {CORES} cores; verify --quick, one core",
            f"{build_h / CORES:,.1f} h if all of it were parallel; {verify_h:,.0f} h",
        ),
        (
            "memory of the build's main process; of verify",
            f"{peaks[0]:,.2f} TB; {peaks[1]:,.2f} TB",
        ),
        (
            "flow shards, of a process's addresses; page tables of a rank that has read all",
            (
                f"{num * carry.flow_bytes / 1e12:,.0f} of {ADDRESS_SPACE / 1e12:,.0f} TB;"
                f" {table_gb:,.0f} GB"
            ),
        ),
    ]


def _split_minutes(carry: Carry, num: int) -> str:
    return f"{num * carry.slope('split_s') / 60:,.1f}"


def _plan_hours(carry: Carry, num: int) -> str:
    return f"{num / 32 * middle(carry.record['carry']['batch_plan_us']) / 3.6e9:,.2f}"


def _breaks_block(record: Record) -> str:
    carries = _carries(record)
    found = [{entry.name: entry for entry in find_breaks(carry)} for carry in carries]
    sizes = [f"{carry.shard_bytes >> 20:,} MiB" for carry in carries]
    rows = [
        [
            f"{name}: {entry.why}",
            *(_count(other[name].num_sequences) for other in found),
            entry.remedy,
        ]
        for name, entry in found[0].items()
    ]
    lines = _table(("limit of", *(f"sequences, {size} shards" for size in sizes), "then"), rows)
    large = ", ".join(
        f"{name} ({_count(entry.num_sequences)})" for name, entry in list(found[-1].items())[:6]
    )
    here = record["limits"]
    machine = (
        f"The host carried to has {HOST_BYTES >> 30} GiB, {RANKS} ranks and {CORES} cores; the"
        f" measuring machine {here['memory_bytes'] >> 30} GiB, {here['soft_open_files']:,} open"
        f" files and {here['max_map_count']:,} maps."
    )
    return "\n".join(
        [*lines, "", f"With shards of {sizes[-1]} break, in this order: {large}. {machine}"]
    )
