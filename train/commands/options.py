"""Options that commands share; those of training follow from the fields of ``TrainConfig``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from train.config import CHOICES, TrainConfig, parse_lr_steps

Command = TypeVar("Command", bound=Callable[..., Any])

DatasetArgument = Annotated[Path, typer.Argument(help="Dataset folder made by ckshard build.")]
CheckpointOption = Annotated[
    str, typer.Option(metavar="last|best", help="best was chosen on the validation part.")
]
ViewsOption = Annotated[
    str, typer.Option(metavar="ten|original", help="original: the original's own sampling.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
WorkersOption = Annotated[int, typer.Option(help="Decoding threads; 0 takes all cores.")]


def with_training_options(
    *, only: Collection[str] = (), without: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Give a command an option for each field of ``TrainConfig``, in place of its ``**options``.

    Args:
        only: Fields to take; empty takes all.
        without: Fields to leave out; the stream is always left out.
    """
    chosen = [
        _option_of(field)
        for field in fields(TrainConfig)
        if field.name not in {"stream", *without} and (not only or field.name in only)
    ]

    def declare(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
        parameters = kept + chosen
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {entry.name: entry.annotation for entry in parameters}
        return command

    return declare


def _option_of(field: Field[Any]) -> inspect.Parameter:
    kind, default, names = get_type_hints(TrainConfig)[field.name], field.default, []
    metavar = "|".join(CHOICES[field.name]) if field.name in CHOICES else None
    if metavar:
        kind = str  # TrainConfig checks the choice: one message for the command and for a script
    elif isinstance(default, tuple):
        kind, default = str, ",".join(map(str, default))
    elif isinstance(default, bool):
        names = [f"--{field.name.replace('_', '-')}"]  # a switch has no --no- twin
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            kind, typer.Option(*names, help=field.metadata["help"], metavar=metavar)
        ],
    )


def training_config(
    context: typer.Context, stream: str, options: dict[str, Any]
) -> tuple[TrainConfig, set[str]]:
    """Return the configuration that training options make, and the names of those that were given.

    Raises:
        InputError: If a value cannot be.
    """
    if "lr_steps" in options:
        options = options | {"lr_steps": parse_lr_steps(options["lr_steps"])}
    sources = {name: context.get_parameter_source(name) for name in options}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    return TrainConfig(stream=stream, **options), given  # type: ignore[arg-type]
