"""The command ``ckshard``: its options. What a command does stands in ``commands``."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from shard_builder.commands.options import with_options_of
from shard_builder.console import run_app
from shard_builder.sources.options import ScanOptions

app = typer.Typer(
    name="ckshard",
    help="CK+ sequences (or another emotion set) to WebDataset shards of frames and optical flow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _option(text: str, *flags: str) -> Any:
    return typer.Option(*flags, help=text)


SourceArgument = Annotated[
    Path,
    typer.Argument(help="A CK+ release, a prepared tree, any folder of clips, or a table of them."),
]
DatasetArgument = Annotated[Path, typer.Argument(help="Dataset folder.")]
FlowMethodOption = Annotated[
    str, _option("farneback (the original's parameters) or dis (five times faster).")
]
BoundOption = Annotated[float, _option("Displacement at which flow saturates, pixels a frame.")]
WorkersOption = Annotated[
    int, _option("Local processes; 0 takes all cores. The bytes do not depend on it.")
]
OnErrorOption = Annotated[str, _option("raise, or skip: leave faulty sequences out and list them.")]


def main() -> NoReturn:
    """Run ``ckshard``."""
    # Commands of floors above this one announce themselves: nothing here knows who loads shards.
    for entry in entry_points(group="ckshard.commands"):
        app.command(entry.name)(entry.load())
    sizes = {"width": "--size (width)", "height": "--size (height)"}
    run_app(app, prog_name="ckshard", flag_of=sizes)


@app.callback()
def options(
    debug: Annotated[bool, _option("Show the traceback of an error.", "--debug")] = False,
) -> None:
    """CK+ sequences (or another emotion set) to WebDataset shards of frames and optical flow."""


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="New folder for the release.")],
    num_subjects: Annotated[
        int, _option("Number of subjects; each shows all seven emotions.", "--subjects")
    ] = 30,
    image_scale: Annotated[
        float, _option("Size of pictures and motion; 1 is CK+'s 640x490.")
    ] = 1.0,
    max_frames: Annotated[int, _option("Longest sequence (CK+: 71).")] = 71,
    seed: Annotated[int, _option("Everything follows from it.")] = 0,
    workers: WorkersOption = 2,
    overwrite: Annotated[bool, _option("Replace OUT if it is there.", "--overwrite")] = False,
    quirks: Annotated[
        bool, _option("As untidy as real copies: burnt-in counter, stray files, ...", "--quirks")
    ] = False,
    broken: Annotated[
        str, _option("Put a fault into the first sequence: gap, ...; a wrong name lists all.")
    ] = "",
) -> None:
    """Make a CK+-shaped release of drawn faces with known motion, for those without CK+."""
    from shard_builder.commands.synth import run_synth
    from shard_builder.synth.release import ReleaseOptions

    release = ReleaseOptions(
        num_subjects=num_subjects, image_scale=image_scale, max_frames=max_frames, seed=seed
    )
    run_synth(out, release, workers=workers, overwrite=overwrite, quirks=quirks, broken=broken)


@app.command()
@with_options_of(ScanOptions, without={"on_error"})
def build(
    src: SourceArgument,
    dataset: Annotated[
        Path, typer.Argument(help="New folder for the dataset; an unfinished build is resumed.")
    ],
    codec: Annotated[
        str, _option("jpg (small), png (lossless) or raw (lossless, fastest to read).")
    ] = "jpg",
    quality: Annotated[int, _option("JPEG quality, 1 to 100.")] = 95,
    streams: Annotated[str, _option("rgb,flow or one of them.")] = "rgb,flow",
    frames: Annotated[str, _option("Frames the rgb stream keeps: all, last or last3.")] = "all",
    size: Annotated[
        str, _option("Width x height of every plane; the height a multiple of 8.")
    ] = "340x256",
    flow_method: FlowMethodOption = "farneback",
    bound_px: BoundOption = 10.0,
    crop: Annotated[
        str, _option("none, or landmarks: one face box a sequence from CK+'s 68-point files.")
    ] = "none",
    crop_margin: Annotated[float, _option("Part of the face box added on each side.")] = 0.2,
    shard_bytes: Annotated[
        int, _option("Expected bytes at which a shard is cut; 0 cuts 256 shards of 8 MiB to 1 GiB.")
    ] = 0,
    seed: Annotated[int, _option("Seed of the global order in the shards.")] = 0,
    workers: WorkersOption = 0,
    on_error: OnErrorOption = "raise",
    overwrite: Annotated[
        bool, _option("Replace the dataset if there is one.", "--overwrite")
    ] = False,
    scheduler: Annotated[
        str, _option("Dask cluster to build on, tcp://host:8786; its workers see both folders.")
    ] = "",
    yes: Annotated[
        bool, _option("Build also what looks absurd: one class, one subject ...", "--yes")
    ] = False,
    **scan: Any,
) -> None:
    """Build a dataset folder of tar shards; killed and started again, it ends in the same bytes."""
    from shard_builder.building.options import BuildOptions, parse_size
    from shard_builder.commands.build import run_build

    width, height = parse_size(size)
    build_options = BuildOptions(
        streams=tuple(streams.split(",")),  # type: ignore[arg-type]
        codec=codec,  # type: ignore[arg-type]
        quality=quality,
        frames=frames,  # type: ignore[arg-type]
        width=width,
        height=height,
        shard_bytes=shard_bytes,
        flow_method=flow_method,  # type: ignore[arg-type]
        bound_px=bound_px,
        crop=crop,  # type: ignore[arg-type]
        crop_margin=crop_margin,
        seed=seed,
        on_error=on_error,  # type: ignore[arg-type]
    )
    scan_options = ScanOptions(on_error=on_error, **scan)  # type: ignore[arg-type]
    run_build(
        src,
        dataset,
        scan_options,
        build_options,
        workers=workers,
        overwrite=overwrite,
        yes=yes,
        scheduler=scheduler,
    )


@app.command("list")
@with_options_of(ScanOptions)
def list_clips(src: SourceArgument, **scan: Any) -> None:
    """Write what a scan of SRC would build as a table, to look at, correct and build from."""
    from shard_builder.commands.list import run_list

    run_list(src, ScanOptions(**scan))


@app.command()
def prepare(
    src: Annotated[Path, typer.Argument(help="CK+ release.")],
    out: Annotated[
        Path, typer.Argument(help="Folder for the trees; finished sequences in it are kept.")
    ],
    flow_method: FlowMethodOption = "farneback",
    bound_px: BoundOption = 10.0,
    workers: WorkersOption = 0,
    on_error: OnErrorOption = "raise",
) -> None:
    """Write the original's PNG trees, rgb/CODE/KEY/ and flow/CODE/KEY/x_flow|y_flow."""
    from shard_builder.building.options import BuildOptions
    from shard_builder.commands.prepare import run_prepare

    flow = BuildOptions(
        flow_method=flow_method,  # type: ignore[arg-type]
        bound_px=bound_px,
        on_error=on_error,  # type: ignore[arg-type]
    )
    run_prepare(src, out, flow, workers=workers)


@app.command()
def split(
    dataset: DatasetArgument,
    kind: Annotated[
        str, _option("subject-kfold, loso, original-random (the original's; leaks) or a file.")
    ] = "subject-kfold",
    folds: Annotated[int, _option("subject-kfold: number of folds.")] = 10,
    fold: Annotated[int, _option("subject-kfold: the fold to validate on, from 0.")] = 0,
    subject: Annotated[str, _option("loso: the subject to validate on.")] = "",
    seed: Annotated[int, _option("original-random: its seed.")] = 0,
    out: Annotated[Path | None, _option("Write the split to this JSON file.")] = None,
    original_format: Annotated[
        Path | None, _option("Write the original's four txt lists into this folder.")
    ] = None,
) -> None:
    """Split a dataset into training and validation sequences; no shard is rebuilt."""
    from shard_builder.commands.split import run_split

    run_split(
        dataset,
        out=out,
        original_format=original_format,
        kind=kind,
        folds=folds,
        fold=fold,
        subject=subject,
        seed=seed,
    )


@app.command()
def verify(
    dataset: DatasetArgument,
    quick: Annotated[
        bool, _option("Sizes, headers and indexes only: no checksums, no decoding.", "--quick")
    ] = False,
    workers: Annotated[int, _option("Threads; 0 takes all cores.")] = 0,
) -> None:
    """Check every promise of a dataset folder; exit 1 with each fault's place if one is broken."""
    from shard_builder.commands.verify import run_verify

    raise typer.Exit(run_verify(dataset, quick=quick, workers=workers))


@app.command()
def inspect(
    dataset: DatasetArgument,
    html: Annotated[
        Path | None, _option("Also write one self-contained page with pictures.")
    ] = None,
    lossless: Annotated[
        Path | None,
        _option("A png or raw build of the same source, to measure the codec's error against."),
    ] = None,
) -> None:
    """Show what is in a dataset folder: classes, subjects, streams; with --html also samples."""
    from shard_builder.commands.inspect import run_inspect

    run_inspect(dataset, html=html, lossless=lossless)
