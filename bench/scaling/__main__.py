"""How cost grows with sequences and shards: open, plan, split, verify and build, measured on
generated datasets of tiny frames.

    python -m bench.scaling --json docs/results/scaling.json

Datasets up to 100,000 sequences are real: six frames each, hard links to small pictures, built by
``ckshard build``. Those of a million are an index and a manifest without shards, tiled from the
largest real one, for opening and planning read nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.building.memory import NUM_FRAMES, peak_memory, write_linked_release
from bench.scaling.carry import CARRY_FRAMES, CARRY_SEQUENCES, fit_points, spread
from pipelines.throughput.measure import MIN_REPEATS
from pipelines.throughput.turns import machine_facts
from shard_builder.building import build as shard_build
from shard_builder.building.options import BuildOptions
from shard_builder.format.index import INDEX_NAME, read_index
from shard_builder.format.manifest import MANIFEST_NAME, Shard, read_manifest
from shard_builder.machine import num_usable_cores
from shard_builder.provenance import command_line, package_versions
from shard_builder.sources.sequence import FaceSequence, Source

ROOT = Path(__file__).parent.parent.parent
FRAME, PLANE = {"width": 16, "height": 12}, "8x8"
SHARD_BYTES, SMALL_SHARD_BYTES = 65536, 4096
CARRY_SHARD_BYTES = shard_build.SHARD_BYTES
WORST_LARGE = (1 << 20) + 1
"""One more than a power of four: the permutation walks over the next one, nearly four times as
far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured; the defaults are those of the committed record.

    Args:
        sizes: Sequences of the real datasets, ascending.
        more_shards: Size that is built again with small shards.
        more_cores: Size that is built again on all usable cores.
        large: Rows of the datasets without shards.
        repeats: Processes of each measurement.
        full_repeats: The same for the full verification of the largest size.
    """

    sizes: tuple[int, ...] = (1_000, 10_000, 100_000)
    more_shards: int = 10_000
    more_cores: int = 10_000
    large: tuple[int, ...] = (1_000_000, WORST_LARGE)
    repeats: int = MIN_REPEATS
    full_repeats: int = 2


def measure_scaling(scale: Scale, folder: Path) -> dict[str, Any]:
    """Build, measure and fit everything; ``folder`` is a scratch folder that needs about 3 GB for
    the defaults.
    """
    built, cores = [], []
    for size in scale.sizes:
        release = folder / f"release-{size}"
        release.mkdir()
        write_linked_release(release, size, **FRAME)
        built.append(measure_built(release, folder / f"dataset-{size}", size, SHARD_BYTES, scale))
        if size == scale.more_shards:
            built.append(
                measure_built(release, folder / "more-shards", size, SMALL_SHARD_BYTES, scale)
            )
        if size == scale.more_cores:
            for workers in sorted({1, num_usable_cores()}):
                seconds = build(release, folder / "more-cores", SHARD_BYTES, workers=workers)[
                    "build_s"
                ]
                shutil.rmtree(folder / "more-cores")
                cores.append({"num_sequences": size, "workers": workers, "build_s": seconds})
        shutil.rmtree(release)
    per_shard = {str(num_bytes): sequences_per_shard(num_bytes) for num_bytes in CARRY_SHARD_BYTES}
    large = measure_large(
        folder, scale, built[-1], least_density=per_shard[str(CARRY_SHARD_BYTES[0])]
    )
    return {
        "format": "ckshard-scaling",
        "version": 1,
        "command": command_line(),
        "machine": machine_facts(),
        "limits": machine_limits(),
        "versions": package_versions() | {"pyarrow": pa.__version__},
        "repeats": scale.repeats,
        "frames": {
            "num_frames": NUM_FRAMES,
            **FRAME,
            "plane": PLANE,
            "flow_method": "dis",
            "codec": "jpg",
        },
        "built": built,
        "cores": cores,
        "index_only": large,
        "carry": {
            **spread_runs([probe("batch", CARRY_SEQUENCES) for _ in range(scale.repeats)]),
            "num_frames": CARRY_FRAMES,
            "sequences_per_shard": per_shard,
            "per_mapped_shard": probe("maps", folder / f"dataset-{scale.sizes[0]}"),
        },
        "fits": fit_points(built, large[:-1]),
    }


def measure_large(
    folder: Path, scale: Scale, largest: dict[str, Any], *, least_density: int
) -> list[dict[str, Any]]:
    """Measure the opening of index and manifest without shards: as dense as the largest dataset,
    then in the least shards of a build.
    """
    density = largest["num_sequences"] // largest["shards_per_stream"]
    origin = folder / f"dataset-{largest['num_sequences']}"
    found = []
    for num_rows, each in [
        *((rows, density) for rows in scale.large),
        (scale.large[0], least_density),
    ]:
        write_large_index(
            folder / "large", origin, num_rows=num_rows, num_shards=-(-num_rows // each)
        )
        found.append(measure_opening(folder / "large", scale.repeats))
        shutil.rmtree(folder / "large")
        report(found[-1])
    return found


def measure_built(
    release: Path, dataset: Path, size: int, shard_bytes: int, scale: Scale
) -> dict[str, Any]:
    """Build a dataset on one core, then measure its opening and its verification."""
    record = build(release, dataset, shard_bytes, workers=1) | measure_opening(
        dataset, scale.repeats
    )
    for what in ("quick", "full"):
        repeats = scale.full_repeats if (what, size) == ("full", scale.sizes[-1]) else scale.repeats
        runs = [probe(what, dataset) for _ in range(repeats)]
        record[f"verify_{what}_s"] = spread([run["seconds"] for run in runs])
        record[f"verify_{what}_peak_bytes"] = spread([run["peak_bytes"] for run in runs])
    report(record)
    return record


def build(release: Path, dataset: Path, shard_bytes: int, *, workers: int) -> dict[str, Any]:
    """Time one ``ckshard build`` on as many cores as workers, scan and start included, and watch
    its memory.
    """
    cores = sorted(os.sched_getaffinity(0))[-workers:]
    program = (
        f"import os; os.sched_setaffinity(0, {cores}); from shard_builder.cli import main; main()"
    )
    options = {
        "--size": PLANE,
        "--flow-method": "dis",
        "--shard-bytes": shard_bytes,
        "--workers": workers,
    }
    words = [str(word) for option in options.items() for word in option]
    main_bytes, _, seconds = peak_memory(
        [sys.executable, "-c", program, "build", str(release), str(dataset), "--yes", *words]
    )
    return {"build_s": round(seconds, 2), "build_peak_bytes": main_bytes}


def measure_opening(dataset: Path, repeats: int) -> dict[str, Any]:
    """Measure open, plan and split in fresh processes, and count what lies on disk."""
    manifest = read_manifest(dataset)
    batch = read_index(dataset / INDEX_NAME, streams=manifest.streams)
    ends = {
        name: np.frombuffer(batch.column(name).buffers()[1], np.int32)[batch.num_rows]
        for name in ("key", "source")
    }
    return {
        "num_sequences": batch.num_rows,
        "shards_per_stream": len(manifest.streams["flow"].shards),
        "index_bytes": (dataset / INDEX_NAME).stat().st_size,
        "manifest_bytes": (dataset / MANIFEST_NAME).stat().st_size,
        **{f"{name}_text_bytes": int(end) for name, end in ends.items()},
        **spread_runs([probe("open", dataset) for _ in range(repeats)]),
        **spread_runs([probe("split", dataset) for _ in range(repeats)]),
        **probe("traced", dataset),
    }


def probe(what: str, target: Path | int) -> dict[str, float]:
    """Run one measurement of bench/scaling/probe.py in a fresh process on one core."""
    command = [sys.executable, "-m", "bench.scaling.probe", what, str(target)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def spread_runs(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Turn records of single runs into a record of spreads."""
    return {name: spread([run[name] for run in runs]) for name in runs[0]}


def write_large_index(folder: Path, origin: Path, *, num_rows: int, num_shards: int) -> None:
    """Write index and manifest of ``num_rows`` sequences in ``num_shards`` shards a stream, and no
    shards.

    The rows are those of ``origin`` again and again, with fresh keys of eight characters and shard
    numbers; the manifest lists a checksum of every shard that is not there.
    """
    manifest = read_manifest(origin)
    batch = read_index(origin / INDEX_NAME, streams=manifest.streams)
    table = pa.Table.from_batches([batch] * -(-num_rows // batch.num_rows)).slice(0, num_rows)
    columns = {"key": pa.array([f"S{row:07d}" for row in range(num_rows)], pa.string())}
    shards = pa.array(np.arange(num_rows, dtype=np.int64) * num_shards // num_rows, pa.int32())
    columns |= {f"{stream}_shard": shards for stream in manifest.streams}
    for name, column in columns.items():
        table = table.set_column(
            table.schema.get_field_index(name), table.schema.field(name), column
        )
    (whole,) = table.combine_chunks().to_batches()
    folder.mkdir()
    with (
        pa.OSFile(str(folder / INDEX_NAME), "wb") as sink,
        pa.ipc.new_file(sink, whole.schema) as writer,
    ):
        writer.write_batch(whole)
    names = {
        stream: [f"{stream}-{number:06d}" for number in range(num_shards)]
        for stream in manifest.streams
    }
    tiled = replace(
        manifest,
        num_sequences=num_rows,
        streams={
            stream: replace(
                entry,
                shards=tuple(
                    Shard(name=f"{name}.tar", num_samples=num_rows // num_shards)
                    for name in names[stream]
                ),
            )
            for stream, entry in manifest.streams.items()
        },
        files={
            f"{name}.{suffix}": manifest.files[f"{stream}-000000.{suffix}"]
            for stream in names
            for name in names[stream]
            for suffix in ("tar", "idx")
        },
    )
    (folder / MANIFEST_NAME).write_text(tiled.to_json(), encoding="utf-8")


def sequences_per_shard(shard_bytes: int) -> int:
    """Ask the build how many sequences of ``CARRY_FRAMES`` frames it puts into a shard at its
    default codec and streams.
    """
    options = BuildOptions(shard_bytes=shard_bytes)
    frames = (Path("frame.png"),) * CARRY_FRAMES
    raw_bytes = 2 * options.width * options.height * (CARRY_FRAMES - 1)
    num_sequences = 2 + 20 * shard_bytes // raw_bytes
    sequences = tuple(
        FaceSequence(
            key=f"S{n:07d}",
            subject="S",
            session="0",
            emotion="anger",
            code=1,
            source="frame.png",
            frames=frames,
        )
        for n in range(num_sequences)
    )
    source = Source(kind="ckplus", sequences=sequences, classes=((1, "anger"),))
    tasks = shard_build.cut_tasks(source, Path(), Path(), options)
    return len(tasks[0].sequences)


def machine_limits() -> dict[str, int]:
    """Return the limits of this machine that a dataset may meet."""
    return {
        "soft_open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "max_map_count": int(Path("/proc/sys/vm/max_map_count").read_text()),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def report(record: dict[str, Any]) -> None:
    numbers = {
        name: value["median"] if isinstance(value, dict) else value
        for name, value in record.items()
    }
    print(" ".join(f"{name}={value:g}" for name, value in numbers.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ckshard-scaling-") as folder:
        record = measure_scaling(Scale(), Path(folder))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
