"""``ckshard build``: scan, build, and say what was built."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from pathlib import Path

from rich.table import Table

from shard_builder.building.build import BuildReport, build_dataset
from shard_builder.building.cluster import cluster_executor
from shard_builder.building.options import BuildOptions
from shard_builder.console import make_console
from shard_builder.errors import InputError
from shard_builder.progress import progress_bar
from shard_builder.sources.detect import scan_source
from shard_builder.sources.sequence import CKPLUS_NUM_SEQUENCES, Source

ABSURD_SATURATION = 0.05
ABSURD_MEAN_OFFSET = 12.0


def run_build(
    src: Path,
    dataset: Path,
    options: BuildOptions,
    *,
    workers: int,
    overwrite: bool,
    kind: str = "auto",
    subjects: Path | None = None,
    subject_pattern: str = "",
    scheduler: str = "",
) -> None:
    """Scan ``src``, build ``dataset`` and print the tables."""
    if workers < 0:
        raise InputError(f"--workers {workers}, expected 0 (all cores) or more")
    console = make_console()
    source = scan_source(
        src,
        kind=kind,
        subjects=subjects,
        subject_pattern=subject_pattern,
        on_error=options.on_error,
    )
    console.print(source_line(source), highlight=False)
    console.print(source_table(source))
    begin = time.monotonic()
    with (
        cluster_executor(scheduler) if scheduler else nullcontext() as executor,
        progress_bar("building sequences", console=console) as report,
    ):
        built = build_dataset(
            source,
            src,
            dataset,
            options,
            workers=workers or os.cpu_count() or 1,
            overwrite=overwrite,
            executor=executor,
            on_progress=report,
        )
    console.print(stream_table(built, seconds=time.monotonic() - begin))
    for line in report_lines(built, dataset):
        console.print(line, highlight=False)


def source_line(source: Source) -> str:
    """Say what a scan found."""
    subjects = len({sequence.subject for sequence in source.sequences})
    return (
        f"{len(source.sequences)} labelled sequences of {subjects} subjects,"
        f" {source.num_unlabelled} unlabelled"
    )


def source_table(source: Source) -> Table:
    """Tabulate what a scan found; beside CK+'s official counts if every class has as many as CK+ or
    fewer.
    """
    counts = {
        code: sum(sequence.code == code for sequence in source.sequences)
        for code, _ in source.class_table()
    }
    official = source.kind == "ckplus" and sum(counts.values()) == sum(CKPLUS_NUM_SEQUENCES)
    table = Table()
    table.add_column("class")
    table.add_column("sequences", justify="right")
    if official:
        table.add_column("CK+", justify="right")
    for code, name in source.class_table():
        row = [name, str(counts[code])]
        if official:
            row.append(
                f"{CKPLUS_NUM_SEQUENCES[code]}"
                + ("" if counts[code] == CKPLUS_NUM_SEQUENCES[code] else "  differs")
            )
        table.add_row(*row)
    if source.skipped:
        table.caption = f"{len(source.skipped)} sequences skipped"
    return table


def stream_table(built: BuildReport, *, seconds: float) -> Table:
    """Tabulate size, compression and speed of each stream."""
    manifest = built.manifest
    table = Table(
        title=f"built in {seconds:.1f} s, {built.num_pairs / max(seconds, 1e-9):.1f} pairs/s"
    )
    for name in ("stream", "codec", "samples", "members", "shards", "MB", "of raw", "saturated"):
        table.add_column(name, justify="left" if name in ("stream", "codec") else "right")
    plane = manifest.geometry.height * manifest.geometry.width
    num_frames = built.num_pairs + manifest.num_sequences
    for name, stream in manifest.streams.items():
        kept = {
            "all": num_frames,
            "last": manifest.num_sequences,
            "last3": 3 * manifest.num_sequences,
        }
        raw = (
            2 * plane * built.num_pairs
            if name == "flow"
            else 3 * plane * kept[stream.frames or "all"]
        )
        saturated = (
            f"{100 * manifest.flow.saturated_fraction:.2f} %"
            if name == "flow" and manifest.flow
            else ""
        )
        table.add_row(
            name,
            stream.codec if stream.quality is None else f"{stream.codec} {stream.quality}",
            str(manifest.num_sequences),
            str(stream.num_members),
            str(len(stream.shards)),
            f"{stream.num_bytes / 1e6:.1f}",
            f"{100 * stream.num_bytes / raw:.1f} %",
            saturated,
        )
    return table


def report_lines(built: BuildReport, dataset: Path) -> list[str]:
    """Say where the time went, what was reused and skipped, and whether the flow looks absurd."""
    manifest, lines = built.manifest, []
    total = sum(built.seconds.values())
    if total:
        shares = ", ".join(
            f"{name} {100 * value / total:.0f} %" for name, value in built.seconds.items()
        )
        lines.append(f"worker time {total:.1f} s: {shares}")
    if built.num_reused_shards:
        lines.append(
            f"{built.num_reused_shards} of {built.num_shards} shards were finished already and kept"
        )
    if manifest.source["num_skipped"]:
        lines.append(
            f"{manifest.source['num_skipped']} sequences skipped, see {dataset / 'skipped.jsonl'}"
        )
    if manifest.flow and manifest.flow.saturated_fraction > ABSURD_SATURATION:
        lines.append(
            f"warning: {100 * manifest.flow.saturated_fraction:.1f} % of the flow saturates at"
            f" {manifest.flow.bound_px} px a frame, expected under 5 %; is the video cut, or"
            " --bound-px too small?"
        )
    if manifest.flow and abs(manifest.flow.mean_level - 128) > ABSURD_MEAN_OFFSET:
        lines.append(
            f"warning: the mean flow level is {manifest.flow.mean_level:.1f}, expected about 128;"
            " does the camera move?"
        )
    return lines
