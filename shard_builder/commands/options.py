"""Command line options from the fields of an options record: each is declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, fields
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from shard_builder.lock import TAKE_OVER

Command = TypeVar("Command", bound=Callable[..., Any])
TakeOverOption = Annotated[bool, typer.Option("--take-over", help=TAKE_OVER)]


def with_options_of(
    record: type[Any], *, only: Collection[str] = (), without: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Give a command an option for each field of a record, in place of its ``**options``.

    Args:
        record: A dataclass whose fields are declared by :func:`shard_builder.checks.option`.
        only: Fields to take; empty takes all.
        without: Fields to leave out.
    """
    kinds = get_type_hints(record)
    chosen = [
        _parameter(entry, kinds[entry.name])
        for entry in fields(record)
        if entry.name not in without and (not only or entry.name in only)
    ]

    def declare(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
        parameters = kept + chosen
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {entry.name: entry.annotation for entry in parameters}
        return command

    return declare


def _parameter(entry: Field[Any], kind: Any) -> inspect.Parameter:
    default, metavar = entry.default, None
    # With its name given, a switch gets no --no- twin.
    flag = entry.metadata.get("flag", f"--{entry.name.replace('_', '-')}")
    if get_origin(kind) is Literal:
        # The record checks the choice: one message for the command and for a script.
        kind, metavar = str, "|".join(get_args(kind))
    elif isinstance(default, tuple):
        kind, default = str, ",".join(map(str, default))
    return inspect.Parameter(
        entry.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            kind, typer.Option(flag, help=entry.metadata["help"], metavar=metavar)
        ],
    )


def values_of(record: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a command's options that are fields of a record."""
    return {entry.name: options[entry.name] for entry in fields(record) if entry.name in options}
