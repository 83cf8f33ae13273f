"""CK+ on disk to WebDataset shards: scan, frames, optical flow, tar shards, index, manifest.

Imports neither torch nor DALI. A build, as ``ckshard build`` does it::

    source = scan_source("CK+")
    build_dataset(source, "CK+", "dataset", BuildOptions(codec="png"), workers=0)
    assert not verify_dataset("dataset").faults
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shard_builder.building.build import build_dataset
    from shard_builder.building.options import BuildOptions
    from shard_builder.errors import InputError
    from shard_builder.format.verify import verify_dataset
    from shard_builder.sources.detect import scan_source
    from shard_builder.sources.options import ScanOptions
    from shard_builder.sources.sequence import FaceSequence, Source
    from shard_builder.split import Split, make_split

__all__ = [
    "BuildOptions",
    "FaceSequence",
    "InputError",
    "ScanOptions",
    "Source",
    "Split",
    "build_dataset",
    "make_split",
    "scan_source",
    "verify_dataset",
]

_HOMES = {
    "BuildOptions": "shard_builder.building.options",
    "FaceSequence": "shard_builder.sources.sequence",
    "InputError": "shard_builder.errors",
    "ScanOptions": "shard_builder.sources.options",
    "Source": "shard_builder.sources.sequence",
    "Split": "shard_builder.split",
    "build_dataset": "shard_builder.building.build",
    "make_split": "shard_builder.split",
    "scan_source": "shard_builder.sources.detect",
    "verify_dataset": "shard_builder.format.verify",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``ckshard --help`` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shard_builder' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
