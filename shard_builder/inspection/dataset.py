"""What is in a dataset folder, as numbers and, on a page, as pictures."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shard_builder.errors import DatasetError
from shard_builder.files import open_regular
from shard_builder.format.decoding import decode_member
from shard_builder.format.index import INDEX_NAME, LISTS, checked_rows, read_index
from shard_builder.format.manifest import Manifest, read_manifest
from shard_builder.format.streams import stored_frames
from shard_builder.format.verify import check_rows
from shard_builder.images import Image
from shard_builder.inspection.flow_picture import flow_speed, flow_to_rgb
from shard_builder.inspection.page import jpeg_address, write_html
from shard_builder.untrusted.text import clean

TEMPLATE = "inspect.html.j2"
NUM_PER_CLASS = 2
NUM_BINS = 32
Histogram = list[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A dataset in numbers.

    Args:
        path: The folder.
        manifest: Its manifest.
        rows: The index.
    """

    path: Path
    manifest: Manifest
    rows: list[dict[str, Any]]

    @property
    def num_frames(self) -> tuple[int, float, int]:
        """Least, median and most frames of a sequence."""
        counts = [row["num_frames"] for row in self.rows]
        return min(counts), float(np.median(counts)), max(counts)

    def classes(self) -> list[tuple[str, int, int]]:
        """List (name, sequences, subjects) of each class."""
        subjects: dict[int, set[str]] = {}
        for row in self.rows:
            subjects.setdefault(row["label"], set()).add(row["subject"])
        return [
            (entry.name, entry.num_sequences, len(subjects.get(entry.label, ())))
            for entry in self.manifest.classes
        ]

    def class_sizes(self) -> Histogram:
        """Count sequences by class."""
        return [(entry.name, entry.num_sequences) for entry in self.manifest.classes]

    def subjects(self) -> list[tuple[str, int, int]]:
        """List (subject, sequences, frames), by name."""
        sequences = Counter(row["subject"] for row in self.rows)
        frames: Counter[str] = Counter()
        for row in self.rows:
            frames[row["subject"]] += row["num_frames"]
        return [(subject, sequences[subject], frames[subject]) for subject in sorted(sequences)]

    def lengths(self) -> Histogram:
        """Count sequences by their number of frames."""
        counts = Counter(row["num_frames"] for row in self.rows)
        low, high = min(counts), max(counts)
        step = max(1, -(-(high - low + 1) // NUM_BINS))
        bins = [range(start, start + step) for start in range(low, high + 1, step)]
        return [
            (str(b[0]) if step == 1 else f"{b[0]}-{b[-1]}", sum(counts[n] for n in b)) for b in bins
        ]


def inspect_dataset(path: Path) -> Inspection:
    """Read manifest and index.

    Raises:
        DatasetError: If the folder is missing, unfinished, damaged or of another version.
    """
    manifest = read_manifest(path)
    index = path / INDEX_NAME
    rows = checked_rows(
        index, read_index(index, streams=manifest.streams, version=manifest.version)
    )
    for fault in check_rows(rows, manifest):
        raise DatasetError(f"{path}: {fault}\n  Run: ckshard verify {path}")
    return Inspection(path=path, manifest=manifest, rows=rows)


def write_page(
    inspection: Inspection, out: Path, *, quality: Any, errors: Sequence[Any] = ()
) -> None:
    """Write one self-contained page: tables, histograms, and some samples of each class.

    Args:
        inspection: What to show.
        out: HTML file.
        quality: The :class:`~shard_builder.inspection.quality.ShuffleQuality`.
        errors: The codec's errors against a lossless build, if there is one.
    """
    samples = [
        (name, [sample_pictures(inspection, row) for row in rows_of_class(inspection, label)])
        for label, (name, _, _) in enumerate(inspection.classes())
    ]
    write_html(
        out,
        Path(__file__).with_name(TEMPLATE),
        page=inspection,
        manifest=inspection.manifest,
        samples=samples,
        speeds=flow_histogram(inspection),
        quality=quality,
        errors=errors,
    )


def rows_of_class(inspection: Inspection, label: int) -> list[dict[str, Any]]:
    """Return the first rows of a class, of different subjects as far as there are."""
    chosen: dict[str, dict[str, Any]] = {}
    for row in inspection.rows:
        if row["label"] == label:
            chosen.setdefault(row["subject"], row)
    return list(chosen.values())[:NUM_PER_CLASS]


def sample_pictures(inspection: Inspection, row: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of a row: its apex, and its flow at three moments."""
    pictures = []
    flow = inspection.manifest.flow
    if "rgb" in inspection.manifest.streams:
        name = f"apex: frame {row['apex'] + 1} of {row['num_frames']}"
        pictures.append((name, read_frame(inspection, row)))
    if flow is not None:
        for quarter in (1, 2, 3):
            number = row["num_pairs"] * quarter // 4
            levels = read_pair(inspection, row, number)
            picture, full_px = flow_to_rgb(levels, bound_px=flow.bound_px)
            pictures.append((f"flow of pair {number + 1}, to {full_px:.2g} px", picture))
    facts = {name: row[name] for name in ("key", "subject", "num_frames")}
    return facts | {"pictures": [(name, jpeg_address(picture)) for name, picture in pictures]}


def flow_histogram(inspection: Inspection) -> Histogram:
    """Count the pixels of the shown samples by speed, in pixels a frame; the last bin is open."""
    flow = inspection.manifest.flow
    if flow is None:
        return []
    edges = np.linspace(0, flow.bound_px / 4, 17)
    counts = np.zeros(len(edges) - 1, np.int64)
    for label in range(len(inspection.manifest.classes)):
        for row in rows_of_class(inspection, label):
            levels = read_pair(inspection, row, row["num_pairs"] // 2)
            speed = flow_speed(levels, bound_px=flow.bound_px)[2]
            counts += np.histogram(np.minimum(speed, edges[-1]), edges)[0]
    return [(f"{edge:.2f}", int(count)) for edge, count in zip(edges, counts, strict=False)]


def read_frame(inspection: Inspection, row: dict[str, Any]) -> Image:
    """Return a row's apex, RGB (H, W, 3).

    Raises:
        DatasetError: If it is damaged.
    """
    entry = inspection.manifest.streams["rgb"]
    stored = stored_frames(entry.frames, num_frames=row["num_frames"], apex=row["apex"])
    number = stored.index(row["apex"])
    if entry.codec == "raw":
        frame: Image = _read_member(inspection, "rgb", row, 0)[number]
        return frame
    return _read_member(inspection, "rgb", row, number)


def read_pair(inspection: Inspection, row: dict[str, Any], number: int) -> Image:
    """Return a pair's levels, x above y, (2H, W).

    Raises:
        DatasetError: If it is damaged.
    """
    if inspection.manifest.streams["flow"].codec == "raw":
        stack = _read_member(inspection, "flow", row, 0)
        return np.concatenate(stack[2 * number : 2 * number + 2])
    return _read_member(inspection, "flow", row, number)


def _read_member(
    inspection: Inspection, stream: str, row: dict[str, Any], number: int
) -> npt.NDArray[np.uint8]:
    manifest, entry = inspection.manifest, inspection.manifest.streams[stream]
    try:
        shard = entry.shards[row[f"{stream}_shard"]].name
        offset, size, crc32 = (row[f"{stream}_{name}"][number] for name in LISTS)
    except IndexError:
        raise _damaged(row, f"{INDEX_NAME} names no {stream} member {number} of it") from None
    with open_regular(inspection.path / shard, error=DatasetError) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        if not 0 < offset <= offset + size <= num_bytes:
            raise _damaged(row, f"{size} bytes at {offset} of {shard}, which has {num_bytes}")
        file.seek(offset)
        data = file.read(size)
    if zlib.crc32(data) != crc32:
        raise _damaged(row, f"its {stream} member at {offset} of {shard} has another CRC-32")
    try:
        return decode_member(
            data, stream, entry, manifest.geometry, num_frames=row["num_frames"], apex=row["apex"]
        )
    except ValueError as error:
        raise _damaged(row, f"its {stream} member at {offset} of {shard} {error}") from None


def _damaged(row: dict[str, Any], what: str) -> DatasetError:
    return DatasetError(f"{clean(row['key'])}: {what}\n  Run: ckshard verify DATASET")
