"""The command ``ckshard``: its options. What a command does stands in ``commands``."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from shard_builder.building.options import BuildOptions, parse_size
from shard_builder.commands.options import TakeOverOption, values_of, with_options_of
from shard_builder.console import VersionOption, run_app
from shard_builder.sources.options import ScanOptions
from shard_builder.synth.options import ReleaseOptions

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
DatasetArgument = Annotated[Path, typer.Argument(help="Dataset: a folder, or s3://bucket/prefix.")]
WorkersOption = Annotated[
    int, _option("Local processes; 0 takes all cores. The bytes do not depend on it.")
]


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
    version: VersionOption = False,
) -> None:
    """CK+ sequences (or another emotion set) to WebDataset shards of frames and optical flow."""


@app.command()
@with_options_of(ReleaseOptions)
def synth(
    out: Annotated[Path, typer.Argument(help="New folder for the release.")],
    workers: WorkersOption = 2,
    overwrite: Annotated[bool, _option("Replace OUT if it is there.", "--overwrite")] = False,
    take_over: TakeOverOption = False,
    quirks: Annotated[
        bool, _option("As untidy as real copies: burnt-in counter, stray files, ...", "--quirks")
    ] = False,
    broken: Annotated[
        str, _option("Put a fault into the first sequence: gap, ...; a wrong name lists all.")
    ] = "",
    **release: Any,
) -> None:
    """Make a CK+-shaped release of drawn faces with known motion, for those without CK+."""
    from shard_builder.commands.synth import run_synth

    run_synth(
        out,
        ReleaseOptions(**release),
        workers=workers,
        overwrite=overwrite,
        take_over=take_over,
        quirks=quirks,
        broken=broken,
    )


@app.command()
@with_options_of(ScanOptions, without={"on_error"})
@with_options_of(BuildOptions, without={"streams", "width", "height"})
def build(
    src: SourceArgument,
    dataset: Annotated[
        Path, typer.Argument(help="New folder for the dataset; an unfinished build is resumed.")
    ],
    streams: Annotated[str, _option("rgb,flow or one of them.")] = "rgb,flow",
    size: Annotated[
        str, _option("Width x height of every plane; the height a multiple of 8.")
    ] = "340x256",
    workers: WorkersOption = 0,
    overwrite: Annotated[
        bool, _option("Replace the dataset if there is one.", "--overwrite")
    ] = False,
    take_over: TakeOverOption = False,
    scheduler: Annotated[
        str, _option("Dask cluster to build on, tcp://host:8786; its workers see both folders.")
    ] = "",
    yes: Annotated[
        bool, _option("Build also what looks absurd: one class, one subject ...", "--yes")
    ] = False,
    **options: Any,
) -> None:
    """Build a dataset folder of tar shards; killed and started again, it ends in the same bytes."""
    from shard_builder.commands.build import run_build

    width, height = parse_size(size)
    run_build(
        src,
        dataset,
        ScanOptions(**values_of(ScanOptions, options)),
        BuildOptions(
            streams=tuple(streams.split(",")),  # type: ignore[arg-type]
            width=width,
            height=height,
            **values_of(BuildOptions, options),
        ),
        workers=workers,
        overwrite=overwrite,
        take_over=take_over,
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
@with_options_of(BuildOptions, only={"flow_method", "bound_px", "on_error"})
def prepare(
    src: Annotated[Path, typer.Argument(help="CK+ release.")],
    out: Annotated[
        Path, typer.Argument(help="Folder for the trees; finished sequences in it are kept.")
    ],
    workers: WorkersOption = 0,
    take_over: TakeOverOption = False,
    **options: Any,
) -> None:
    """Write the original's PNG trees, rgb/CODE/KEY/ and flow/CODE/KEY/x_flow|y_flow."""
    from shard_builder.commands.prepare import run_prepare

    run_prepare(src, out, BuildOptions(**options), workers=workers, take_over=take_over)


@app.command()
def split(
    dataset: DatasetArgument,
    kind: Annotated[
        str,
        _option("subject-kfold, loso, original-random (leaks), fold (official parts) or a file."),
    ] = "subject-kfold",
    folds: Annotated[
        int | None,
        _option("subject-kfold: number of folds; 10, or one a subject if fewer, unless given."),
    ] = None,
    fold: Annotated[
        int,
        _option(
            "The fold to validate on: subject-kfold counts from 0, official ones have numbers."
        ),
    ] = 0,
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
def push(
    dataset: Annotated[Path, typer.Argument(help="The dataset's folder.")],
    address: Annotated[Path, typer.Argument(help="Where to: s3://bucket/prefix, gs://, az://.")],
) -> None:
    """Copy a dataset to object storage, the manifest last; run again, it goes on."""
    from shard_builder.commands.transfer import run_push

    run_push(dataset, address)


@app.command()
def pull(
    address: Annotated[Path, typer.Argument(help="Address of a dataset: s3://bucket/prefix.")],
    dataset: Annotated[Path, typer.Argument(help="New folder; one that was begun goes on.")],
) -> None:
    """Copy a dataset from object storage to a folder, the manifest last; run again, it goes on."""
    from shard_builder.commands.transfer import run_pull

    run_pull(address, dataset)


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


if __name__ == "__main__":
    main()
