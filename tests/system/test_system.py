"""The whole path on a real talking face: video -> CK+-shaped release -> shards -> training steps on
both streams -> fusion."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.carphone import carphone_video, read_video

# Cuts of the 120-frame video: four "subjects" (stretches of the video), three emotions each, 6 to
# 14 frames long.
LENGTHS = (6, 10, 14)
EMOTIONS = (1, 5, 7)


@pytest.fixture(scope="module")
def carphone_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("carphone") / "CK+"
    frames = read_video(carphone_video())
    assert len(frames) == 120 and frames[0].shape == (144, 176, 3)
    begin = 0
    for subject in (5, 10, 11, 14):
        for session, (length, emotion) in enumerate(zip(LENGTHS, EMOTIONS, strict=True), start=1):
            name = f"S{subject:03d}/{session:03d}"
            stem = f"S{subject:03d}_{session:03d}"
            images = root / "extended-cohn-kanade-images" / "cohn-kanade-images" / name
            labels = root / "Emotion_labels" / "Emotion" / name
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for number, frame in enumerate(frames[begin : begin + length], start=1):
                gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
                assert cv2.imwrite(
                    str(images / f"{stem}_{number:08d}.png"), cv2.resize(gray, (640, 490))
                )
            (labels / f"{stem}_{length:08d}_emotion.txt").write_text(f"   {emotion:.7e}\n")
            begin += length
    assert begin <= len(frames)
    return root


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(str(arguments[0]))
    return subprocess.run(
        [str(program), *map(str, arguments[1:])], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_real_face_to_shards_to_training_to_fusion(carphone_release: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    built = run("ckshard", "build", carphone_release, dataset)
    assert built.returncode == 0, built.stderr
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert manifest["num_sequences"] == 12 and manifest["num_subjects"] == 4
    assert [c["num_sequences"] for c in manifest["classes"]] == [4, 0, 0, 0, 4, 0, 4]
    # A real face moves, but hardly ever by 10 px a frame at 640x490; zero motion is level 128.
    assert 0 <= manifest["flow"]["saturated_fraction"] < 0.2
    assert 118 < manifest["flow"]["mean_level"] < 138

    for stream in ("flow", "rgb"):
        done = run(
            *(
                "cktrain",
                stream,
                dataset,
                "--out",
                tmp_path / stream,
                "--arch",
                "resnet18",
                "--weights",
                "none",
            ),
            *(
                "--epochs",
                1,
                "--batch-size",
                3,
                "--iter-size",
                2,
                "--folds",
                4,
                "--fold",
                1,
                "--seed",
                3,
            ),
        )
        assert done.returncode == 0, done.stderr
        rows = [
            json.loads(line)
            for line in (tmp_path / stream / "metrics.jsonl").read_text().splitlines()
        ]
        assert all(row["loss"] == row["loss"] for row in rows if "loss" in row)
        assert (tmp_path / stream / "last.pt").is_file()

    tested = run(
        "cktrain", "test", tmp_path / "rgb", tmp_path / "flow", dataset, "--out", tmp_path / "test"
    )
    assert tested.returncode == 0, tested.stderr
    report = json.loads((tmp_path / "test" / "test.json").read_text())
    assert report["num_sequences"] == 3
    for name in ("rgb", "flow", "fused"):
        assert 0.0 <= report[name]["accuracy"] <= 1.0
