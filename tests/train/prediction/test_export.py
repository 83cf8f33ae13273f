"""A net in one file: what it says of itself, and that it answers as its run."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.train.tiny_net import Cktrain
from train.running.checkpoint import read_checkpoint


@pytest.fixture(scope="session")
def sequence(tiny_release: Path) -> Path:
    """The folder of a CK+ sequence."""
    return next(
        folder for folder in sorted(tiny_release.rglob("S*/0*")) if any(folder.glob("*.png"))
    )


@pytest.fixture
def exported(cktrain: Cktrain, runs: dict[str, Path], tmp_path: Path) -> Callable[[str, str], Path]:
    def export(stream: str, format: str) -> Path:
        out = tmp_path / f"{stream}{'.onnx' if format == 'onnx' else '.pt2'}"
        code, text, error = cktrain("export", runs[stream], "--format", format, "--out", out)
        assert code == 0, error
        assert "compared with the run on" in text and "windows of" in text, text
        return out

    return export


def metadata_in(path: Path) -> dict[str, Any]:
    if path.suffix == ".onnx":
        entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    else:
        with zipfile.ZipFile(path) as archive:
            entries = {
                Path(name).name: archive.read(name).decode()
                for name in archive.namelist()
                if "/extra/" in name
            }
    return {name: json.loads(text) for name, text in entries.items()}


def answers(out: Path) -> list[list[float]]:
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    return [
        [p for name in sorted(line["probs"]) for p in line["probs"][name].values()]
        for line in lines
    ]


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_both_streams_answer_from_their_files_as_from_their_runs(
    exported: Callable[[str, str], Path],
    cktrain: Cktrain,
    runs: dict[str, Path],
    sequence: Path,
    tmp_path: Path,
    format: str,
) -> None:
    files = [exported(stream, format) for stream in ("rgb", "flow")]
    for stream, file in zip(("rgb", "flow"), files, strict=True):
        trained, says = read_checkpoint(runs[stream] / "last.pt"), metadata_in(file)
        assert (says["stream"], tuple(says["classes"])) == (stream, trained.classes)
        assert says["geometry"] == {"height": 256, "width": 340} and says["crop"] == trained.crop
        assert says["flow"] == asdict(trained.flow)
        assert says["sampling"] == {"frame_step": 1, "fps": None}
        assert says["stack_length"] == 5 and len(says["mean"]) == (3 if stream == "rgb" else 1)
        assert str(runs[stream].parent).encode() not in file.read_bytes(), "no path of this machine"
        assert b"site-packages" not in file.read_bytes()
        assert file.stat().st_size < 200_000, "no window of the dataset"
    for name, nets in (("run", [runs["rgb"], runs["flow"]]), ("file", files)):
        code, _, error = cktrain("predict", *nets, sequence, "--out", tmp_path / name)
        assert code == 0, error
    np.testing.assert_allclose(answers(tmp_path / "file"), answers(tmp_path / "run"), atol=1e-4)


def test_an_exported_file_runs_elsewhere_for_any_batch(
    exported: Callable[[str, str], Path],
) -> None:
    import onnxruntime

    images = torch.randn(3, 10, 224, 224)
    session = onnxruntime.InferenceSession(exported("flow", "onnx"))
    program = torch.export.load(exported("flow", "torch")).module()
    for count in (1, 3):
        (logits,) = session.run(["logits"], {"images": images[:count].numpy()})
        assert logits.shape == (count, 7)
        np.testing.assert_allclose(logits, program(images[:count]).detach(), atol=1e-4)


def test_where_the_dataset_is_away_random_numbers_are_compared_and_it_is_said(
    cktrain: Cktrain, runs: dict[str, Path], tmp_path: Path, raw_dataset: Path
) -> None:
    run = Path(shutil.copytree(runs["rgb"], tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config["dataset"]["path"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    code, text, _ = cktrain("export", run, "--format", "torch")
    assert code == 0 and "random numbers" in text and (run / "rgb.pt2").is_file()
    code, text, _ = cktrain("export", run, "--format", "torch", "--dataset", raw_dataset)
    assert code == 0 and f"windows of {raw_dataset}" in text
    code, _, error = cktrain(
        "export", run, "--dataset", tmp_path / "gone", "--out", tmp_path / "n.onnx"
    )
    assert code == 2 and "gone" in error and not (tmp_path / "n.onnx").exists()


def test_a_file_that_answers_otherwise_never_appears(
    cktrain: Cktrain, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader gives a net with other weights."""
    from train.prediction import export

    def other(*args: Any) -> Any:
        model = read(*args)
        with torch.no_grad():
            model.net.fc[1].bias += 0.01
        return model

    read = export.read_exported
    monkeypatch.setattr(export, "read_exported", other)
    out = tmp_path / "net.pt2"
    code, _, error = cktrain("export", runs["rgb"], "--format", "torch", "--out", out)
    assert code == 2 and "answers otherwise" in error and not list(tmp_path.glob("net*"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--format", "keras"), "--format keras, expected one of onnx, torch"),
        (("--out", "net.bin"), "--out net.bin, expected a file name that ends in .onnx"),
    ],
)
def test_bad_options_are_named(
    cktrain: Cktrain, runs: dict[str, Path], words: tuple[str, str], complaint: str
) -> None:
    code, _, error = cktrain("export", runs["rgb"], *words)
    assert code == 2 and error.startswith(f"cktrain: error: {complaint}")


@pytest.mark.parametrize("command", ["export", "predict"])
def test_without_the_extra_one_sentence_says_what_to_install(
    exported: Callable[[str, str], Path],
    cktrain: Cktrain,
    runs: dict[str, Path],
    sequence: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    file = exported("rgb", "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    words = (runs["rgb"],) if command == "export" else (file, sequence)
    code, _, error = cktrain(command, *words, "--out", tmp_path / "other.onnx")
    assert code == 2 and "pip install 'ckshard[export]'" in error
