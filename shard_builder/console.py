"""What both commands share on the terminal: to run an app, print an error, make a table."""

from __future__ import annotations

import errno
import faulthandler
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from shard_builder.errors import CkError
from shard_builder.files import FULL, disk_fault
from shard_builder.machine import stop_waiting
from shard_builder.untrusted.text import clean, clean_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FILE_WIDTH = 120
MOST_SHOWN = 4000
"""Characters of a line or a cell."""
ARGUMENT = re.compile(
    r"(?<![\w.,/\\'\"=-])(?P<name>[a-z]\w*)=(?P<value>True\b|'[\w.:/\\-]+'|\([^()]*\)|)"
)
"""An argument as a message names it, ``name=``; of its value only what a command line writes
otherwise: ``True``, a word in quotes, a tuple."""


def show_version(is_asked: bool) -> None:
    """Print the version and end, if it is asked for."""
    if is_asked:
        typer.echo(f"ckshard {version('ckshard')}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True)
]


def run_app(
    app: typer.Typer, *, prog_name: str, flag_of: Mapping[str, str] | None = None
) -> NoReturn:
    """Run a Typer app; a deliberate error becomes one message and exit code 2 (the input) or 1.

    ``--debug`` anywhere on the command line shows the traceback instead. Library errors name
    arguments, ``codec='bmp'``; the message names the flag, ``--codec bmp``, of the option whose
    parameter has that name. So parameters are called as in the library, whatever the flag is:
    ``num_subjects: Annotated[int, typer.Option("--subjects")]``.

    Args:
        app: The app.
        prog_name: What it is called.
        flag_of: Flags of arguments that are no parameter: ``{"width": "--size (width)"}``.
    """
    # OpenCV would warn of a broken image on standard error; our own error says which file it is.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    words = sys.argv[1:]
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with nullcontext() if debug else quiet_libraries(), waits_ended_by_interrupt():
            app(args=words, prog_name=prog_name)
    except CkError as error:
        if debug:
            raise
        flags = flags_of_command(app, words, flag_of or {})
        print_error(prog_name, name_flags(str(error), flags, words=words))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        drop_output()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if debug:
            raise
        if error.filename is None and error.errno not in FULL:
            print_unexpected(prog_name, error)
            sys.exit(1)
        where = os.fsdecode(error.filename) if error.filename is not None else "writing"
        print_error(prog_name, f"{where}: {disk_fault(error)}")
        sys.exit(1 if error.errno in FULL else 2)
    except Exception as error:
        if debug:
            raise
        print_unexpected(prog_name, error)
        sys.exit(1)
    sys.exit(0)


def drop_output() -> None:
    """Let what is still to be printed go nowhere: nobody reads it, and Python's end would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def waits_ended_by_interrupt() -> Iterator[None]:
    """Let Ctrl-C end what threads wait for, too: what ends them would wait for them."""

    def interrupt(_number: int, _frame: object) -> None:
        stop_waiting()
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Let only Python write to standard error.

    libjpeg, libpng and FFmpeg print what they think of a damaged file: an error says which it is.
    """
    try:
        sys.stderr.flush()
        own, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError):  # standard error is closed
        yield
        return
    python, of_threads = sys.stderr, threading.excepthook
    threading.excepthook = _quiet_where_full
    if _number_of(python) == 2:
        sys.stderr = os.fdopen(
            own, "w", 1, encoding=python.encoding, errors=python.errors, closefd=False
        )
    os.dup2(nowhere, 2)
    os.close(nowhere)
    _name_crashes()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(own, 2)
        sys.stderr = python
        threading.excepthook = of_threads
        _name_crashes()
        os.close(own)


def _quiet_where_full(fault: threading.ExceptHookArgs) -> None:
    """Show the traceback of a thread, but not of a full disk: whoever waits for it says so."""
    if not (isinstance(fault.exc_value, OSError) and fault.exc_value.errno in FULL):
        threading.__excepthook__(fault)


def _number_of(file: TextIO) -> int | None:
    try:
        return file.fileno()
    except (OSError, ValueError):  # no file of the system's
        return None


def _name_crashes() -> None:
    """Say where a crash was: a mapped file that another process cuts short ends this one."""
    with suppress(OSError, ValueError):
        faulthandler.enable(
            all_threads=False
        )  # the others go on meanwhile: theirs are no safe read


def flags_of_command(
    app: typer.Typer, words: Sequence[str], flag_of: Mapping[str, str]
) -> dict[str, str]:
    """Return the flag of each argument that the command in ``words`` takes as an option."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    flags = {
        option.name: max(option.opts, key=len)
        for option in command.params
        if option.param_type_name == "option"
    }
    others = {name: flag for name, flag in flag_of.items() if flag.split()[0] in flags.values()}
    return others | flags


def name_flags(message: str, flags: Mapping[str, str], *, words: Sequence[str] = ()) -> str:
    """Write the arguments in an error's message as flags.

    Args:
        message: Text of a library error.
        flags: Flag of each argument; others stay as they are.
        words: What the user typed; a word of it that looks like an argument stays as it is.

    >>> name_flags("codec='bmp', expected jpg", {"codec": "--codec"})
    '--codec bmp, expected jpg'
    >>> name_flags("replace it with overwrite=True", {"overwrite": "--overwrite"})
    'replace it with --overwrite'
    >>> name_flags("streams=('rgb', 'depth') or quality=3", {"streams": "--streams"})
    '--streams rgb,depth or quality=3'
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if name not in flags or any(word.startswith(f"{name}=") for word in words):
            return match[0]
        if value == "True":
            return flags[name]
        items = [item.strip(" '") for item in value.strip("(,)").split(",")]
        return f"{flags[name]} {','.join(items)}"

    return ARGUMENT.sub(flag, message)


def print_unexpected(prog_name: str, error: Exception) -> None:
    """Print an error that nobody foresaw."""
    what = f"unexpected {type(error).__name__}: {error}"
    print_error(prog_name, f"{what}\n  Run again with --debug for the traceback.")


def print_error(prog_name: str, message: str) -> None:
    """Write ``PROG: error: MESSAGE`` to standard error.

    Of its line breaks those are ours that two blanks follow; what a stranger's name holds is shown
    as text.
    """
    lines = (clean_line(line) for line in re.split(r"\n(?=  )", message))
    sys.stderr.write(f"{prog_name}: error: " + "\n".join(lines) + "\n")
    sys.stderr.flush()


def make_console(*, quiet: bool = False) -> Console:
    """Return a console that breaks no line and colours no word; in a file tables are 120 wide.

    Every string it shows is one line of visible characters, and no markup: names of strangers are
    among them.
    """
    from rich.console import Console
    from rich.text import Text

    class CleanConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(clean(text, most=MOST_SHOWN), **options)

        def on_broken_pipe(self) -> None:  # Rich ends the process, whatever it was doing
            drop_output()
            raise BrokenPipeError(errno.EPIPE, "nobody reads the output any more")

    console = CleanConsole(soft_wrap=True, quiet=quiet, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


def make_table(title: str, *columns: str, num_left: int = 1, caption: str | None = None) -> Table:
    """Make an empty table; the first ``num_left`` columns hold words, the others numbers."""
    from rich.table import Table

    table = Table(title=title or None, caption=caption)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < num_left else "right")
    return table
