"""``cktrain both``: two runs of one split and their test, resumed, or refused before training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.train.tiny_net import OPTIONS, Cktrain, same, weights
from train.running.run_folder import read_metrics

LINE = [str(word) for n, v in OPTIONS.items() for word in (f"--{n.replace('_', '-')}", v)]


def test_both_is_rgb_flow_and_the_test_of_their_fusion(
    cktrain: Cktrain, small_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text, error = cktrain("both", small_dataset, "--out", out, *LINE, "--fold", 1)
    assert code == 0, error
    assert text.index("rgb stream: tiny") < text.index("flow stream: tiny") < text.index("fused")
    for stream in ("rgb", "flow"):
        line = (stream, small_dataset, "--out", tmp_path / stream, *LINE, "--fold", 1)
        assert cktrain(*line)[0] == 0
        assert same(weights(out / stream), weights(tmp_path / stream))
    runs = (tmp_path / "rgb", tmp_path / "flow")
    assert cktrain("test", *runs, small_dataset, "--out", tmp_path / "test")[0] == 0
    own, alone = (
        json.loads((folder / "test.json").read_text())
        for folder in (out / "test", tmp_path / "test")
    )
    assert all(own[name] == alone[name] for name in ("rgb", "flow", "fused", "num_sequences"))
    code, _, error = cktrain("both", small_dataset, "--out", out, *LINE)
    assert code == 2 and f"{out / 'rgb'}: holds a run already" in error


def test_both_resumes_whichever_stream_was_in_progress(
    cktrain: Cktrain, small_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for stream, epochs in (("rgb", 3), ("flow", 1)):
        line = (stream, small_dataset, "--out", out / stream, *LINE, "--epochs", epochs)
        assert cktrain(*line)[0] == 0
    line = ("both", small_dataset, "--out", out, "--resume", *LINE, "--epochs", 3)
    code, text, error = cktrain(*line)
    assert code == 0, error
    assert text.count("epoch 3/3") == 1 and "resumed after epoch 1" in text
    for stream in ("rgb", "flow"):
        rows = [row["epoch"] for row in read_metrics(out / stream) if row["kind"] == "epoch"]
        assert rows == [1, 2, 3]
    assert (out / "test" / "test.json").is_file()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--stack-length=40", "--stack-length 40, but the longest"),
        ("--rgb-apex-frames=99", "--rgb-apex-frames 99, expected"),
        ("--weights=missing.pth", "--weights missing.pth: no such file"),
    ],
)
def test_what_fits_one_stream_only_is_refused_before_either_is_trained(
    cktrain: Cktrain, small_dataset: Path, tmp_path: Path, option: str, words: str
) -> None:
    line = [*LINE, "--arch", "resnet18", *option.split("=")]
    code, text, error = cktrain("both", small_dataset, "--out", tmp_path / "out", *line)
    assert code == 2 and error.startswith(f"cktrain: error: {words}"), error
    assert not text and not (tmp_path / "out").exists()
