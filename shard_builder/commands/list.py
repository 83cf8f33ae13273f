"""``ckshard list``: what a scan would build, as a table."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

from shard_builder.sources.detect import scan_source
from shard_builder.sources.guards import understood
from shard_builder.sources.options import ScanOptions
from shard_builder.sources.table import write_table


def run_list(src: Path, options: ScanOptions) -> None:
    """Write the table to standard output, whole or not at all, and what was understood to standard
    error.
    """
    source = scan_source(src, options)
    root = src if src.is_dir() else options.root or src.parent
    table = StringIO()
    write_table(source, root, table)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(table.getvalue())
    sys.stdout.flush()
    for line in [*understood(source), f"build from it with --root {root}"]:
        sys.stderr.write(f"{line}\n")
