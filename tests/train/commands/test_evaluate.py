"""``cktrain test`` through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.tiny_net import Cktrain


def test_fusion_weights_are_those_asked_for(
    cktrain: Cktrain, runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    words = ("test", runs["rgb"], runs["flow"], tiny_dataset, "--out", tmp_path / "test")
    code, out, _ = cktrain(*words, "--fusion", "1:3")
    assert code == 0 and "fused with weights rgb 1, flow 3 (given)" in out
    code, _, error = cktrain(*words, "--fusion", "nonsense")
    assert code == 2 and error.startswith("cktrain: error: --fusion nonsense: no colon")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--views=all", "--views all, expected one of ten, original"),
        ("--checkpoint=first", "--checkpoint first, expected one of last, best"),
        ("--batch-size=0", "--batch-size 0, expected an integer from 1"),
    ],
)
def test_bad_options_are_named_by_their_flags(
    cktrain: Cktrain,
    runs: dict[str, Path],
    tiny_dataset: Path,
    tmp_path: Path,
    option: str,
    words: str,
) -> None:
    out = tmp_path / "test"
    code, _, error = cktrain("test", runs["flow"], tiny_dataset, "--out", out, option)
    assert code == 2 and error.startswith(f"cktrain: error: {words}")
    assert not out.exists()
