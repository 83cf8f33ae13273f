"""``ckshard build``: scan, build, and say what was built."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shard_builder.building.build import BuildReport, build_dataset, finished_dataset
from shard_builder.building.cluster import cluster_executor
from shard_builder.building.flow_levels import REST_FRACTION
from shard_builder.building.options import BuildOptions
from shard_builder.console import make_console, make_table
from shard_builder.errors import InputError, counted
from shard_builder.progress import progress_bar
from shard_builder.sources.detect import scan_source
from shard_builder.sources.guards import check_plausible, is_stills, understood
from shard_builder.sources.options import ScanOptions
from shard_builder.sources.sequence import CKPLUS_NUM_SEQUENCES, Source

ABSURD_SATURATION, ABSURD_REST = 0.05, REST_FRACTION
ABSURD_MEAN_OFFSET = 12.0


def run_build(
    src: Path,
    dataset: Path,
    scan: ScanOptions,
    options: BuildOptions,
    *,
    workers: int,
    overwrite: bool,
    take_over: bool = False,
    yes: bool = False,
    scheduler: str = "",
) -> None:
    """Scan ``src``, say what was understood, build ``dataset`` and print the tables."""
    console = make_console()
    source = scan_source(src, scan)
    print_understood(console, source)
    if not yes:
        check_plausible(source)
    if is_stills(source) and "flow" in options.streams:
        if "rgb" not in options.streams:
            raise InputError("streams='flow', but these are stills, of which there is no flow")
        console.print("stills have no flow: an rgb-only dataset")
        options = replace(options, streams=("rgb",))
    source_root = src if src.is_dir() else scan.root or src.parent
    if not overwrite and finished_dataset(source, source_root, dataset, options):
        console.print(f"{dataset}: finished already")
        return
    begin = time.monotonic()
    with (
        cluster_executor(scheduler) if scheduler else nullcontext() as executor,
        progress_bar("building sequences", console=console) as on_progress,
    ):
        report = build_dataset(
            source,
            source_root,
            dataset,
            options,
            workers=workers,
            overwrite=overwrite,
            take_over=take_over,
            executor=executor,
            on_progress=on_progress,
        )
    console.print(stream_table(report, seconds=time.monotonic() - begin))
    for line in report_lines(report, dataset, options):
        console.print(line)


def print_understood(console: Console, source: Source) -> None:
    """Print what a scan understood, and its classes."""
    for line in understood(source):
        console.print(line)
    console.print(source_table(source))


def source_table(source: Source) -> Table:
    """Tabulate what a scan found, beside CK+'s official counts if it is as large as CK+."""
    counts = Counter(sequence.code for sequence in source.sequences)
    is_whole = source.kind == "ckplus" and sum(counts.values()) == sum(CKPLUS_NUM_SEQUENCES)
    caption = f"{counted(len(source.skipped), 'sequence')} skipped" if source.skipped else None
    columns = ("class", "sequences", "CK+") if is_whole else ("class", "sequences")
    table = make_table("", *columns, caption=caption)
    for code, name in source.classes:
        row = [name, str(counts[code])]
        if is_whole:
            official = CKPLUS_NUM_SEQUENCES[code]
            row.append(f"{official}" + ("" if counts[code] == official else "  differs"))
        table.add_row(*row)
    return table


def stream_table(report: BuildReport, *, seconds: float) -> Table:
    """Tabulate size, compression and speed of each stream."""
    manifest = report.manifest
    title = f"built in {seconds:.1f} s, {report.num_pairs / max(seconds, 1e-9):.1f} pairs/s"
    numbers = ("samples", "members", "shards", "MB", "of raw", "saturated")
    table = make_table(title, "stream", "codec", *numbers, num_left=2)
    plane = manifest.geometry.height * manifest.geometry.width
    for name, stream in manifest.streams.items():
        saturated = ""
        if name == "rgb":
            num_raw = 3 * plane * report.num_rgb_frames
        else:
            num_raw = 2 * plane * report.num_pairs
            if manifest.flow:
                saturated = f"{100 * manifest.flow.saturated_fraction:.2f} %"
        table.add_row(
            name,
            stream.codec_name,
            str(manifest.num_sequences),
            str(stream.num_members),
            str(len(stream.shards)),
            f"{stream.num_bytes / 1e6:.1f}",
            f"{100 * stream.num_bytes / num_raw:.1f} %",
            saturated,
        )
    return table


def report_lines(report: BuildReport, dataset: Path, options: BuildOptions) -> list[str]:
    """Say where the time went, what was reused and skipped, and whether the flow looks absurd."""
    manifest, lines = report.manifest, []
    total = sum(report.seconds.values())
    if total:
        shares = (f"{name} {100 * value / total:.0f} %" for name, value in report.seconds.items())
        lines.append(f"worker time {total:.1f} s: {', '.join(shares)}")
    if report.num_reused_shards:
        lines.append(
            f"{report.num_reused_shards} of {counted(report.num_shards, 'shard')} were finished"
            " already and kept"
        )
    num_skipped = manifest.source["num_skipped"]
    if num_skipped and isinstance(num_skipped, int):
        lines.append(f"{counted(num_skipped, 'sequence')} skipped, see {dataset / 'skipped.jsonl'}")
    if report.returning:
        lines.append(
            f"warning: {counted(len(report.returning), 'sequence')}, such as {report.returning[0]},"
            " end near their first frame, but their last one is taken for the apex; name it in a"
            " table or list, or pass --apex motion"
        )
    flow = manifest.flow
    if flow and flow.saturated_fraction > ABSURD_SATURATION:
        lines.append(
            f"warning: {100 * flow.saturated_fraction:.1f} % of the flow saturates at"
            f" {flow.bound_px} px a frame, expected under 5 %; is the video cut, or --bound-px too"
            " small?"
        )
    if flow and (flow.rest_fraction or 0) > ABSURD_REST:
        lines.append(
            f"warning: {100 * (flow.rest_fraction or 0):.1f} % of the flow levels are within one of"
            f" rest, expected under 95 %; {rest_advice(report, options)}"
        )
    if flow and abs(flow.mean_level - 128) > ABSURD_MEAN_OFFSET:
        lines.append(
            f"warning: the mean flow level is {flow.mean_level:.1f}, expected about 128; does the"
            " camera move?"
        )
    return lines


def rest_advice(report: BuildReport, options: BuildOptions) -> str:
    """Say what would help where nearly all flow is at rest."""
    if report.rest_cure is None:
        return "hardly anything moves: does the face fill the picture (--crop faces)?"
    step, bound_px = report.rest_cure
    words = [f"--bound-px {bound_px:g}"]
    if step > 1 and options.fps is not None:
        words.insert(0, f"--fps {options.fps / step:g}")
    elif step > 1:
        words.insert(0, f"--frame-step {options.frame_step * step}")
    return f"{' '.join(words)} would use more of them"
