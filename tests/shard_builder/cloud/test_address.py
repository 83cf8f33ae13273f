"""Addresses where datasets are read, and their refusal where something is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import Reading
from shard_builder.cli import app
from shard_builder.errors import InputError
from shard_builder.lock import locked

ELSEWHERE = "s3://bucket/faces"


@pytest.mark.parametrize(
    "words",
    [
        ["push", ELSEWHERE, "s3://bucket/other"],
        ["pull", ELSEWHERE, "s3://bucket/other"],
        ["synth", ELSEWHERE],
        ["split", "DATASET", "--folds", "3", "--out", f"{ELSEWHERE}.json"],
        ["split", "DATASET", "--folds", "3", "--original-format", ELSEWHERE],
        ["inspect", "DATASET", "--html", "file:///page.html"],
    ],
)
def test_nothing_is_written_to_an_address(
    words: list[str], small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is an address"):
        CliRunner().invoke(
            app, [str(small_dataset) if w == "DATASET" else w for w in words],
            catch_exceptions=False,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_neither_a_run_nor_a_cache_is_kept_at_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is an address"), locked(Path(ELSEWHERE) / "run"):
        pass
    with pytest.raises(InputError, match="is an address"):
        Reading(shard_cache=ELSEWHERE)
    assert not list(tmp_path.iterdir())


def test_folders_by_their_file_address(small_dataset: Path, tmp_path: Path) -> None:
    """What a command reads; what it writes has a path."""
    here = f"file://{small_dataset}"
    for words in (
        ["inspect", here],
        ["inspect", here, "--html", tmp_path / "page.html"],
        ["verify", here],
        ["split", here, "--folds", 3, "--out", tmp_path / "split.json"],
    ):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, (words, result.output, result.exception)
    assert (tmp_path / "page.html").exists() and (tmp_path / "split.json").exists()
