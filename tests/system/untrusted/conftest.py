"""Copies of one dataset and one run, for the tests to damage."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.system.mutations.base import Base, make_base
from tests.system.untrusted.changes import PROGRAMS, Cli
from tests.train.tiny_net import make_tiny_net


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.build._torchvision_model", make_tiny_net)
        return make_base(tmp_path_factory.mktemp("base"), codecs=("jpg",))


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.build._torchvision_model", make_tiny_net)


@pytest.fixture
def dataset(base: Base, tmp_path: Path) -> Path:
    shutil.copytree(base.datasets["jpg"], tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def run(base: Base, tmp_path: Path) -> Path:
    shutil.copytree(base.runs["flow"], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in this process; returns its exit code and all that it printed."""

    def call(program: str, *words: object) -> tuple[int, str]:
        module = __import__(PROGRAMS[program], fromlist=["main"])
        monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            module.main()
        return int(stop.value.code or 0), "".join(capfd.readouterr())

    return call
