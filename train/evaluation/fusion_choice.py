"""Where fusion weights come from: the default, the user, or a search on other sequences."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from models.fusion import DEFAULT_WEIGHTS, FusionWeights, search_weights
from shard_builder.errors import InputError
from train.evaluation.stored_test import read_test_scores


def choose_weights(
    fusion: str, *, tested_subjects: Collection[str], class_names: Collection[str]
) -> FusionWeights:
    """Return the weights that a text names.

    Args:
        fusion: ``default`` (TSN's 1:1.5), ``RGB:FLOW`` such as ``1:2``, or the folder of another
            ``cktrain test`` of both streams, on whose sequences the weights are searched.
        tested_subjects: Subjects whose sequences are about to be fused.
        class_names: Classes of the tested runs.

    Raises:
        InputError: If it is none of these, or the folder's test shares a subject with the tested
            ones.
    """
    if fusion == "default":
        return DEFAULT_WEIGHTS
    if Path(fusion).is_dir():
        return _searched(Path(fusion), set(tested_subjects), tuple(class_names))
    rgb, separator, flow = fusion.partition(":")
    try:
        if not separator:
            raise ValueError("no colon")
        return FusionWeights(rgb=float(rgb), flow=float(flow), origin="given")
    except ValueError as error:
        raise InputError(
            f"fusion={fusion!r}: {error}; expected default, RGB:FLOW such as 1:1.5,"
            " or a folder of cktrain test with both streams"
        ) from None


def _searched(folder: Path, tested: set[str], class_names: tuple[str, ...]) -> FusionWeights:
    _, streams, names = read_test_scores(folder)
    if not {"rgb", "flow"} <= streams.keys():
        raise InputError(f"{folder}: a test of one stream, expected one of an rgb and a flow run")
    if names != class_names:
        raise InputError(f"{folder}: classes {', '.join(names)}, expected {', '.join(class_names)}")
    rgb, flow = streams["rgb"], streams["flow"]
    shared = sorted({*rgb.subjects, *flow.subjects} & tested)
    if shared:
        raise InputError(
            f"{folder}: {len(shared)} of its subjects are tested now ({', '.join(shared[:5])}),"
            " expected none\n"
            "  Weights that are searched on the tested faces flatter the result."
            " Use the test of another fold."
        )
    return search_weights(rgb=rgb.probs, flow=flow.probs, labels=rgb.labels)
