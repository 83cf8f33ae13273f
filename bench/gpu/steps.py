"""The steps of ``bench/gpu.sh``: what is run and how long it may take."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from pipelines.throughput.cases import MIN_REPEATS

ROOT = Path(__file__).parent.parent.parent
MAIN = "import sys; sys.argv[0] = '{0}'; from {1}.cli import main; main()"
PEER_SHM_BYTES = 2 << 30
"""What worker processes may fill of shared memory before their batches are taken; a container often
has 64 MB."""


class Scale(NamedTuple):
    """How much is measured; seven sequences a subject fill whole steps of training."""

    subjects: int
    arch: str
    batch: int
    iter_size: int
    steps: int
    loader_samples: int
    limit_s: float


GPU_SCALE = Scale(24, "resnet152", 56, iter_size=3, steps=7, loader_samples=1024, limit_s=460)
CPU_SCALE = Scale(2, "resnet18", 7, iter_size=2, steps=1, loader_samples=128, limit_s=1800)


class Step(NamedTuple):
    """A command of the run: its name, most seconds, program and arguments."""

    name: str
    limit_s: float
    words: list[str]


def make_steps(scale: Scale, data: Path) -> list[Step]:
    """List the steps, the most telling first: time may run out."""

    def python(name: str, limit_s: float, *words: object) -> Step:
        return Step(name, limit_s, [sys.executable, *map(str, words)])

    def build(codec: str) -> Step:
        words = ("build", data / "tree", data / f"train-{codec}", "--codec", codec, "--yes")
        program = MAIN.format("ckshard", "shard_builder")
        return python(f"data {codec}", 60, "-c", program, "--debug", *words)

    def train(stream: str, codec: str) -> Step:
        """Train on synthetic, cached and real batches; fp32 NCHW once a stream is enough."""
        words = ["bench", data / f"train-{codec}", "--stream", stream, "--arch", scale.arch]
        words += ["--batch-size", scale.batch, "--iter-size", scale.iter_size]
        words += ["--steps", scale.steps, "--warmup", 1]
        words += ["--repeats", MIN_REPEATS, "--json", data / f"train-{stream}-{codec}.json"]
        words += ["--baseline" if codec == "jpg" else "--no-baseline"]
        program = MAIN.format("cktrain", "train")
        limit_s = scale.limit_s / 3
        return python(f"train {stream} {codec}", limit_s, "-c", program, "--debug", *words)

    def waits(codec: str) -> Step:
        """Measure what a simulated device waits: in a long epoch, and at the border of CK+'s."""
        words: list[object] = ["bench", data / f"train-{codec}", "--consumer-ms", 5]
        words += ["--epoch-samples", 80, "--batch-size", 10, "--streams", "flow"]
        words += ["--dtype", "float16", "--seconds", 0.5, "--json", data / f"waits-{codec}.json"]
        program = MAIN.format("ckshard", "shard_builder")
        return python(f"waits {codec}", 90, "-c", program, "--debug", *words)

    draw = (
        "import pathlib, bench.loaders.windows as w; "
        f"w.draw_windows(pathlib.Path({str(data)!r}), num_subjects={scale.subjects})"
    )
    compare = ["--folder", data, "--subjects", scale.subjects, "--samples", scale.loader_samples]
    compare += ["--seconds", 0.5, "--only", ",".join(peers()), "--json", data / "loaders.json"]
    return [
        python("data", scale.limit_s / 3, "-c", draw),
        build("jpg"),
        python("tests", 150, "-m", "pytest", *gpu_tests()),
        train("flow", "jpg"),
        waits("jpg"),
        train("rgb", "jpg"),
        python("loaders", scale.limit_s / 2, "-m", "bench.loaders", *compare),
        build("raw"),
        train("flow", "raw"),
        waits("raw"),
    ]


def peers() -> list[str]:
    """Return the peers whose worker processes fit into this machine's shared memory."""
    shared = Path("/dev/shm")
    has_room = not shared.is_dir() or shutil.disk_usage(shared).free >= PEER_SHM_BYTES
    return ["dali_reader", *(["png_tree", "mapped_array", "webdataset"] if has_room else [])]


def gpu_tests() -> list[object]:
    """Return what runs the gpu tests; their files only, because others import what may be missing.

    Warnings do not fail them: other versions than the pinned ones have others, and without
    pytest-timeout pytest warns of its option.
    """
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [path for path in tests if "mark.gpu" in path.read_text("utf-8")]
    options = ["-m", "gpu", "-W", "default", "--tb=short", "-p", "no:cacheprovider"]
    return ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, *options, *files]
