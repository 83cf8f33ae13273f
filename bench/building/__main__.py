"""Pairs per second of a build by number of workers, beside the original's per-pixel preparation;
bytes of each codec.

    python -m bench.building --json docs/results/build-cpu.json

The faces are drawn at CK+'s 640x490. Commands are timed as a user runs them, start included, and
take turns.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bench.building.model import Run, reckon_ckplus, speed_ups, summarise_runs
from pipelines.throughput.measure import MIN_REPEATS
from pipelines.throughput.turns import machine_facts
from shard_builder.building.flow import make_flow_estimator
from shard_builder.faces.frames import iter_frames
from shard_builder.format.codecs import CODECS
from shard_builder.images import Image, to_gray
from shard_builder.inspection.dataset import Inspection, inspect_dataset
from shard_builder.inspection.quality import codec_errors
from shard_builder.machine import num_usable_cores
from shard_builder.provenance import command_line, package_versions
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.sources.sequence import Source

BOUND_PX = 10
SHORT_FRAMES = 10
"""Longest sequence of the timed release: nearly all are this long, so that workers end together."""
SHARD_BYTES = 65536
"""Less than a sequence: a shard each, so that a small release keeps all workers busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchScale:
    """How much is measured; the defaults are those of the committed record.

    Args:
        num_subjects: Subjects of a release, seven sequences each.
        image_scale: 1 is CK+'s 640x490.
        max_frames: Longest sequence of the release that bytes are counted on (CK+: 71).
        repeats: Turns of each contender.
        original_pairs: Pairs a turn of the original-style preparation.
        worker_counts: Processes of the builds.
    """

    num_subjects: int
    image_scale: float = 1.0
    max_frames: int = 71
    repeats: int = MIN_REPEATS
    original_pairs: int = 2
    worker_counts: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to prepare flow; ``run(turn)`` does it once."""

    name: str
    workers: int
    writes: str
    run: Callable[[int], Run]
    extrapolated: bool = False


def original_levels(plane: npt.NDArray[np.float32]) -> Image:
    """Quantise one component of the flow in a Python loop over its pixels: clip at 10 px, then
    round half to even.

    Source: prepare-ck-, extract_flow.py (what it computes and that it loops, not its code).

    >>> original_levels(np.array([[-12.0, -10.0, 0.0, 10.0, 12.0]], np.float32)).tolist()
    [[0, 0, 128, 255, 255]]
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


def prepare_like_the_original(frames: Sequence[Path], out: Path) -> Run:
    """Write x and y PNGs of each pair of consecutive frames as the original does, without its sleep
    of 0.1 s a pair.
    """
    seconds = dict.fromkeys(("read", "flow", "quantise", "write"), 0.0)
    begin = now = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal now
        before, now = now, time.perf_counter()
        seconds[name] += now - before

    estimate = make_flow_estimator("farneback")
    previous: Image | None = None
    for number, frame in enumerate(iter_frames(tuple(frames))):
        gray = to_gray(frame)
        lap("read")
        if previous is not None:
            flow = estimate(previous, gray)
            lap("flow")
            planes = {
                axis: original_levels(flow[..., place])
                for place, axis in enumerate(("x_flow", "y_flow"))
            }
            lap("quantise")
            for axis, levels in planes.items():
                (out / axis).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(out / axis / f"{out.name}_{number:08d}.png"), levels)
            lap("write")
        previous = gray
    shares = {name: round(100 * value / (now - begin), 1) for name, value in seconds.items()}
    return Run(num_pairs=len(frames) - 1, seconds=now - begin, start_s=None, shares_pct=shares)


def run_ckshard(*words: object) -> str:
    """Run the command from this source folder, installed or not; return what it printed."""
    program = [sys.executable, "-c", "from shard_builder.cli import main; main()", *map(str, words)]
    return subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True).stdout


def time_command(words: Sequence[object], out: Path, *, num_pairs: int) -> Run:
    """Time one ``ckshard build`` or ``prepare`` from start to end and read where its time went;
    ``out`` is removed.
    """
    begin = time.perf_counter()
    printed = run_ckshard(*words)
    seconds = time.perf_counter() - begin
    shutil.rmtree(out)
    inside = re.search(r"(?:built|flow pairs) in ([\d.]+) s", printed)
    shares = re.search(r"worker time [\d.]+ s[:,] (.+)", printed)
    if inside is None or shares is None:
        raise RuntimeError(
            f"ckshard {words[0]} printed no times, expected 'in ... s' and 'worker time"
            f" ...':\n{printed}"
        )
    named = re.findall(r"(\w+) (\d+) %", shares[1])
    flow_alone = re.match(r"([\d.]+) % of it in the flow", shares[1])
    return Run(
        num_pairs=num_pairs,
        seconds=seconds,
        start_s=seconds - float(inside[1]),
        shares_pct=(
            {"flow": float(flow_alone[1])}
            if flow_alone
            else {name: float(share) for name, share in named}
        ),
    )


def make_contenders(
    release: Path, source: Source, scratch: Path, scale: BenchScale
) -> list[Contender]:
    """Return builds with each number of workers, ``ckshard prepare`` and the original-style
    preparation, all of one release.
    """
    num_pairs = sum(len(sequence.frames) - 1 for sequence in source.sequences)
    out = scratch / "out"

    def build(workers: int) -> Run:
        words = (
            "build",
            release,
            out,
            "--codec",
            "jpg",
            "--shard-bytes",
            SHARD_BYTES,
            "--workers",
            workers,
            "--yes",  # a tiny release may have a class of one subject
        )
        return time_command(words, out, num_pairs=num_pairs)

    def original_style(turn: int) -> Run:
        cv2.setNumThreads(num_usable_cores())  # the original leaves OpenCV all cores
        sequence = source.sequences[turn % len(source.sequences)]
        return prepare_like_the_original(
            sequence.frames[: scale.original_pairs + 1], scratch / f"original-{turn}" / sequence.key
        )

    contenders = [
        Contender(
            name="ckshard build",
            workers=workers,
            writes="rgb and flow shards, jpg",
            run=lambda turn, workers=workers: build(workers),  # type: ignore[misc]
        )
        for workers in scale.worker_counts
    ]
    prepare = Contender(
        name="ckshard prepare",
        workers=1,
        writes="flow PNGs, copied frames",
        run=lambda turn: time_command(
            ("prepare", release, out, "--workers", 1), out, num_pairs=num_pairs
        ),
    )
    peer = Contender(
        name="original-style", workers=1, writes="flow PNGs", run=original_style, extrapolated=True
    )
    return [*contenders, prepare, peer]


def take_turns(contenders: Sequence[Contender], *, repeats: int) -> list[dict[str, Any]]:
    """Run the contenders in turns, so that a disturbance of the machine hits all alike; return a
    record of each.
    """
    runs: list[list[Run]] = [[] for _ in contenders]
    for turn in range(repeats):
        for contender, done in zip(contenders, runs, strict=True):
            done.append(contender.run(turn))
            rate = done[-1].num_pairs / done[-1].seconds
            print(
                f"turn {turn + 1} of {repeats}: {contender.name}, workers {contender.workers}:"
                f" {rate:.2f} pairs/s"
            )
    return [
        {
            "name": contender.name,
            "workers": contender.workers,
            "writes": contender.writes,
            "extrapolated": contender.extrapolated,
            **summarise_runs(done),
        }
        for contender, done in zip(contenders, runs, strict=True)
    ]


def count_bytes(inspection: Inspection) -> dict[str, Any]:
    """Count the bytes of a dataset's members per pair and per frame, and what the tars add to
    them.
    """
    rows, manifest = inspection.rows, inspection.manifest
    num_pairs, num_frames = (sum(row[name] for row in rows) for name in ("num_pairs", "num_frames"))
    flow_bytes, rgb_bytes = (
        sum(sum(row[f"{stream}_size"]) for row in rows) for stream in ("flow", "rgb")
    )
    tar_bytes = sum(
        digest.num_bytes for name, digest in manifest.files.items() if name.endswith(".tar")
    )
    return {
        "codec": manifest.streams["flow"].codec,
        "quality": manifest.streams["flow"].quality,
        "width": manifest.geometry.width,
        "height": manifest.geometry.height,
        "num_pairs": num_pairs,
        "num_frames": num_frames,
        "flow_bytes_per_pair": round(flow_bytes / num_pairs),
        "rgb_bytes_per_frame": round(rgb_bytes / num_frames),
        "tar_overhead_pct": round(100 * (tar_bytes / (flow_bytes + rgb_bytes) - 1), 2),
    }


def measure_bytes(release: Path, scratch: Path) -> dict[str, Any]:
    """Build a release with each codec from one prepared tree, so that flow is computed once; count,
    and compare jpg with png.
    """
    tree, found = scratch / "tree", {}
    run_ckshard("prepare", release, tree)
    for codec in CODECS:
        run_ckshard("build", tree, scratch / codec, "--codec", codec, "--yes")
        found[codec] = inspect_dataset(scratch / codec)
    return {
        "bytes": [count_bytes(inspection) for inspection in found.values()],
        "jpg_errors": [asdict(error) for error in codec_errors(found["jpg"], found["png"])],
    }


def run_build_bench(folder: Path, scale: BenchScale) -> dict[str, Any]:
    """Draw two releases, count bytes on the one of natural lengths (which warms the machine up),
    time the short one.
    """
    drawn = ("--subjects", scale.num_subjects, "--image-scale", scale.image_scale, "--max-frames")
    scratch, short, natural = folder / "scratch", folder / "short", folder / "natural"
    scratch.mkdir()
    run_ckshard("synth", natural, *drawn, scale.max_frames)
    if scale.max_frames > SHORT_FRAMES:
        run_ckshard("synth", short, *drawn, SHORT_FRAMES)
    else:
        short = natural
    counted = measure_bytes(natural, scratch)
    source = scan_ckplus(short)
    records = take_turns(make_contenders(short, source, scratch, scale), repeats=scale.repeats)
    height, width = next(iter_frames(source.sequences[0].frames)).shape[:2]
    return {
        "release": {"width": width, "height": height, "num_sequences": len(source.sequences)},
        "repeats": scale.repeats,
        "records": records,
        "speed_ups": speed_ups(records),
        **counted,
        "ckplus_reckoned": reckon_ckplus(records, counted["bytes"]),
        "machine": machine_facts(),
        "versions": package_versions(),
    }


def worker_counts(num_cores: int) -> tuple[int, ...]:
    """Return 1, 2, 4 ... up to the cores, and the cores themselves.

    >>> worker_counts(1), worker_counts(2), worker_counts(6)
    ((1,), (1, 2), (1, 2, 4, 6))
    """
    return (
        *(1 << power for power in range(num_cores.bit_length()) if 1 << power < num_cores),
        num_cores,
    )


def main() -> None:
    begin, num_cores = time.perf_counter(), num_usable_cores()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where the record goes")
    parser.add_argument(
        "--repeats", type=int, default=MIN_REPEATS, help=f"turns of each, at least {MIN_REPEATS}"
    )
    parser.add_argument(
        "--subjects", type=int, default=max(2, -(-num_cores // 3)), help="seven sequences each"
    )
    options = parser.parse_args()
    if options.repeats < MIN_REPEATS:
        parser.error(f"--repeats {options.repeats}, expected {MIN_REPEATS} or more")
    scale = BenchScale(
        num_subjects=options.subjects,
        repeats=options.repeats,
        worker_counts=worker_counts(num_cores),
    )
    with tempfile.TemporaryDirectory(prefix="ckshard-bench-") as folder:
        record = run_build_bench(Path(folder), scale)
    record["command"] = command_line()
    record["seconds"] = round(time.perf_counter() - begin, 1)
    text = json.dumps(record, indent=1) + "\n"
    print(text, end="")
    if options.json:
        options.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
