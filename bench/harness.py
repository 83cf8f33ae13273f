"""What every benchmark shares: its command, its record and where that comes from, its tables."""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from pipelines.throughput.cases import MIN_REPEATS
from pipelines.throughput.turns import machine_facts, spread
from shard_builder.files import write_json
from shard_builder.provenance import git_revision, package_versions, shared_command_line

Record = dict[str, Any]


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring."""
    kind = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=doc, formatter_class=kind)


def run_benchmark(
    doc: str | None,
    measure: Callable[..., Record],
    blocks: Callable[[Record], dict[str, str]],
    **options: tuple[Any, str],
) -> None:
    """Be a benchmark's command: measure in a scratch folder, write the record, print its tables.

    Args:
        doc: The module's docstring.
        measure: Called with the folder, ``repeats`` and the options.
        blocks: Lays a record out.
        options: The benchmark's own, beside ``--json``, ``--repeats`` and ``--folder``: each with
            its default, of its type, and its help.
    """
    parser = make_parser(doc)
    parser.add_argument("--json", type=Path, help="where the record goes")
    parser.add_argument("--folder", type=Path, help="keeps the generated data; else temporary")
    parser.add_argument("--repeats", type=_repeats, default=MIN_REPEATS, help="turns of each")
    for name, (default, text) in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    given = vars(parser.parse_args())
    path, folder = given.pop("json"), given.pop("folder")
    with tempfile.TemporaryDirectory(prefix="ckshard-bench-") as temporary:
        record = provenance() | measure(folder or Path(temporary), **given)
    if path:
        write_json(path, record)
    print(*blocks(record).values(), sep="\n\n")


def _repeats(text: str) -> int:
    if not text.isdecimal() or int(text) < MIN_REPEATS:
        raise argparse.ArgumentTypeError(f"{text!r}, expected {MIN_REPEATS} or more")
    return int(text)


def provenance() -> Record:
    """Return where a record comes from: ``command``, ``revision``, ``machine``, ``versions``."""
    facts = {"command": shared_command_line(), "revision": git_revision()}
    return {**facts, "machine": machine_facts(), "versions": package_versions()}


def program_words(command: str) -> list[str]:
    """Return the words that run a command of ``python``, ``ckshard`` or ``cktrain``: from this
    source folder, installed or not.
    """
    program, *words = shlex.split(command)
    if program == "python":
        return [sys.executable, *words]
    package = {"ckshard": "shard_builder", "cktrain": "train"}[program]
    code = f"import sys; sys.argv[0] = '{program}'; from {package}.cli import main; main()"
    return [sys.executable, "-c", code, *words]


def run_ckshard(*words: object) -> None:
    """Run ``ckshard`` and hide what it prints."""
    command = shlex.join(["ckshard", *map(str, words)])
    subprocess.run(program_words(command), check=True, stdout=subprocess.DEVNULL)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own and return what it returns."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_bytes(name: str, *, file: str = "status") -> int:
    """Return a figure of this process by its name in a file of Linux's ``/proc/self``."""
    lines = Path("/proc/self", file).read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def spreads(runs: Sequence[Mapping[str, float]]) -> Record:
    """Return the :func:`spread` of each figure of repeated measurements."""
    return {name: spread([run[name] for run in runs]) for name in runs[0]}


def markdown_table(header: str, rows: Iterable[str]) -> str:
    """Write a table of rows whose cells are parted by ``|``.

    >>> print(markdown_table("loader | samples/s", ["cpu | 3", "dali | 4"]))
    | loader | samples/s |
    |---|---|
    | cpu | 3 |
    | dali | 4 |
    """
    lines = [f"| {header} |", "|" + "---|" * len(header.split(" | "))]
    return "\n".join([*lines, *(f"| {row} |" for row in rows)])


def cores_of(record: Record) -> str:
    """Name the machine of a record."""
    return f"{record['machine']['usable_cores']} cores of {record['machine']['processor']}"


def low_to_high(spread: Record, digits: int = 0, factor: float = 1.0) -> str:
    """Write the range of a spread, multiplied by ``factor``: ``1,000 - 4,000``."""
    return f"{factor * spread['min']:,.{digits}f} - {factor * spread['max']:,.{digits}f}"


def median_and_range(spread: Record, digits: int = 0) -> str:
    """Write two cells: the median of a spread, and its range."""
    return f"{spread['median']:,.{digits}f} | {low_to_high(spread, digits)}"


def ratio_in_turns(ours: Record, other: Record) -> Record:
    """Return the ``median``, the ratio of two medians, and ``min`` and ``max`` of single turns'.

    >>> ratio_in_turns({"median": 10, "runs": [8, 10, 12]}, {"median": 1, "runs": [1, 2, 1]})
    {'median': 10.0, 'min': 5.0, 'max': 12.0}
    """
    turns = [one / two for one, two in zip(ours["runs"], other["runs"], strict=True)]
    return {"median": ours["median"] / other["median"], "min": min(turns), "max": max(turns)}
