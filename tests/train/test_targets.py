"""A file that cannot be written is named before any work, and what is read is not written over."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from shard_builder import cli
from tests.carphone import carphone_video
from tests.train.tiny_net import Cktrain

WORK = {
    "report": "train.reporting.report.run_page",
    "compare": "train.reporting.comparison.current_test",
    "export": "train.prediction.export.windows_of",
    "bench": "train.running.stall_comparison.compare_stalls",
    "predict": "train.prediction.predict.WindowPredictor",
    "inspect": "shard_builder.commands.inspect.inspect_dataset",
    "split": "shard_builder.commands.split.read_manifest",
}


@pytest.mark.parametrize("command", WORK)
def test_a_folder_in_the_place_of_a_file_is_named_before_any_work(
    command: str,
    cktrain: Cktrain,
    runs: dict[str, Path],
    tiny_dataset: Path,
    tiny_release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr(WORK[command], work)
    target = tmp_path / ("target.onnx" if command == "export" else "target.mp4")
    target.mkdir()
    frames = next(path.parent for path in tiny_release.rglob("S*.png"))
    words: tuple[object, ...] = {
        "report": ("report", runs["flow"], "--out", target),
        "compare": ("report", runs["flow"], runs["rgb"], "--out", target),
        "export": ("export", runs["flow"], "--out", target),
        "bench": ("bench", tiny_dataset, "--json", target),
        "predict": ("predict", runs["flow"], frames, "--out", tmp_path, "--overlay", target),
        "inspect": ("inspect", tiny_dataset, "--html", target),
        "split": ("split", tiny_dataset, "--out", target),
    }[command]
    if command in ("inspect", "split"):
        monkeypatch.setattr(sys, "argv", ["ckshard", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        code, error = stop.value.code, capsys.readouterr().err
    else:
        code, _, error = cktrain(*words)
    assert (code, f"{target}: is a folder" in error) == (2, True), error


def test_a_video_is_not_written_over_by_its_overlay(
    cktrain: Cktrain, runs: dict[str, Path], tmp_path: Path
) -> None:
    video = tmp_path / "face.mp4"
    shutil.copy(carphone_video(), video)
    before = video.read_bytes()
    (tmp_path / "other.mp4").symlink_to(video)
    for name in ("face.mp4", "other.mp4"):
        words = (runs["flow"], video, "--out", tmp_path / "out", "--overlay", tmp_path / name)
        code, _, error = cktrain("predict", *words)
        assert (code, f"{name}: is the input" in error) == (2, True), error
    assert video.read_bytes() == before


def test_a_report_of_nothing_makes_no_folder(cktrain: Cktrain, tmp_path: Path) -> None:
    code, _, error = cktrain("report", tmp_path / "nowhere")
    assert code == 2 and "neither a run nor a cross-validation" in error
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_named(
    cktrain: Cktrain, runs: dict[str, Path], tiny_release: Path, tmp_path: Path
) -> None:
    frames = next(path.parent for path in tiny_release.rglob("S*.png"))
    (tmp_path / "out").write_text("mine")
    code, _, error = cktrain("predict", runs["flow"], frames, "--out", tmp_path / "out")
    assert (code, "out: is a file, expected a folder" in error) == (2, True), error
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("name", ["flow-000000.tar", "index.arrow", "manifest.json"])
def test_a_file_of_a_dataset_is_not_written_over(
    name: str,
    tiny_dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (tiny_dataset / name).read_bytes()
    for words in (("inspect", "--html"), ("split", "--out"), ("bench", "--json")):
        command, option = words
        target = tiny_dataset / name
        argv = ["ckshard", command, str(tiny_dataset), option, str(target)]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert (stop.value.code, "belongs to the dataset" in capsys.readouterr().err) == (2, True)
    assert (tiny_dataset / name).read_bytes() == before


@pytest.mark.parametrize("name", ["last.pt", "config.json", "metrics.jsonl"])
def test_a_file_of_a_run_is_not_written_over(
    name: str, cktrain: Cktrain, runs: dict[str, Path]
) -> None:
    before = (runs["flow"] / name).read_bytes()
    for words in (("report", runs["flow"]), ("report", runs["flow"], runs["rgb"])):
        code, _, error = cktrain(*words, "--out", runs["flow"] / name)
        assert (code, "belongs to the dataset or the run" in error) == (2, True), error
    assert (runs["flow"] / name).read_bytes() == before
