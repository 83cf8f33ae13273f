"""The command ``ckshard``."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from shard_builder.console import run_app

app = typer.Typer(
    name="ckshard",
    help="CK+ sequences (or another emotion set) to WebDataset shards of frames and optical flow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> NoReturn:
    """Run ``ckshard``."""
    # Commands of floors above this one announce themselves: nothing here knows who loads shards.
    for entry in entry_points(group="ckshard.commands"):
        app.command(entry.name)(entry.load())
    run_app(app, prog_name="ckshard")


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """CK+ sequences (or another emotion set) to WebDataset shards of frames and optical flow."""


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="New folder for the release.")],
    subjects: Annotated[
        int, typer.Option(help="Number of subjects; each shows all seven emotions.")
    ] = 30,
    image_scale: Annotated[
        float, typer.Option(help="Size of pictures and motion; 1 is CK+'s 640x490.")
    ] = 1.0,
    max_frames: Annotated[int, typer.Option(help="Longest sequence (CK+: 71).")] = 71,
    seed: Annotated[int, typer.Option(help="Everything follows from it.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; the files do not depend on it.")] = 2,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it is there.")
    ] = False,
    quirks: Annotated[
        bool,
        typer.Option(
            "--quirks",
            help=(
                "As untidy as copies in the wild: burnt-in counter, stray files, double nesting ..."
            ),
        ),
    ] = False,
    broken: Annotated[
        str,
        typer.Option(
            help=(
                "Put a fault into the first sequence: gap, label-nine, truncated-png ...; a wrong"
                " name lists all."
            )
        ),
    ] = "",
) -> None:
    """Make a CK+-shaped release of drawn faces with known motion, for those who do not have CK+ (it
    is licensed).
    """
    from shard_builder.console import make_console
    from shard_builder.progress import progress_bar
    from shard_builder.synth.release import write_release

    console = make_console()
    with progress_bar("drawing subjects", console=console) as report:
        summary = write_release(
            out,
            num_subjects=subjects,
            image_scale=image_scale,
            max_frames=max_frames,
            seed=seed,
            workers=workers,
            overwrite=overwrite,
            quirks=quirks,
            broken=broken,
            on_progress=report,
        )
    console.print(
        f"{out}: {summary.num_sequences} sequences of {summary.num_subjects} subjects,"
        f" {summary.num_frames} frames",
        highlight=False,
    )


@app.command()
def build(
    src: Annotated[
        Path, typer.Argument(help="CK+ release, prepared tree, or videos in class folders.")
    ],
    dataset: Annotated[
        Path, typer.Argument(help="New folder for the dataset; an unfinished build in it goes on.")
    ],
    codec: Annotated[
        str, typer.Option(help="jpg (small), png (lossless) or raw (lossless, fastest to read).")
    ] = "jpg",
    quality: Annotated[int, typer.Option(help="JPEG quality, 1 to 100.")] = 95,
    streams: Annotated[str, typer.Option(help="rgb,flow or one of them.")] = "rgb,flow",
    frames: Annotated[
        str, typer.Option(help="Frames the rgb stream keeps: all, last or last3.")
    ] = "all",
    size: Annotated[
        str, typer.Option(help="Width x height of every plane; the height a multiple of 8.")
    ] = "340x256",
    flow_method: Annotated[
        str, typer.Option(help="farneback (the original's parameters) or dis (five times faster).")
    ] = "farneback",
    bound_px: Annotated[
        float, typer.Option(help="Displacement at which flow saturates, pixels a frame.")
    ] = 10.0,
    crop: Annotated[
        str,
        typer.Option(help="none, or landmarks: one face box a sequence from CK+'s 68-point files."),
    ] = "none",
    crop_margin: Annotated[
        float, typer.Option(help="Part of the face box added on each side.")
    ] = 0.2,
    shard_bytes: Annotated[
        int,
        typer.Option(
            help="Expected bytes at which a shard is cut; 0 cuts 256 shards of 8 MiB to 1 GiB."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the global order in the shards.")] = 0,
    workers: Annotated[
        int, typer.Option(help="Local processes; 0 takes all cores. The bytes do not depend on it.")
    ] = 0,
    on_error: Annotated[
        str,
        typer.Option(
            help="raise, or skip: leave faulty sequences out, list them in skipped.jsonl."
        ),
    ] = "raise",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the dataset if there is one.")
    ] = False,
    scheduler: Annotated[
        str,
        typer.Option(
            help=(
                "Build on a Dask cluster, such as tcp://host:8786; its workers see SRC and DATASET."
            )
        ),
    ] = "",
    source: Annotated[str, typer.Option(help="auto, ckplus, tree or videos.")] = "auto",
    subjects: Annotated[
        Path | None, typer.Option(help="Videos: CSV with the columns video and subject.")
    ] = None,
    subject_pattern: Annotated[
        str,
        typer.Option(help="Videos: regular expression whose group is the subject in /CLASS/NAME."),
    ] = "",
) -> None:
    """Build a dataset folder of tar shards; killed and started again, it goes on and ends in the
    same bytes.
    """
    from shard_builder.building.options import BuildOptions, parse_size
    from shard_builder.commands.build import run_build

    width, height = parse_size(size)
    build_options = BuildOptions(
        streams=tuple(streams.split(",")),
        codec=codec,
        quality=quality,
        frames=frames,  # type: ignore[arg-type]
        width=width,
        height=height,
        shard_bytes=shard_bytes,
        flow_method=flow_method,
        bound_px=bound_px,
        crop=crop,
        crop_margin=crop_margin,
        seed=seed,
        on_error=on_error,  # type: ignore[arg-type]
    )
    run_build(
        src,
        dataset,
        build_options,
        workers=workers,
        overwrite=overwrite,
        kind=source,
        subjects=subjects,
        subject_pattern=subject_pattern,
        scheduler=scheduler,
    )


@app.command()
def prepare(
    src: Annotated[Path, typer.Argument(help="CK+ release.")],
    out: Annotated[
        Path,
        typer.Argument(
            help="Folder for the trees rgb/ and flow/; finished sequences in it are kept."
        ),
    ],
    flow_method: Annotated[
        str, typer.Option(help="farneback (the original's parameters) or dis.")
    ] = "farneback",
    bound_px: Annotated[
        float, typer.Option(help="Displacement at which flow saturates, pixels a frame.")
    ] = 10.0,
    workers: Annotated[int, typer.Option(help="Processes; 0 takes all cores.")] = 0,
    on_error: Annotated[str, typer.Option(help="raise, or skip faulty sequences.")] = "raise",
) -> None:
    """Write the original's PNG trees: rgb/CODE/KEY/ and flow/CODE/KEY/x_flow, y_flow. Build reads
    them as well.
    """
    from shard_builder.commands.prepare import run_prepare

    run_prepare(
        src, out, flow_method=flow_method, bound_px=bound_px, workers=workers, on_error=on_error
    )


@app.command()
def split(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    kind: Annotated[
        str,
        typer.Option(
            help="subject-kfold, loso, original-random (the original's own; leaks), or a list file."
        ),
    ] = "subject-kfold",
    folds: Annotated[int, typer.Option(help="subject-kfold: number of folds.")] = 10,
    fold: Annotated[int, typer.Option(help="subject-kfold: the fold to validate on, from 0.")] = 0,
    subject: Annotated[str, typer.Option(help="loso: the subject to validate on.")] = "",
    seed: Annotated[int, typer.Option(help="original-random: its seed.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the split to this JSON file.")] = None,
    original_format: Annotated[
        Path | None, typer.Option(help="Write the original's four txt lists into this folder.")
    ] = None,
) -> None:
    """Split a dataset into training and validation sequences; both streams share the split, nothing
    is rebuilt.
    """
    from shard_builder.commands.split import run_split

    run_split(
        dataset,
        kind=kind,
        folds=folds,
        fold=fold,
        subject=subject,
        seed=seed,
        out=out,
        original_format=original_format,
    )


@app.command()
def verify(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Sizes, headers and indexes only: no checksums, no decoding."),
    ] = False,
    workers: Annotated[int, typer.Option(help="Threads; 0 takes all cores.")] = 0,
) -> None:
    """Check every promise of a dataset folder and decode every member; exit 1 with each fault's
    place if one is broken.
    """
    from shard_builder.commands.verify import run_verify

    raise typer.Exit(run_verify(dataset, quick=quick, workers=workers))


@app.command()
def inspect(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    html: Annotated[
        Path | None, typer.Option(help="Also write one self-contained page with pictures.")
    ] = None,
    lossless: Annotated[
        Path | None,
        typer.Option(
            help="A png or raw build of the same source, to measure the codec's error against."
        ),
    ] = None,
) -> None:
    """Show what is in a dataset folder: classes, subjects, streams; with --html also samples and
    histograms.
    """
    from shard_builder.commands.inspect import run_inspect

    run_inspect(dataset, html=html, lossless=lossless)
