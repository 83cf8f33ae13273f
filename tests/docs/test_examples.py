"""The scripts of docs/examples, run as a user would, on the tiny dataset."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.dataset import open_dataset

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
RunExample = Callable[..., dict[str, Any]]


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch) -> RunExample:
    """A function that runs an example with its arguments and returns what its module holds."""

    def run(name: str, *arguments: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def planes_of(path: Path, row: int) -> np.ndarray:
    """All planes of a sequence, (2n, H, W), decoded member by member."""
    with open_dataset(path) as dataset:
        pairs = [
            cv2.imdecode(dataset.read_member("flow", row, number), cv2.IMREAD_GRAYSCALE)
            for number in range(int(dataset.num_pairs[row]))
        ]
    return np.concatenate([np.split(pair, 2) for pair in pairs]).reshape(-1, 256, 340)


def test_every_example_is_short_and_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    examples = sorted(EXAMPLES.glob("*.py"))
    assert examples
    for path in examples:
        assert f'run_example("{path.name}"' in tests, path.name
        assert 20 <= len(path.read_text(encoding="utf-8").splitlines()) <= 60, path.name


@pytest.mark.filterwarnings("ignore:unclosed file")  # webdataset leaves its tars to be collected
def test_plain_webdataset_reads_every_sequence(
    tiny_dataset: Path, run_example: RunExample, capsys: pytest.CaptureFixture[str]
) -> None:
    module = run_example("read_webdataset.py", tiny_dataset)
    printed = capsys.readouterr().out.splitlines()
    with open_dataset(tiny_dataset) as dataset:
        keys, labels = list(dataset.keys), dataset.labels.tolist()
    assert sorted(line.split()[0] for line in printed) == sorted(keys)
    samples = list(module["read"](tiny_dataset))
    assert [sample["key"] for sample in samples] == keys
    assert [sample["label"] for sample in samples] == labels
    for row, sample in enumerate(samples[:5]):
        whole = planes_of(tiny_dataset, row)
        starts = range(0, len(whole) - 9, 2)
        assert any(np.array_equal(whole[s : s + 10], sample["planes"]) for s in starts)
        assert np.abs(sample["flow"] - (sample["planes"] / 255 * 20 - 10)).max() < 1e-5


def test_dalis_reader_reads_every_sequence(
    tiny_dataset: Path, run_example: RunExample, capsys: pytest.CaptureFixture[str]
) -> None:
    module = run_example("read_dali.py", tiny_dataset)
    shapes = [line.split(" [")[0] for line in capsys.readouterr().out.splitlines()]
    assert shapes == ["(8, 10, 224, 224)"] * 5 + ["(2, 10, 224, 224)"]
    batches = [batch for (batch,) in module["read"](tiny_dataset)]
    with open_dataset(tiny_dataset) as dataset:
        labels = dataset.labels.tolist()
    assert [int(label) for batch in batches for label in batch["labels"].flatten()] == labels
    for row in range(8):
        levels = planes_of(tiny_dataset, row)[:10, 16:240, 58:282].astype(np.float64)
        expected = (levels / 255 - 0.5) / 0.226
        # another JPEG decoder: within two levels
        assert np.abs(batches[0]["images"][row].numpy() - expected).max() < 2.1 / 255 / 0.226
