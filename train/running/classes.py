"""What a dataset's classes are to a run: outputs of the net, weights in the loss, a fair split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.heads import ORIGINAL_NUM_OUTPUTS
from pipelines.dataset import Dataset
from shard_builder.errors import InputError, counted
from shard_builder.split import Split


def count_classes(dataset: Dataset, keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Count the sequences of each class, ``int64`` (classes,)."""
    labels = dataset.labels[dataset.rows_of(keys)]
    return np.bincount(labels, minlength=len(dataset.class_names))


def check_classes(dataset: Dataset, split: Split, *, untrained: str) -> tuple[str, ...]:
    """Compare the classes of both sides of the split; return what is worth a notice.

    A class that is only missing in validation is no error: fold 10 of CK+'s standard protocol has
    no fear.

    Raises:
        InputError: If a class is validated that is never trained, unless ``untrained`` is
            ``wrong``.
    """
    notices = []
    counts = (count_classes(dataset, keys) for keys in (split.train, split.val))
    for name, num_train, num_val in zip(dataset.class_names, *counts, strict=True):
        if num_val and not num_train and untrained == "wrong":
            notices.append(
                f"notice: {name} is in validation and not in training: its"
                f" {counted(num_val, 'sequence')} count as wrong"
            )
        elif num_val and not num_train:
            raise InputError(
                f"class {name}: {counted(num_val, 'sequence')} in validation and none in training,"
                " expected some\n"
                "  Choose another fold or split (ckshard split DATASET shows the counts), or count"
                " them as wrong: untrained='wrong'."
            )
        if num_train and not num_val:
            notices.append(
                f"notice: no {name} among the {counted(len(split.val), 'validation sequence')};"
                " pool folds for its recall"
            )
    return tuple(notices)


def outputs_of_classes(dataset: Dataset, *, original_head: bool) -> list[int]:
    """Return the net's output for each class: its label, or with the original's head its CK+ code.

    Raises:
        InputError: If a code does not fit the original's 8 outputs.
    """
    if not original_head:
        return list(range(len(dataset.class_names)))
    codes = [entry.code for entry in dataset.manifest.classes]
    if not all(0 <= code < ORIGINAL_NUM_OUTPUTS for code in codes):
        raise InputError(
            f"original_head=True: class codes {codes},"
            f" expected CK+'s 0 to {ORIGINAL_NUM_OUTPUTS - 1}"
        )
    return codes


def weights_of_classes(dataset: Dataset, split: Split, kind: str) -> list[float]:
    """Return each class's weight in the loss.

    ``balanced`` is inverse to its frequency in the training part, mean 1 over its sequences.
    """
    if kind == "none":
        return [1.0] * len(dataset.class_names)
    counts = count_classes(dataset, split.train)
    num_present = int((counts > 0).sum())
    return [float(counts.sum() / (num_present * count)) if count else 0.0 for count in counts]
