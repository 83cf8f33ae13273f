"""Options that commands share; those of training follow from the fields of ``TrainConfig``."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from shard_builder.commands.options import Command, with_options_of
from shard_builder.errors import InputError
from train.config import TrainConfig
from train.prediction.options import BEST, DEVICES

DatasetArgument = Annotated[
    Path, typer.Argument(help="Dataset made by ckshard build: a folder, or s3://bucket/prefix.")
]
CheckpointOption = Annotated[str, typer.Option(metavar="last|best", help=BEST)]
ViewsOption = Annotated[
    str, typer.Option(metavar="ten|original", help="original: the original's own sampling.")
]
DeviceOption = Annotated[str, typer.Option(help=DEVICES)]
WorkersOption = Annotated[int, typer.Option(help="Decoding threads; 0 takes all cores.")]


def with_training_options(
    *, only: Collection[str] = (), without: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Give a command an option for each field of ``TrainConfig``, in place of its ``**options``.

    Args:
        only: Fields to take; empty takes all.
        without: Fields to leave out; the stream is always left out.
    """
    return with_options_of(TrainConfig, only=only, without={"stream", *without})


def training_config(
    context: typer.Context, stream: str, options: dict[str, Any]
) -> tuple[TrainConfig, set[str]]:
    """Return the configuration that training options make, and the names of those that were given.

    Raises:
        InputError: If a value cannot be.
    """
    if "lr_steps" in options:
        options = options | {"lr_steps": parse_integers("lr_steps", options["lr_steps"])}
    sources = {name: context.get_parameter_source(name) for name in options}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    return TrainConfig(stream=stream, **options), given  # type: ignore[arg-type]


def parse_integers(argument: str, text: str) -> tuple[int, ...]:
    """Parse ``100,200`` or ``100 200``; an empty text holds none.

    >>> parse_integers("lr_steps", "100,200")
    (100, 200)

    Raises:
        InputError: If a part is not an integer.
    """
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise InputError(f"{argument}={text!r}, expected numbers such as 100,200") from None
