"""The clean folders that are mutated: datasets of each codec, runs, a cross-validation, exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import models.build
from shard_builder.building.build import build_dataset
from shard_builder.building.options import BuildOptions
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.synth.release import ReleaseOptions, write_release
from tests.train.tiny_net import make_tiny_net
from train.config import TrainConfig
from train.evaluation.cross_validate import run_folds
from train.evaluation.cv_options import CvOptions
from train.evaluation.evaluate import evaluate_runs
from train.prediction.export import export_run
from train.prediction.exported_file import SUFFIXES
from train.running.train_run import run_train

CODECS = ("jpg", "png", "raw", "lz4")
TRAINING = {"arch": "tiny", "weights": "none", "epochs": 2, "batch_size": 7, "iter_size": 1}
TRAINING |= {"workers": 1, "precision": "fp32", "folds": 3, "lr": 0.1, "val_every": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Clean folders; read only.

    Args:
        datasets: By codec.
        runs: By stream, trained on the jpg dataset and tested.
        release: What the datasets are built of.
        frames: A folder of images to predict on.
        exports: The runs as files, of each format.
        folds: A cross-validation of flow on the jpg dataset.
    """

    datasets: dict[str, Path]
    runs: dict[str, Path]
    release: Path
    frames: Path
    exports: tuple[Path, ...]
    folds: Path


def make_base(
    folder: Path, *, codecs: Sequence[str] = CODECS, export: bool = False, folds: bool = False
) -> Base:
    """Draw a release, build it with each codec, train the tiny net on both streams; perhaps export
    it, or cross-validate."""
    models.build._torchvision_model = make_tiny_net
    release = folder / "release"
    options = ReleaseOptions(num_subjects=3, image_scale=0.2, max_frames=7)
    write_release(release, options, workers=1)
    source = scan_ckplus(release)
    datasets = {}
    for codec in codecs:
        datasets[codec] = folder / codec
        chosen = BuildOptions(
            flow_method="dis",
            width=96,
            height=64,
            codec="jpg" if codec == "lz4" else codec,  # type: ignore[arg-type]
            flow_codec=codec,  # type: ignore[arg-type]
            shard_bytes={"jpg": 40_000, "png": 160_000, "raw": 300_000, "lz4": 100_000}[codec],
        )
        build_dataset(source, release, datasets[codec], chosen)
    runs = {}
    for stream in ("rgb", "flow"):
        runs[stream] = folder / f"run-{stream}"
        config = TrainConfig(stream=stream, **TRAINING)  # type: ignore[arg-type]
        run_train(config, datasets["jpg"], runs[stream], resume=False)
        evaluate_runs([runs[stream]], datasets["jpg"], out=runs[stream] / "test", workers=1)
    frames = next(path for path in sorted(release.glob("*/cohn-kanade-images/*/*")))
    exports = [
        export_run(run, out=folder / f"{stream}{suffix}", format=format).path
        for stream, run in runs.items()
        for format, suffix in SUFFIXES.items()
        if export
    ]
    if folds:
        config = TrainConfig(stream="flow", **TRAINING | {"folds": 10})  # type: ignore[arg-type]
        run_folds(config, datasets["jpg"], folder / "folds", CvOptions(folds=2))
    return Base(
        datasets=datasets,
        runs=runs,
        release=release,
        frames=frames,
        exports=tuple(exports),
        folds=folder / "folds",
    )
