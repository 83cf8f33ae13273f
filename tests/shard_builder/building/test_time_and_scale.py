"""Fewer frames a second, flow at another size, and flow that is nearly all at rest."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.dataset import open_dataset
from shard_builder.building.flow import make_flow_estimator
from shard_builder.format.frames import Geometry
from shard_builder.format.levels import quantize_flow
from shard_builder.format.verify import verify_dataset
from shard_builder.images import decode_gray, decode_rgb, resize_image, to_gray
from shard_builder.synth.face import draw_face
from shard_builder.synth.motion import make_motion
from tests.face_sets import write_frames, write_video
from tests.programs import assert_refused, ckshard

FAST = ("--workers", "1", "--flow-method", "dis")
SMALL = ("--size", "64x48", "--codec", "png", "--flow-method", "dis", "--yes", "--workers", "1")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    write_video(root / "joy" / "p1_1.avi", num_frames=14)
    write_video(root / "sad" / "p2_1.avi", num_frames=13, fps=50)
    write_frames(root / "joy" / "p2", "{}.png", first=7, num_frames=12)
    rows = ["path,label,subject,onset,apex,offset", "joy/p1_1.avi,joy,p1,2,8,13"]
    rows += ["sad/p2_1.avi,sad,p2,,,", "joy/p2,joy,p2,,,"]
    (root / "table.csv").write_text("\n".join(rows))
    (root / "videos.csv").write_text("\n".join(rows[:-1]))
    return root


def shown(dataset: Path) -> dict[str, list[int]]:
    """The numbers of the frames stored, read back from their levels."""
    with open_dataset(dataset) as opened:
        return {
            key: [
                round((float(np.median(frame[:, 50:])) - 10) / 10)
                for number in range(opened.num_stored("rgb")[row])
                if (frame := decode_rgb(opened.read_member("rgb", row, number))) is not None
            ]
            for row, key in enumerate(opened.keys)
        }


def test_every_third_frame_is_taken_and_the_named_apex_is_the_nearest(
    clips: Path, tmp_path: Path
) -> None:
    build = ("build", clips / "table.csv", tmp_path / "dataset", *SMALL, "--frame-step", "3")
    done = ckshard(*build)
    assert done.returncode == 0, done.stderr
    assert verify_dataset(tmp_path / "dataset").faults == ()
    numbers = shown(tmp_path / "dataset")
    assert numbers == {
        "joy_p1_1": [2, 5, 8, 11],
        "sad_p2_1": [0, 3, 6, 9, 12],
        "joy_p2": [0, 3, 6, 9],
    }
    with open_dataset(tmp_path / "dataset") as opened:
        apex = dict(zip(opened.keys, opened.apex.tolist(), strict=True))
        assert apex == {"joy_p1_1": 2, "sad_p2_1": 4, "joy_p2": 3}
        assert opened.manifest.sampling.frame_step == 3 and opened.manifest.sampling.fps is None
    assert "one of 3" in ckshard("inspect", tmp_path / "dataset").stdout
    assert ckshard(*build, "--overwrite", "--frames", "last").returncode == 0
    assert shown(tmp_path / "dataset") == {key: [n[apex[key]]] for key, n in numbers.items()}


def test_a_rate_goes_by_each_videos_own_times(clips: Path, tmp_path: Path) -> None:
    build = ("build", clips / "videos.csv", tmp_path / "dataset", *SMALL)
    done = ckshard(*build, "--fps", "12.5")
    assert done.returncode == 0, done.stderr
    assert shown(tmp_path / "dataset") == {
        "joy_p1_1": [2, 4, 6, 8, 10, 12],
        "sad_p2_1": [0, 4, 8, 12],
    }
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_text())
    assert manifest["sampling"] == {"frame_step": 1, "fps": 12.5}
    assert_refused(
        ckshard(*build, "--overwrite", "--fps", "50"),
        "p1_1.avi: 25.0 frames a second, expected at least --fps 50",
    )
    table = ("build", clips / "table.csv", tmp_path / "more", *SMALL, "--fps", "12.5")
    assert_refused(ckshard(*table), "--fps 12.5, but images have no frame rate", "--frame-step")
    done = ckshard(*table, "--on-error", "skip")
    assert done.returncode == 0 and "1 sequence skipped" in done.stdout
    assert_refused(ckshard(*table, "--frame-step", "2"), "--frame-step 2", "--fps 12.5")


def test_flow_is_that_of_resized_frames_in_their_pixels(clips: Path, tmp_path: Path) -> None:
    build = ("build", clips / "table.csv", tmp_path / "dataset", *SMALL)
    assert ckshard(*build, "--flow-size", "32x24", "--bound-px", "4").returncode == 0
    size = Geometry(width=32, height=24)
    estimate = make_flow_estimator("dis")
    with open_dataset(tmp_path / "dataset") as opened:
        assert opened.manifest.flow is not None and opened.manifest.flow.size == size
        row = list(opened.keys).index("joy_p2")
        frames = [cv2.imread(str(clips / "joy" / "p2" / f"{n}.png")) for n in (10, 11)]
        grays = [
            cv2.resize(to_gray(np.asarray(frame, np.uint8)), (32, 24), interpolation=cv2.INTER_AREA)
            for frame in frames
        ]
        levels = quantize_flow(estimate(*grays), bound_px=4.0)  # type: ignore[arg-type]
        planes = [resize_image(levels[..., axis].copy(), width=64, height=48) for axis in (0, 1)]
        stored = decode_gray(opened.read_member("flow", row, 3))
        assert stored is not None and np.array_equal(stored, np.concatenate(planes))
    assert "on frames of 32x24" in ckshard("inspect", tmp_path / "dataset").stdout
    assert_refused(ckshard(*build, "--flow-size", "32"), "--flow-size 32, expected WIDTHxHEIGHT")
    assert_refused(ckshard(*build, "--flow-size", "8x24"), "--flow-size 8x24, expected 16x16 to")


def test_prepared_flow_is_not_claimed_to_be_another(trees: Path, tmp_path: Path) -> None:
    for words in (("--frame-step", "2"), ("--fps", "15"), ("--flow-size", "64x48")):
        done = ckshard("build", trees, tmp_path / "dataset", "--yes", *words)
        assert_refused(done, " ".join(words), "flow of prepared trees is taken as it is")


def micro_clip(folder: Path, emotion: str, seed: int) -> None:
    """Draw an expression that takes a whole second at 200 frames a second to move 3 pixels."""
    generator = np.random.Generator(np.random.Philox(seed))
    face = draw_face(generator, height=96, width=128)
    motion = make_motion(face, emotion, num_frames=2, generator=generator)
    first, last = (motion.render(number, generator) for number in (0, 1))
    grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first, last)]
    flow = make_flow_estimator("farneback")(*grays)  # type: ignore[arg-type]
    flow *= 3 / np.abs(flow).max()
    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    folder.mkdir(parents=True)
    for number in range(30):
        part = number / 29
        x, y = columns - part * flow[..., 0], rows - part * flow[..., 1]
        image = cv2.remap(first, x, y, cv2.INTER_CUBIC)
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), image)


def test_flow_at_rest_is_warned_of_and_the_named_options_cure_it(tmp_path: Path) -> None:
    for subject in ("p1", "p2"):
        for number, emotion in enumerate(("happy", "surprise")):
            micro_clip(tmp_path / "clips" / emotion / subject, emotion, seed=number)
    build = ("build", tmp_path / "clips", tmp_path / "dataset", "--layout", "{label}/{subject}")
    done = ckshard(*build, "--size", "96x72", "--streams", "flow", *FAST)
    assert done.returncode == 0, done.stderr
    warning = next(line for line in done.stdout.splitlines() if "within one of" in line)
    text = done.stdout[done.stdout.index(warning) :]
    words = text[text.index("--frame-step") :].split()[:4]
    assert words[0::2] == ["--frame-step", "--bound-px"] and int(words[1]) > 1
    again = ckshard(*build, "--size", "96x72", "--streams", "flow", *FAST, "--overwrite", *words)
    assert again.returncode == 0, again.stderr
    assert "warning" not in again.stdout
