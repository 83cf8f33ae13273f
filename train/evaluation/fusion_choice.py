"""Where fusion weights come from: the default, the user, or a search on sequences that are not
tested.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from models.fusion import DEFAULT_WEIGHTS, FusionWeights, search_weights
from shard_builder.errors import InputError
from train.evaluation.scores import SCORES_NAME, read_scores


def choose_weights(
    text: str, *, tested_subjects: Collection[str], class_names: Collection[str]
) -> FusionWeights:
    """Return the weights that ``--fusion`` names.

    Args:
        text: ``default`` (TSN's 1:1.5), ``RGB:FLOW`` such as ``1:2``, or the folder of another
            ``cktrain test`` of both streams, on whose sequences the weights are searched.
        tested_subjects: Subjects whose sequences are about to be fused.
        class_names: Classes of the tested runs.

    Raises:
        InputError: If it is none of these, or the folder's test shares a subject with the tested
            ones.
    """
    if text == "default":
        return DEFAULT_WEIGHTS
    if Path(text).is_dir():
        return _searched(Path(text), set(tested_subjects), tuple(class_names))
    rgb, separator, flow = text.partition(":")
    try:
        if not separator:
            raise ValueError("no colon")
        return FusionWeights(rgb=float(rgb), flow=float(flow), origin="given")
    except ValueError as error:
        raise InputError(
            f"--fusion {text!r}: {error}; expected default, RGB:FLOW such as 1:1.5, or a folder of"
            " cktrain test with both streams"
        ) from None


def _searched(folder: Path, tested: set[str], class_names: tuple[str, ...]) -> FusionWeights:
    table, names = read_scores(folder / SCORES_NAME)
    rows: list[dict[str, Any]] = [row for row in table.to_pylist() if row["view"] is None]
    by_stream = {
        name: sorted((r for r in rows if r["stream"] == name), key=lambda r: str(r["key"]))
        for name in ("rgb", "flow")
    }
    if not by_stream["rgb"] or not by_stream["flow"]:
        raise InputError(
            f"--fusion {folder}: a test of one stream, expected one of an rgb and a flow run"
        )
    if names != class_names:
        raise InputError(
            f"--fusion {folder}: classes {', '.join(names)}, expected {', '.join(class_names)}"
        )
    shared = sorted({str(row["subject"]) for row in rows} & tested)
    if shared:
        raise InputError(
            f"--fusion {folder}: {len(shared)} of its subjects are tested now"
            f" ({', '.join(shared[:5])}), expected none\n  Weights that are searched on the tested"
            " faces flatter the result. Use the test of another fold."
        )
    probs = {
        name: np.array([row["probs"] for row in found], np.float64)
        for name, found in by_stream.items()
    }
    labels = np.array([row["label"] for row in by_stream["rgb"]], np.int64)
    return search_weights(rgb=probs["rgb"], flow=probs["flow"], labels=labels)
