"""``ckshard inspect``: tables in the terminal, a page on request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.table import Table

from shard_builder.checks import check_targets
from shard_builder.cloud.address import address_of
from shard_builder.commands.transfer import folder_to_read
from shard_builder.console import make_console, make_table
from shard_builder.errors import counted
from shard_builder.format.frames import Geometry
from shard_builder.inspection.dataset import Inspection, inspect_dataset, write_page
from shard_builder.inspection.quality import codec_errors, shuffle_quality

LEAST_PSNR_DB = 20.0
"""Of what a usable codec leaves."""


def run_inspect(dataset: Path, *, html: Path | None, lossless: Path | None) -> None:
    """Print what a dataset holds, and write its page."""
    check_targets(html)
    with ExitStack() as stack:
        whole = html is not None or lossless is not None
        folders = [
            stack.enter_context(folder_to_read(place, whole=whole))
            for place in (dataset, *([lossless] if lossless else []))
        ]
        _inspect(*folders, name=address_of(dataset) or str(dataset), html=html)


def _inspect(dataset: Path, lossless: Path | None = None, *, name: str, html: Path | None) -> None:
    console = make_console()
    inspection = inspect_dataset(dataset)
    for table in tables(inspection, name=name):
        console.print(table)
    quality = shuffle_quality(inspection)
    console.print(
        "shuffle:"
        f" {counted(quality.num_consecutive, 'consecutive sample has', 'consecutive samples have')}"
        f" {quality.entropy_bits:.2f} bits of class entropy, random orders {quality.ideal_bits:.2f}"
    )
    errors = codec_errors(inspection, inspect_dataset(lossless)) if lossless else []
    for error in errors:
        console.print(
            f"codec error, {error.stream}: {error.mean_abs:.2f} levels on average, {error.largest}"
            f" at most, PSNR {error.psnr_db:.1f} dB ({error.num_compared} compared)"
        )
        if error.psnr_db < LEAST_PSNR_DB:
            console.print(
                f"notice: no codec costs so much: {lossless} seems to be of another source"
            )
    if html:
        write_page(inspection, html, quality=quality, errors=errors)
        console.print(f"written: {html}")


def tables(inspection: Inspection, *, name: str) -> Iterator[Table]:
    """Yield the whole, by its name, then classes, lengths, streams and subjects if named."""
    whole = make_table(name, "", "")
    whole.show_header = False
    yield _filled(whole, overview(inspection))
    has_subjects = inspection.manifest.has_subjects
    columns = ("class", "sequences", *(["subjects"] if has_subjects else []))
    classes = (row[: len(columns)] for row in inspection.classes())
    yield _filled(make_table("classes", *columns), classes)
    lengths = [entry for entry in inspection.lengths() if entry[1]]
    yield _filled(make_table("lengths", "frames", "sequences", num_left=0), lengths)
    streams = [
        (
            *(name, entry.codec_name, entry.frames or "", entry.num_members),
            *(len(entry.shards), f"{entry.num_bytes / 1e6:.1f}"),
        )
        for name, entry in inspection.manifest.streams.items()
    ]
    columns = ("stream", "codec", "frames", "members", "shards", "MB")
    yield _filled(make_table("streams", *columns, num_left=3), streams)
    if has_subjects:
        subjects = make_table("subjects", "subject", "sequences", "frames")
        yield _filled(subjects, inspection.subjects())


def _filled(table: Table, rows: Iterable[Iterable[object]]) -> Table:
    for row in rows:
        table.add_row(*map(str, row))
    return table


def overview(inspection: Inspection) -> list[tuple[str, str]]:
    """List what is told of the whole dataset, with its value."""
    manifest = inspection.manifest
    source, geometry, flow = manifest.source, manifest.geometry, manifest.flow
    least, median, most = inspection.num_frames
    is_named = manifest.has_subjects
    subjects = counted(manifest.num_subjects, "subject") if is_named else "subjects without names"
    rows = [
        ("source", str(source["kind"])),
        ("sequences", f"{manifest.num_sequences} of {subjects}"),
        ("not used", f"{source['num_unlabelled']} unlabelled, {source['num_skipped']} skipped"),
        ("frames of a sequence", f"{least} to {most}, median {median:g}"),
        ("frames taken", str(manifest.sampling)),
        ("size", f"{geometry.width}x{geometry.height}"),
        ("face crop", manifest.crop),
    ]
    if flow:
        saturated = f"{100 * flow.saturated_fraction:.2f} % at the bound"
        rows += [
            ("flow", f"{flow.method}, bound {flow.bound_px:g} px a frame{_on(flow.size)}"),
            ("flow levels", f"{saturated}, mean {flow.mean_level:.1f} (rest 128)"),
        ]
    return rows


def _on(size: Geometry | None) -> str:
    return f", on frames of {size.width}x{size.height}" if size else ""
