"""``dataset.as_webdataset``: the plain library reads our shards, decoded, whatever the codec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines import InputError, open_dataset
from tests.reference_loader import ReferenceLoader

# webdataset leaves closing its files to the garbage collector, and warns at import.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("stream", ["flow", "rgb"])
@pytest.mark.parametrize("codec", ["jpg", "raw", "lz4"])
def test_plain_webdataset_gives_every_sequence_decoded(
    codec: str, stream: str, tiny_dataset: Path, raw_dataset: Path, lz4_dataset: Path
) -> None:
    folder = {"jpg": tiny_dataset, "raw": raw_dataset, "lz4": lz4_dataset}[codec]
    reference = ReferenceLoader(folder, stream=stream)
    with open_dataset(folder) as dataset:
        samples = list(dataset.as_webdataset(stream))
        assert [sample["__key__"] for sample in samples] == dataset.keys
        assert [sample["label"] for sample in samples] == dataset.labels.tolist()
        counts = dataset.num_pairs if stream == "flow" else dataset.num_frames
    for sample, count in list(zip(samples, counts.tolist(), strict=True))[:4]:
        planes = sample["planes"]
        assert planes.dtype == np.uint8 and len(planes) == (
            2 * count if stream == "flow" else count
        )
        first = reference.planes(sample["__key__"], 0)[0]
        assert np.array_equal(planes[0], first)


def test_a_stream_that_was_not_built_is_named(build_tiny: Callable[..., Path]) -> None:
    folder = build_tiny(codec="jpg", frames="last", streams=("rgb",))
    with open_dataset(folder) as dataset, pytest.raises(InputError, match="has no flow stream"):
        dataset.as_webdataset("flow")
