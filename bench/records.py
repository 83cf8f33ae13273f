"""What every benchmark shares: its options, its command, and where its record comes from."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from pipelines.throughput.cases import MIN_REPEATS
from pipelines.throughput.turns import machine_facts
from shard_builder.provenance import command_line, git_revision, package_versions

Record = dict[str, Any]


def run_benchmark(
    doc: str | None,
    measure: Callable[[Path, argparse.Namespace], Record],
    blocks: Callable[[Record], dict[str, str]],
    *,
    subjects: int = 0,
) -> None:
    """Be a benchmark's command: measure in a scratch folder, write the record, print its tables."""
    options = make_parser(doc, subjects=subjects).parse_args()
    with tempfile.TemporaryDirectory(prefix="ckshard-bench-") as folder:
        record = provenance() | measure(Path(folder), options)
    write_record(record, options.json)
    print(*blocks(record).values(), sep="\n\n")


def make_parser(doc: str | None, *, subjects: int = 0) -> argparse.ArgumentParser:
    """Return a parser of ``--json``, ``--repeats`` and, where faces are drawn, ``--subjects``."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where the record goes")
    parser.add_argument("--repeats", type=_repeats, default=MIN_REPEATS, help="turns of each")
    if subjects:
        parser.add_argument("--subjects", type=int, default=subjects, help="seven sequences each")
    return parser


def _repeats(text: str) -> int:
    if not text.isdecimal() or int(text) < MIN_REPEATS:
        raise argparse.ArgumentTypeError(f"{text!r}, expected {MIN_REPEATS} or more")
    return int(text)


def provenance() -> Record:
    """Return where a record comes from: ``command``, ``revision``, ``machine``, ``versions``."""
    facts = {"command": command_line(), "revision": git_revision()}
    return {**facts, "machine": machine_facts(), "versions": package_versions()}


def run_ckshard(*words: object) -> str:
    """Run the command from this source folder, installed or not; return what it printed."""
    program = [sys.executable, "-c", "from shard_builder.cli import main; main()", *map(str, words)]
    return subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True).stdout


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own and return what it returns."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write_record(record: Any, path: Path | None) -> None:
    """Write a record, unless ``path`` is None."""
    if path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
