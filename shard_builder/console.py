"""What both commands share on the terminal: one way to run an app, one way to print an error."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from shard_builder.errors import CkError

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 120


def run_app(app: typer.Typer, *, prog_name: str) -> NoReturn:
    """Run a Typer app; print deliberate errors as one message and exit 2 (the user's input) or 1
    (ours).

    ``--debug`` anywhere on the command line shows the traceback instead.
    """
    # OpenCV would warn of a broken image on standard error; the error that follows says which file
    # it is.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:
        arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        app(args=arguments, prog_name=prog_name)
    except CkError as error:
        if debug:
            raise
        print_error(prog_name, str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        print_error(
            prog_name,
            f"unexpected {type(error).__name__}: {error}\n  Run again with --debug for the"
            " traceback.",
        )
        sys.exit(1)
    sys.exit(0)


def print_error(prog_name: str, message: str) -> None:
    """Write ``PROG: error: MESSAGE`` to standard error."""
    sys.stderr.write(f"{prog_name}: error: {message}\n")
    sys.stderr.flush()


def make_console(*, quiet: bool = False) -> Console:
    """Return a console that never breaks a line; where output goes into a file its tables may be
    120 columns wide.
    """
    from rich.console import Console

    console = Console(soft_wrap=True, quiet=quiet)
    return (
        console if console.is_terminal else Console(soft_wrap=True, quiet=quiet, width=FILE_WIDTH)
    )
