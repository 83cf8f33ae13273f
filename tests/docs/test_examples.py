"""The scripts of docs/examples, run as a user would, on the tiny dataset."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipelines import make_loader, open_dataset

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
RunExample = Callable[..., dict[str, Any]]


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch) -> RunExample:
    """A function that runs an example with its arguments and returns what its module holds."""

    def run(name: str, *arguments: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def planes_of(path: Path, row: int) -> np.ndarray:
    """All planes of a sequence, (2n, H, W), decoded member by member."""
    with open_dataset(path) as dataset:
        pairs = [
            cv2.imdecode(dataset.read_member("flow", row, number), cv2.IMREAD_GRAYSCALE)
            for number in range(int(dataset.num_pairs[row]))
        ]
    return np.concatenate([np.split(pair, 2) for pair in pairs]).reshape(-1, 256, 340)


def raw_planes_of(path: Path, row: int) -> np.ndarray:
    """All planes of a sequence of a raw build."""
    with open_dataset(path) as dataset:
        shape = (2 * int(dataset.num_pairs[row]), 256, 340)
        return dataset.members("flow").read_array(row, shape).copy()


def test_every_example_is_short_and_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    examples = sorted(EXAMPLES.glob("*.py"))
    assert examples
    for path in examples:
        assert f'run_example("{path.name}"' in tests, path.name
        assert 20 <= len(path.read_text(encoding="utf-8").splitlines()) <= 62, path.name


def test_a_plain_loop_learns(
    tiny_dataset: Path, run_example: RunExample, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("train_loop.py", tiny_dataset, 5)
    lines = capsys.readouterr().out.splitlines()
    losses = [float(re.fullmatch(r"epoch \d: loss (\S+), \d+ right", line)[1]) for line in lines]  # type: ignore[index]
    assert len(losses) == 5 and losses[0] < 2.5
    assert losses[-1] < 0.93 * losses[0]  # 0.86; without learning 0.995


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_lightning_trains_and_resumes_in_the_middle_of_an_epoch(
    tiny_dataset: Path,
    tmp_path: Path,
    run_example: RunExample,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lightning = pytest.importorskip("lightning", reason="PyTorch Lightning is not installed")
    monkeypatch.chdir(tmp_path)  # Lightning writes its checkpoints here
    module = run_example("train_lightning.py", tiny_dataset, 2)
    metrics = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    assert 0 < metrics["loss_epoch"] < 2.5 and 0 <= metrics["val_accuracy"] <= 1

    def fit(checkpoint: Path | None) -> tuple[int, list[torch.Tensor]]:
        torch.manual_seed(0)
        net = module["FlowNet"](7)
        saver = lightning.pytorch.callbacks.ModelCheckpoint(
            dirpath=tmp_path / "saved", every_n_train_steps=7, save_top_k=-1
        )
        trainer = lightning.Trainer(
            max_epochs=2, devices=1, logger=False, callbacks=[saver], enable_progress_bar=False
        )
        with (
            open_dataset(tiny_dataset) as dataset,
            make_loader(dataset, "flow", training=True, batch_size=10) as loader,
        ):
            trainer.fit(net, loader, ckpt_path=checkpoint)
        return trainer.global_step, list(net.parameters())

    steps, weights = fit(None)
    saved = next((tmp_path / "saved").glob("*.ckpt"))
    resumed_steps, resumed = fit(saved)
    assert steps == resumed_steps == 2 * 5
    assert all(map(torch.equal, weights, resumed))


def test_a_run_saved_in_the_middle_of_an_epoch_ends_in_the_same_weights(
    tiny_dataset: Path, tmp_path: Path, run_example: RunExample, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    run_example("resume.py", tiny_dataset, checkpoint)
    assert capsys.readouterr().out == "weights are equal\n"
    state = torch.load(checkpoint, weights_only=True)["loader"]
    assert (state["epoch"], state["position"], state["num_samples"]) == (1, 20, 42)


def test_the_readmes_example_runs_as_it_stands(
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (EXAMPLES.parent.parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "dataset").symlink_to(tiny_dataset)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(":")[0] for line in lines] == ["epoch 0", "epoch 1", "epoch 2"]
    assert all(line.endswith(" of 7 right") for line in lines)


@pytest.mark.filterwarnings("ignore:unclosed file")  # webdataset leaves its tars to be collected
@pytest.mark.parametrize("codec", ["jpg", "lz4"])
def test_plain_webdataset_reads_every_sequence(
    codec: str,
    tiny_dataset: Path,
    lz4_dataset: Path,
    raw_dataset: Path,
    run_example: RunExample,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = {"jpg": tiny_dataset, "lz4": lz4_dataset}[codec]
    module = run_example("read_webdataset.py", folder)
    printed = capsys.readouterr().out.splitlines()
    with open_dataset(folder) as dataset, open_dataset(raw_dataset) as raw:
        keys, labels = list(dataset.keys), dataset.labels.tolist()
        raw_rows = raw.rows_of(keys).tolist()
    assert sorted(line.split()[0] for line in printed) == sorted(keys)
    samples = list(module["read"](folder))
    assert [sample["key"] for sample in samples] == keys
    assert [sample["label"] for sample in samples] == labels
    for row, sample in enumerate(samples[:5]):
        whole = (
            planes_of(tiny_dataset, row)
            if codec == "jpg"
            else raw_planes_of(raw_dataset, raw_rows[row])
        )
        starts = range(0, len(whole) - 9, 2)
        assert any(np.array_equal(whole[s : s + 10], sample["planes"]) for s in starts)
        assert np.abs(sample["flow"] - (sample["planes"] / 255 * 20 - 10)).max() < 1e-5


def test_dalis_reader_reads_every_sequence(
    tiny_dataset: Path, run_example: RunExample, capsys: pytest.CaptureFixture[str]
) -> None:
    module = run_example("read_dali.py", tiny_dataset)
    shapes = [line.split(" [")[0] for line in capsys.readouterr().out.splitlines()]
    assert shapes == ["(8, 10, 224, 224)"] * 5 + ["(2, 10, 224, 224)"]
    batches = [batch for (batch,) in module["read"](tiny_dataset)]
    with open_dataset(tiny_dataset) as dataset:
        labels = dataset.labels.tolist()
    assert [int(label) for batch in batches for label in batch["labels"].flatten()] == labels
    for row in range(8):
        levels = planes_of(tiny_dataset, row)[:10, 16:240, 58:282].astype(np.float64)
        expected = (levels / 255 - 0.5) / 0.226
        # another JPEG decoder: within two levels
        assert np.abs(batches[0]["images"][row].numpy() - expected).max() < 2.1 / 255 / 0.226


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_without_arguments_an_example_says_how_it_is_run(
    path: Path, run_example: RunExample
) -> None:
    if path.name == "train_lightning.py":
        pytest.importorskip("lightning")
    with pytest.raises(SystemExit, match=f"^usage: .*python docs/examples/{path.name} DATASET"):
        run_example(path.name)
