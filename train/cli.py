"""The command ``cktrain``."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from shard_builder.console import VersionOption, run_app
from train.commands.both import train_both
from train.commands.cross_validate import cross_validate
from train.commands.evaluate import evaluate
from train.commands.export import export
from train.commands.predict import predict
from train.commands.report import report
from train.commands.stall import stall_test
from train.commands.train import train_stream

HELP = "Train and test two-stream emotion recognition on a dataset of ckshard."
FLAG_OF = {"kind": "--split", "engine": "--loader", "num_threads": "--workers"}
"""Flags of what the library calls otherwise than the command line."""
app = typer.Typer(
    name="cktrain",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> NoReturn:
    """Run ``cktrain``."""
    run_app(app, prog_name="cktrain", flag_of=FLAG_OF)


@app.callback(help=HELP)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: VersionOption = False,
) -> None:
    """Take the options that come before a command; run_app looks for --debug itself."""


# The commands import what they need when they run: --help loads no torch.
app.command("rgb", help="Train the spatial stream: one frame, 3 channels.")(train_stream)
app.command(
    "flow", help="Train the temporal stream: a stack of flow pairs, 2 x --stack-length channels."
)(train_stream)
app.command("both")(train_both)
app.command("test")(evaluate)
app.command("cv")(cross_validate)
app.command("predict")(predict)
app.command("export")(export)
app.command("bench")(stall_test)
app.command("report")(report)

if __name__ == "__main__":
    main()
