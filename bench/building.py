"""Pairs per second of a build by number of workers, beside the original's per-pixel preparation;
bytes of each codec.

    python -m bench.building --json docs/results/build-cpu.json

The faces are drawn at CK+'s 640x490. Commands are timed as a user runs them, start included, and
take turns.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bench.harness import (
    Record,
    cores_of,
    low_to_high,
    markdown_table,
    median_and_range,
    ratio_in_turns,
    run_benchmark,
    run_ckshard,
)
from pipelines.throughput.turns import Contender, measure_in_turns, spread
from shard_builder.building.flow import make_flow_estimator
from shard_builder.faces.frames import iter_frames
from shard_builder.format.streams import CODECS
from shard_builder.images import Image, to_gray
from shard_builder.inspection.dataset import Inspection, inspect_dataset
from shard_builder.inspection.quality import codec_errors
from shard_builder.machine import num_usable_cores
from shard_builder.sources.ckplus import scan_ckplus

BOUND_PX = 10
MAX_FRAMES, SHORT_FRAMES = 71, 10
"""Longest sequence of the release that bytes are counted on, as in CK+, and of the timed one, where
nearly all are this long, so that workers end together."""
SHARD_BYTES = 65536
"""Less than a sequence: a shard each, so that a small release keeps all workers busy."""
ORIGINAL_PAIRS = 2
"""Pairs a turn of the original-style preparation."""
CKPLUS_NUM_FRAMES = 5876
CKPLUS_NUM_PAIRS = CKPLUS_NUM_FRAMES - 327
"""Each of the 327 labelled sequences has a pair less than frames."""


def original_levels(plane: npt.NDArray[np.float32]) -> Image:
    """Quantise one component of the flow in a Python loop over its pixels: clip at 10 px, then
    round half to even.

    Source: prepare-ck-, extract_flow.py (what it computes and that it loops, not its code).
    """
    height, width = plane.shape
    levels = np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            value = plane[y, x]
            if value > BOUND_PX:
                levels[y, x] = 255
            elif value < -BOUND_PX:
                levels[y, x] = 0
            else:
                levels[y, x] = round(255 * (value + BOUND_PX) / (2 * BOUND_PX))
    return levels


def prepare_like_the_original(frames: Sequence[Path], out: Path) -> None:
    """Write x and y PNGs of each pair of consecutive frames as the original does, without its sleep
    of 0.1 s a pair.
    """
    estimate = make_flow_estimator("farneback")
    previous, *others = map(to_gray, iter_frames(tuple(frames)))
    for number, gray in enumerate(others, 1):
        flow = estimate(previous, gray)
        for place, axis in enumerate(("x_flow", "y_flow")):
            path = out / axis / f"{out.name}_{number:08d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), original_levels(flow[..., place]))
        previous = gray


def make_contenders(release: Path, scratch: Path) -> list[Contender]:
    """Return builds with one worker and with one a core, ``ckshard prepare`` and the original-style
    preparation, all of one release; an epoch's samples are flow pairs.
    """
    sequences, num_cores = scan_ckplus(release).sequences, num_usable_cores()

    def command(word: str, *options: object) -> Callable[[int], int]:
        def run(_epoch: int) -> int:
            shutil.rmtree(scratch / "out", ignore_errors=True)
            run_ckshard(word, release, scratch / "out", *options)
            return sum(len(sequence.frames) - 1 for sequence in sequences)

        return run

    def original_style(epoch: int) -> int:
        cv2.setNumThreads(num_cores)  # the original leaves OpenCV all cores
        sequence = sequences[epoch % len(sequences)]
        out = scratch / f"original-{epoch}" / sequence.key
        prepare_like_the_original(sequence.frames[: ORIGINAL_PAIRS + 1], out)
        return ORIGINAL_PAIRS

    build = ("build", "--codec", "jpg", "--shard-bytes", SHARD_BYTES, "--yes", "--workers")
    runs = {"ckshard build, 1 worker": command(*build, 1)}
    if num_cores > 1:
        runs[f"ckshard build, {num_cores} workers"] = command(*build, num_cores)
    runs["ckshard prepare, 1 worker"] = command("prepare", "--workers", 1)
    runs["original-style (extrapolated)"] = original_style
    return [Contender(name=name, run_epoch=run) for name, run in runs.items()]


def count_bytes(inspection: Inspection) -> Record:
    """Count the bytes of a dataset's members per pair and frame, and what the tars add to them."""
    rows, manifest = inspection.rows, inspection.manifest
    num_pairs, num_frames = (sum(row[name] for row in rows) for name in ("num_pairs", "num_frames"))
    flow, rgb = (sum(sum(row[f"{name}_size"]) for row in rows) for name in ("flow", "rgb"))
    files = manifest.files.items()
    tars = sum(digest.num_bytes for name, digest in files if name.endswith(".tar"))
    return {
        "codec": manifest.streams["flow"].codec,
        "width": manifest.geometry.width,
        "height": manifest.geometry.height,
        "num_pairs": num_pairs,
        "num_frames": num_frames,
        "flow_bytes_per_pair": round(flow / num_pairs),
        "rgb_bytes_per_frame": round(rgb / num_frames),
        "tar_overhead_pct": round(100 * (tars / (flow + rgb) - 1), 2),
    }


def measure_bytes(release: Path, scratch: Path) -> Record:
    """Build a release with each codec from one prepared tree, so that flow is computed once; count,
    and compare jpg with png.
    """
    tree, inspections = scratch / "tree", {}
    run_ckshard("prepare", release, tree)
    for codec in (*CODECS, "lz4"):
        words = ("--codec", "png", "--flow-codec") if codec == "lz4" else ("--codec",)
        run_ckshard("build", tree, scratch / codec, *words, codec, "--yes")
        inspections[codec] = inspect_dataset(scratch / codec)
    errors = codec_errors(inspections["jpg"], inspections["png"])
    return {
        "bytes": [count_bytes(inspection) for inspection in inspections.values()],
        "jpg_errors": [asdict(error) for error in errors],
    }


def measure_builds(
    folder: Path, *, repeats: int, subjects: int, image_scale: float = 1.0
) -> Record:
    """Draw two releases of seven sequences a subject, count bytes on the one of natural lengths,
    time the short one; ``image_scale`` 1 is CK+'s 640x490.
    """
    drawn = ("--subjects", subjects, "--image-scale", image_scale, "--max-frames")
    natural, short = folder / "natural", folder / "short"
    run_ckshard("synth", natural, *drawn, MAX_FRAMES)
    run_ckshard("synth", short, *drawn, SHORT_FRAMES)
    sequences = scan_ckplus(short).sequences
    height, width = next(iter_frames(sequences[0].frames)).shape[:2]
    release = {"width": width, "height": height, "num_sequences": len(sequences)}
    release |= {"num_pairs": sum(len(sequence.frames) - 1 for sequence in sequences)}
    rates = measure_in_turns(make_contenders(short, folder), repeats=repeats, seconds=0)
    return {
        "release": release,
        "repeats": repeats,
        "records": [{"name": name, "pairs_per_s": spread(runs)} for name, runs in rates.items()],
        **measure_bytes(natural, folder),
    }


def build_blocks(record: Record) -> dict[str, str]:
    """Write the Markdown of a record: the blocks ``build`` and ``bytes``."""
    return {"build": _build_block(record), "bytes": _bytes_block(record)}


def _build_block(record: Record) -> str:
    release, rows = record["release"], []
    speeds = {entry["name"]: entry["pairs_per_s"] for entry in record["records"]}
    first, *_, original = speeds.values()
    for name, speed in speeds.items():
        ratio, median = ratio_in_turns(speed, original), speed["median"]
        rows.append(
            f"{name} | {median_and_range(speed, 2)} | {median / first['median']:.2f}"
            f" | {ratio['median']:.2f} ({low_to_high(ratio, 2)})"
            f" | {CKPLUS_NUM_PAIRS / median / 60:.1f} min"
        )
    header = "preparation | pairs/s | range | x one worker | x original-style | CK+, estimated"
    return (
        f"`{record['command']}`: {release['num_sequences']} drawn sequences\nof"
        f" {release['width']}x{release['height']}, {release['num_pairs']} pairs, a shard each;"
        f" {cores_of(record)}, whole commands,\nmedians of {record['repeats']} interleaved turns:"
        f"\n\n{markdown_table(header, rows)}"
    )


def _bytes_block(record: Record) -> str:
    first, rows = record["bytes"][0], []
    for row in record["bytes"]:
        pair, frame = row["flow_bytes_per_pair"], row["rgb_bytes_per_frame"]
        adds = row["tar_overhead_pct"]
        members = CKPLUS_NUM_PAIRS * pair + CKPLUS_NUM_FRAMES * frame
        whole_mb = members * (1 + adds / 100) / 1e6
        rows.append(f"{row['codec']} | {pair:,} | {frame:,} | {adds:.1f} % | {whole_mb:,.0f} MB")
    header = "codec | bytes a pair | bytes an rgb frame | tar adds | CK+, estimated"
    errors = ";\n".join(
        f"{error['stream']} is off by {error['mean_abs']:.2f} on average and {error['largest']} at"
        f" most (PSNR {error['psnr_db']:.1f} dB)"
        for error in record["jpg_errors"]
    )
    return (
        f"Members of {first['num_pairs']} pairs and {first['num_frames']} frames of drawn faces at"
        f" {first['width']}x{first['height']}:\n\n{markdown_table(header, rows)}\n\n"
        f"jpg against png, levels 0 to 255: {errors}."
    )


if __name__ == "__main__":
    subjects = (max(2, -(-num_usable_cores() // 3)), "drawn, seven sequences each")
    run_benchmark(__doc__, measure_builds, build_blocks, subjects=subjects)
