"""Dataset folder to batches: a plan (order and augmentation as data) and engines that follow it.

>>> from pipelines import Sampling
>>> Sampling(stack_length=3).augmentation
'standard'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.batch import Batch
    from pipelines.dataset import Dataset, open_dataset
    from pipelines.loader import Loader, make_loader
    from pipelines.plan.sampling import Sampling
    from pipelines.reading import Reading
    from pipelines.views import make_view_loader
    from shard_builder.errors import DamagedMemberError, DatasetError, InputError

__all__ = [
    "Batch",
    "DamagedMemberError",
    "Dataset",
    "DatasetError",
    "InputError",
    "Loader",
    "Reading",
    "Sampling",
    "make_loader",
    "make_view_loader",
    "open_dataset",
]

_HOMES = {
    "Batch": "pipelines.batch",
    "Dataset": "pipelines.dataset",
    "open_dataset": "pipelines.dataset",
    "Loader": "pipelines.loader",
    "make_loader": "pipelines.loader",
    "Sampling": "pipelines.plan.sampling",
    "Reading": "pipelines.reading",
    "make_view_loader": "pipelines.views",
    "DamagedMemberError": "shard_builder.errors",
    "DatasetError": "shard_builder.errors",
    "InputError": "shard_builder.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``ckshard --help`` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
