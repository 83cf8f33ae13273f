"""Markers that cannot hide, and the small generated release and datasets that most tests share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from shard_builder.building.build import build_dataset
from shard_builder.building.options import BuildOptions
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.synth.options import ReleaseOptions
from shard_builder.synth.release import write_release
from tests.seaweed import running_weed

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BuildDataset = Callable[..., Path]


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def has_browser() -> bool:
    return any(shutil.which(name) for name in BROWSERS)


REQUIREMENTS = {
    "gpu": (has_gpu, "REQUIRE_GPU", "needs an NVIDIA GPU"),
    "browser": (has_browser, "REQUIRE_BROWSER", "needs a headless Chromium"),
}


def pytest_configure() -> None:
    """Let each process compute in one thread, for tests of two processes share the cores; and let
    the programs that tests interrupt notice it: a shell's background job, and all that it starts,
    ignores Ctrl-C."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a gpu or browser test where there is none, unless the environment says that there must
    be one."""
    for marker, (is_there, variable, reason) in REQUIREMENTS.items():
        if item.get_closest_marker(marker) and not is_there():
            if os.environ.get(variable) == "1":
                pytest.fail(f"{reason}, and {variable}=1 says that it must be here")
            pytest.skip(reason)


@pytest.fixture(scope="session")
def face_model() -> Path:
    """The face detector's model that the environment names; skips where it names none."""
    named = os.environ.get("CKSHARD_FACE_MODEL")
    if not named:
        pytest.skip("needs a YuNet model, named by CKSHARD_FACE_MODEL")
    return Path(named)


BROWSER_FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ),
    *("--disable-sync", "--enable-logging=stderr", "--window-size=1200,2000"),
)


@pytest.fixture
def screenshot(tmp_path: Path) -> Callable[[Path], np.ndarray]:
    """A function that opens a page in a real browser without any message in its console, and
    returns the picture."""

    def take(page: Path) -> np.ndarray:
        browser = next(path for name in BROWSERS if (path := shutil.which(name)))
        shot = tmp_path / "screenshot.png"
        done = subprocess.run(
            [
                browser,
                *BROWSER_FLAGS,
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--screenshot={shot}",
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr
        picture = cv2.imread(str(shot))
        assert picture is not None and picture.shape == (2000, 1200, 3)
        return picture

    return take


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CK+-shaped release of 6 subjects, 7 emotions each, pictures of 160x122, 6 to 12 frames.
    Read only."""
    release = tmp_path_factory.mktemp("release") / "CK+"
    write_release(
        release, ReleaseOptions(num_subjects=6, image_scale=0.25, max_frames=12), workers=2
    )
    return release


@pytest.fixture(scope="session")
def build_tiny(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildDataset:
    """A function that builds the tiny release with some options, once for equal options. The folder
    is read only."""
    built: dict[tuple[tuple[str, object], ...], Path] = {}

    def build(**options: object) -> Path:
        identity = tuple(sorted(options.items()))
        if identity not in built:
            dataset = tmp_path_factory.mktemp("dataset") / "dataset"
            chosen = BuildOptions(**{"flow_method": "dis", "width": 340, "height": 256, **options})  # type: ignore[arg-type]
            build_dataset(scan_ckplus(tiny_release), tiny_release, dataset, chosen, workers=2)
            built[identity] = dataset
        return built[identity]

    return build


@pytest.fixture(scope="session")
def build_small(tmp_path_factory: pytest.TempPathFactory) -> BuildDataset:
    """The same of a release of 3 subjects, 21 sequences of at most 6 frames, in this process."""
    release, built = tmp_path_factory.mktemp("small") / "CK+", dict[str, Path]()
    write_release(
        release, ReleaseOptions(num_subjects=3, image_scale=0.25, max_frames=6), workers=1
    )

    def build(**options: object) -> Path:
        identity = repr(sorted(options.items()))
        if identity not in built:
            chosen = BuildOptions(  # type: ignore[arg-type]
                **{"flow_method": "dis", "width": 256, "height": 240, "shard_bytes": 1 << 20}
                | options
            )
            built[identity] = tmp_path_factory.mktemp("dataset") / "dataset"
            build_dataset(scan_ckplus(release), release, built[identity], chosen, workers=1)
        return built[identity]

    return build


@pytest.fixture(scope="session")
def small_dataset(build_small: BuildDataset) -> Path:
    """The small release as shards of both streams, codec jpg. Read only."""
    return build_small(codec="jpg")


@pytest.fixture(scope="session")
def tiny_dataset(build_tiny: BuildDataset) -> Path:
    """The tiny release as shards of both streams, codec jpg, small shards. Read only: copy it
    before you break it."""
    return build_tiny(codec="jpg", shard_bytes=4 << 20)


@pytest.fixture(scope="session")
def lz4_dataset(build_tiny: BuildDataset) -> Path:
    """The same with flow as LZ4 blocks."""
    return build_tiny(codec="jpg", flow_codec="lz4", shard_bytes=32 << 20)


@pytest.fixture(scope="session")
def raw_dataset(build_tiny: BuildDataset) -> Path:
    """The same with codec raw."""
    return build_tiny(codec="raw", shard_bytes=32 << 20)


@pytest.fixture(scope="session")
def object_store() -> Iterator[dict[str, str]]:
    """A real object store with the bucket ``faces``: the environment of its clients."""
    with running_weed() as environment:
        yield environment
