"""The tiny net in the place of torchvision's, and runs of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.train.tiny_net import OPTIONS, SHORT, Cktrain, Train, make_tiny_net
from train.cli import main
from train.config import TrainConfig
from train.running.train_run import run_train


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.build._torchvision_model", make_tiny_net)


@pytest.fixture
def cktrain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cktrain:
    """A function that runs a command in this process: exit code, standard output, errors."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cktrain", *(str(word) for word in words)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def train(tiny_dataset: Path, tmp_path: Path) -> Train:
    """A function that trains the tiny net in this process and returns the run folder."""

    def run(
        name: str = "run", *, stream: str = "flow", resume: bool = False, **options: object
    ) -> Path:
        config = TrainConfig(stream=stream, **(OPTIONS | options))  # type: ignore[arg-type]
        out = tmp_path / name
        assert run_train(config, tiny_dataset, out, resume=resume, given=set(options)) == 0
        return out

    return run


@pytest.fixture(scope="session")
def runs(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An rgb and a flow run of the tiny net on one split, a flow run on another. Read only."""
    folder = tmp_path_factory.mktemp("runs")
    options = SHORT | {"folds": 3, "lr": 0.1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.build._torchvision_model", make_tiny_net)
        for name, stream, fold in (("rgb", "rgb", 0), ("flow", "flow", 0), ("other", "flow", 1)):
            config = TrainConfig(stream=stream, fold=fold, **options)  # type: ignore[arg-type]
            assert run_train(config, tiny_dataset, folder / name, resume=False) == 0
    return {name: folder / name for name in ("rgb", "flow", "other")}
