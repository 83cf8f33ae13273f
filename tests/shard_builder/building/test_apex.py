"""The apex: named by the source or found by a rule, what the rgb stream keeps of it and shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from pipelines.loader import make_loader
from pipelines.plan.sampling import Sampling
from pipelines.reading import Reading
from pipelines.views import make_view_loader
from shard_builder.building.apex import MotionFromFirst
from shard_builder.format.verify import verify_dataset
from shard_builder.images import Image
from shard_builder.synth.face import draw_face
from shard_builder.synth.motion import make_motion
from tests.face_sets import write_frames, write_video
from tests.programs import assert_refused, ckshard

SMALL = ("--size", "64x48", "--codec", "png", "--flow-method", "dis")
EMOTIONS = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A named apex with an onset, a named one without, and two clips that name none."""
    write_frames(tmp_path / "p1" / "a", "{}.png", first=95, num_frames=12)
    write_video(tmp_path / "p1" / "b.avi", num_frames=12)
    write_video(tmp_path / "p2" / "c.avi", num_frames=11)
    write_frames(tmp_path / "p2" / "d", "{}.png", num_frames=9)
    rows = ["path,label,subject,onset,apex,offset", "p1/a,joy,A,97,102,104", "p1/b.avi,sad,A,,4,"]
    rows += ["p2/c.avi,joy,B,,,", "p2/d,sad,B,,,"]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    return tmp_path


def level_of(image: np.ndarray) -> int:
    """Read the number of a drawn frame back."""
    return round((float(np.median(image)) - 10) / 10)


@pytest.mark.parametrize(
    ("rule", "apexes"), [("last", (5, 4, 10, 8)), ("middle", (5, 4, 5, 4)), ("3", (5, 4, 3, 3))]
)
@pytest.mark.parametrize(("frames", "num_kept"), [("all", 99), ("last", 1), ("last3", 3)])
def test_the_rule_counts_where_none_is_named_and_rgb_shows_it(
    rule: str, apexes: tuple[int, ...], frames: str, num_kept: int, clips: Path
) -> None:
    codec = "raw" if rule == "3" else "png"
    words = (*SMALL, "--codec", codec, "--apex", rule, "--frames", frames)
    done = ckshard("build", clips / "table.csv", clips / "dataset", *words)
    assert done.returncode == 0, done.stderr
    assert verify_dataset(clips / "dataset").faults == ()
    first = (2, 0, 0, 0)  # numbers of the first frames kept
    with open_dataset(clips / "dataset") as dataset:
        row_of = {key: row for row, key in enumerate(dataset.keys)}
        rows = np.array([row_of[key] for key in ("p1_a", "p1_b", "p2_c", "p2_d")])
        assert dataset.apex[rows].tolist() == list(apexes)
        usable = [min(num_kept, apex + 1) for apex in apexes]
        assert dataset.num_usable("rgb")[rows].tolist() == usable
        shown = [number + begin for number, begin in zip(apexes, first, strict=True)]
        loader = make_loader(
            dataset,
            "rgb",
            rows=rows,
            training=True,
            batch_size=4,
            sampling=Sampling(),
            reading=Reading(engine="cpu", dtype=torch.uint8),
        )
        with loader:
            batch = next(iter(loader))
            by_key = dict(zip(batch.keys, batch.images, strict=True))
            levels = [level_of(by_key[dataset.keys[row]].numpy()) for row in rows]
        assert levels == shown
        views = make_view_loader(
            dataset,
            "rgb",
            rows=rows,
            batch_size=4,
            reading=Reading(engine="cpu", dtype=torch.uint8),
        )
        with views:
            batch = next(iter(views))
            by_key = dict(zip(batch.keys, batch.images, strict=True))
            assert [level_of(by_key[dataset.keys[row]].numpy()) for row in rows] == shown
    if frames == "all" and rule == "middle":
        page = clips / "page.html"
        assert ckshard("inspect", clips / "dataset", "--html", page).returncode == 0
        assert "apex: frame 5 of 12" in page.read_text()
        assert "apex: frame 6 of 8" in page.read_text()


def test_an_apex_that_a_sequence_has_not_is_refused(clips: Path) -> None:
    build = ("build", clips / "table.csv", clips / "dataset", *SMALL)
    assert_refused(ckshard(*build, "--apex", "9"), "table.csv, line 5: --apex 9, but only 9 frames")
    assert_refused(ckshard(*build, "--apex", "peak"), "--apex peak, expected last, middle, motion")


def clip(emotion: str, course: str, seed: int) -> tuple[list[Image], int]:
    """Draw a clip that returns to neutral, and its true apex."""
    generator = np.random.Generator(np.random.Philox(seed))
    num_frames = int(generator.integers(9, 30))
    face = draw_face(generator, height=180, width=240)
    motion = make_motion(face, emotion, num_frames=num_frames, generator=generator)
    apex = num_frames - 1
    if course == "cosine":
        apex = int(generator.integers(num_frames // 4, 3 * num_frames // 4))
        times = np.arange(num_frames)
        up, down = times / max(apex, 1), (num_frames - 1 - times) / (num_frames - 1 - apex)
        motion = replace(
            motion, course=(1 - np.cos(np.pi * np.minimum(np.minimum(up, down), 1))) / 2
        )
    images = [motion.render(number, generator) for number in range(num_frames)]
    if course == "mirrored":
        images += images[-2::-1]
    return [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8) for image in images], apex


def test_motion_finds_the_apex_of_drawn_clips_that_return() -> None:
    hits = []
    for number, emotion in enumerate(EMOTIONS):
        for course in ("mirrored", "cosine"):
            grays, apex = clip(emotion, course, seed=50 + number)
            motion = MotionFromFirst()
            for gray in grays:
                motion.add(gray)
            assert motion.returns
            hits.append(abs(motion.apex - apex) <= 2)
    assert np.mean(hits) >= 0.95, hits


def test_a_clip_whose_motion_returns_is_noticed_and_motion_finds_its_apex(tmp_path: Path) -> None:
    for subject in ("p1", "p2"):
        for number, emotion in enumerate(("happy", "surprise")):
            grays, _ = clip(emotion, "mirrored" if subject == "p1" else "", seed=number)
            folder = tmp_path / "clips" / emotion / subject
            folder.mkdir(parents=True)
            for frame, gray in enumerate(grays):
                assert cv2.imwrite(str(folder / f"{frame:03d}.png"), gray)
    build = ("build", tmp_path / "clips", tmp_path / "dataset", "--layout", "{label}/{subject}")
    done = ckshard(*build, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "warning: 2 sequences, such as happy_p1, end near their first frame" in done.stdout
    done = ckshard(*build, *SMALL, "--apex", "motion", "--overwrite")
    assert done.returncode == 0 and "end near" not in done.stdout
    with open_dataset(tmp_path / "dataset") as dataset:
        middle = dataset.num_frames // 2
        returning = [key.endswith("p1") for key in dataset.keys]
        assert np.abs(dataset.apex - middle)[returning].max() <= 2
        for row in np.flatnonzero(~np.array(returning)):
            assert dataset.apex[row] > middle[row]


def test_one_frame_and_frames_at_rest_have_their_last_frame_as_apex() -> None:
    motion = MotionFromFirst()
    for _ in range(4):
        motion.add(np.full((40, 60), 90, np.uint8))
        assert motion.apex == len(motion.distances) - 1 and not motion.returns
