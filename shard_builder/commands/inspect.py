"""``ckshard inspect``: tables in the terminal, a page on request."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from shard_builder.console import make_console
from shard_builder.inspection.dataset import Inspection, inspect_dataset, write_page
from shard_builder.inspection.quality import codec_errors, shuffle_quality


def run_inspect(dataset: Path, *, html: Path | None, lossless: Path | None) -> None:
    """Print what a dataset holds, and write its page; with a lossless build of the same source also
    the codec's error.
    """
    console = make_console()
    inspection = inspect_dataset(dataset)
    tables = (
        overview_table(inspection),
        class_table(inspection),
        length_table(inspection),
        stream_table(inspection),
    )
    for table in (*tables, subject_table(inspection)):
        console.print(table)
    quality = shuffle_quality(inspection)
    console.print(
        f"shuffle: {quality.window} consecutive samples have {quality.entropy_bits:.2f} bits of"
        f" class entropy, random orders {quality.ideal_bits:.2f}",
        highlight=False,
    )
    errors = codec_errors(inspection, inspect_dataset(lossless)) if lossless else []
    for error in errors:
        console.print(
            f"codec error, {error.stream}: {error.mean_abs:.2f} levels on average, {error.largest}"
            f" at most, PSNR {error.psnr_db:.1f} dB ({error.num_compared} compared)",
            highlight=False,
        )
    if html:
        write_page(inspection, html, quality=quality, errors=errors)
        console.print(f"written: {html}", highlight=False)


def overview_table(inspection: Inspection) -> Table:
    """Tabulate the whole."""
    manifest = inspection.manifest
    least, median, most = inspection.num_frames
    table = Table(title=str(inspection.path), show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row("source", str(manifest.source["kind"]))
    table.add_row("sequences", f"{manifest.num_sequences} of {manifest.num_subjects} subjects")
    table.add_row(
        "not used",
        f"{manifest.source['num_unlabelled']} unlabelled, {manifest.source['num_skipped']} skipped",
    )
    table.add_row("frames of a sequence", f"{least} to {most}, median {median:g}")
    table.add_row(
        "size", f"{manifest.geometry.width}x{manifest.geometry.height}, crop {manifest.crop}"
    )
    if manifest.flow:
        flow = manifest.flow
        table.add_row("flow", f"{flow.method}, bound {flow.bound_px:g} px a frame")
        table.add_row(
            "flow levels",
            f"{100 * flow.saturated_fraction:.2f} % at the bound, mean {flow.mean_level:.1f} (rest"
            " 128)",
        )
    return table


def class_table(inspection: Inspection) -> Table:
    """Tabulate the classes."""
    table = Table(title="classes")
    for name in ("class", "sequences", "subjects"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for name, sequences, subjects in inspection.classes():
        table.add_row(name, str(sequences), str(subjects))
    return table


def length_table(inspection: Inspection) -> Table:
    """Tabulate sequences by their number of frames."""
    table = Table(title="lengths")
    for name in ("frames", "sequences"):
        table.add_column(name, justify="right")
    for name, count in inspection.lengths():
        if count:
            table.add_row(name, str(count))
    return table


def subject_table(inspection: Inspection) -> Table:
    """Tabulate the subjects."""
    table = Table(title="subjects")
    for name in ("subject", "sequences", "frames"):
        table.add_column(name, justify="left" if name == "subject" else "right")
    for subject, sequences, frames in inspection.subjects():
        table.add_row(subject, str(sequences), str(frames))
    return table


def stream_table(inspection: Inspection) -> Table:
    """Tabulate the streams."""
    table = Table(title="streams")
    for name in ("stream", "codec", "frames", "members", "shards", "MB"):
        table.add_column(name, justify="left" if name in ("stream", "codec", "frames") else "right")
    for name, stream in inspection.manifest.streams.items():
        codec = stream.codec if stream.quality is None else f"{stream.codec} {stream.quality}"
        cells = [name, codec, stream.frames or "", str(stream.num_members), str(len(stream.shards))]
        table.add_row(*cells, f"{stream.num_bytes / 1e6:.1f}")
    return table
