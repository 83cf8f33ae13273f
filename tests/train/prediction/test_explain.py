"""Grad-CAM finds what a net answers from, and shows it in a clip and beside mistakes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2
import pytest
import torch

from tests.train.tiny_net import Cktrain
from train.prediction.explain import grad_cam, overlays
from train.prediction.stream_model import load_stream_model


@pytest.fixture(scope="session")
def sequence(tiny_release: Path) -> Path:
    """The folder of a CK+ sequence."""
    folders = sorted(tiny_release.rglob("S*/0*"))
    return next(folder for folder in folders if any(folder.glob("*.png")))


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_the_map_lies_where_the_evidence_is_and_follows_the_class(
    runs: dict[str, Path], stream: str
) -> None:
    """The net sees brightness, which speaks for class 2 and against class 4."""
    model = load_stream_model(runs[stream], device="cpu")
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.zero_()
        model.net.conv.weight[0] += 0.01
        model.net.fc[1].weight[2, 0], model.net.fc[1].weight[4, 0] = 1, -1
    images = torch.zeros(2, model.net.conv.in_channels, 224, 224)
    images[0, :, 20:60, 150:200] = 1
    images[1, :, 150:200, 20:60] = 1
    heat = grad_cam(model, images, [2, 2])
    assert (
        heat.shape == (2, 224, 224) and heat.min() >= 0 and heat.max(axis=(1, 2)).tolist() == [1, 1]
    )
    for number, (rows, columns) in enumerate((((20, 60), (150, 200)), ((150, 200), (20, 60)))):
        inside = heat[number, slice(*rows), slice(*columns)]
        assert inside.mean() > 0.6 and heat[number].sum() < 1.6 * inside.sum()
    assert not grad_cam(model, images, [4, 4]).any(), "nothing speaks for it"
    (red, _, blue), *_ = overlays(model, images, [2, 2])[0][40, 175:176].astype(int)
    assert red > blue + 50


def test_predict_explains_some_windows(
    cktrain: Cktrain, runs: dict[str, Path], sequence: Path, tmp_path: Path
) -> None:
    words = (runs["rgb"], runs["flow"], sequence, "--stride", 2, "--out", tmp_path / "out")
    code, text, error = cktrain("predict", *words, "--explain")
    assert code == 0 and "explain.png" in text, error
    picture = cv2.imread(str(tmp_path / "out" / "explain.png"))
    assert picture is not None and picture.std() > 20
    code, text, _ = cktrain("predict", *words)
    assert code == 0 and not (tmp_path / "out" / "explain.png").exists(), "of an earlier input"


def test_without_captum_or_gradients_one_sentence_says_what_to_do(
    cktrain: Cktrain,
    runs: dict[str, Path],
    sequence: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cktrain("export", runs["rgb"], "--out", tmp_path / "net.onnx")
    out = tmp_path / "out"
    code, _, error = cktrain("predict", tmp_path / "net.onnx", sequence, "--out", out, "--explain")
    assert code == 2 and "needs gradients" in error and not out.exists()
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    code, _, error = cktrain("predict", runs["rgb"], sequence, "--out", out, "--explain")
    assert code == 2 and "pip install 'ckshard[explain]'" in error and not out.exists()
    run = Path(shutil.copytree(runs["flow"], tmp_path / "run"))
    code, _, error = cktrain("report", run)
    page = (run / "report.html").read_text()
    assert code == 0 and "No Grad-CAM: Grad-CAM needs captum" in page, error


def test_the_report_explains_the_worst_mistakes_for_both_classes(
    cktrain: Cktrain, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs["flow"], tmp_path / "run"))
    code, _, error = cktrain("report", run)
    page = (run / "report.html").read_text()
    assert code == 0 and "No Grad-CAM" not in page, error
    for kind in ("predicted", "true"):
        assert page.count(f"({kind})</figcaption>") == page.count('<div class="mistake">') > 0
