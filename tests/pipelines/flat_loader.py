"""``make_loader`` with its options in one flat set of words, as tests vary them one at a time."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch

from pipelines.dataset import Dataset
from pipelines.loader import Loader, make_loader
from pipelines.plan.sampling import Sampling
from pipelines.reading import Reading

ENGINES = ("cpu", "dali", "resident")


def flat_loader(dataset: Dataset, stream: str = "flow", **options: Any) -> Loader:
    """Make a loader; words of Sampling and Reading go into these records.

    The engine ``resident`` is asked for by its cache."""
    if options.get("engine") == "resident":
        options |= {"engine": "auto", "cache": "device"}
    records = {}
    for name, record in (("sampling", Sampling), ("reading", Reading)):
        words = {field.name for field in fields(record)} & set(options)
        records[name] = record(**{word: options.pop(word) for word in words})
    return make_loader(dataset, stream, **options, **records)  # type: ignore[arg-type]


NUM = 28
"""Sequences of the small part."""


def loader_of(dataset: Dataset, *, num: int = NUM, **options: Any) -> Loader:
    """Make a training loader of the first sequences: ``uint8``, one thread."""
    arguments: dict[str, Any] = {"training": True, "batch_size": 6, "seed": 4, "engine": "cpu"}
    arguments |= {"dtype": torch.uint8, "num_threads": 1, "rows": np.arange(num)}
    return flat_loader(dataset, **(arguments | options))
