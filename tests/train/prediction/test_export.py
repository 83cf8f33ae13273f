"""A net in one file: what it says of itself, that it answers as its run, and files of strangers."""

from __future__ import annotations

import json
import re
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
from onnx import TensorProto, helper, numpy_helper

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


def change_onnx(path: Path, change: Callable[[Any], None]) -> None:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def set_metadata(model: Any, **fields: Any) -> None:
    entries = {entry.key: entry.value for entry in model.metadata_props}
    entries |= {name: json.dumps(value) for name, value in fields.items()}
    helper.set_model_props(model, entries)


def add_huge(model: Any) -> None:
    """A tensor of terabytes, made while the graph runs."""
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "huge_shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"]))


def add_loop(model: Any) -> None:
    """A loop that never ends."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    model.graph.node.append(helper.make_node("Loop", ["", "go"], [], body=body))


def add_unknown_size(model: Any) -> None:
    model.graph.node.append(helper.make_node("NonZero", ["images"], ["where"]))


def point_outside(model: Any) -> None:
    tensor = next(t for t in model.graph.initializer if t.ByteSize() > 100)
    onnx.external_data_helper.set_external_data(tensor, location="../secret.bin")
    tensor.ClearField("raw_data")


def break_weights(model: Any) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(
                numpy_helper.from_array(
                    np.full(tuple(tensor.dims), np.nan, np.float32), tensor.name
                )
            )


def call_foreign_operator(model: Any) -> None:
    model.graph.node[0].domain = "com.evil"


HOSTILE = {
    "cut": (
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        "is not ONNX|cannot be run|metadata",
    ),
    "noise": (lambda path: path.write_bytes(b"\0\xff" * 500), "is not ONNX"),
    "no metadata": (
        lambda path: change_onnx(path, lambda m: m.ClearField("metadata_props")),
        "metadata: not a file of cktrain export",
    ),
    "version": (
        lambda path: change_onnx(path, lambda m: set_metadata(m, version=9)),
        "metadata: version 9, expected 1",
    ),
    "geometry": (
        lambda path: change_onnx(
            path, lambda m: set_metadata(m, geometry={"height": 10**9, "width": 340})
        ),
        "metadata: geometry.height: 1000000000",
    ),
    "stack": (
        lambda path: change_onnx(path, lambda m: set_metadata(m, stack_length=7)),
        r"expected \(N, 14, 224, 224\)",
    ),
    "mean": (
        lambda path: change_onnx(path, lambda m: set_metadata(m, mean=[0.1])),
        "metadata: .*mean",
    ),
    "classes": (
        lambda path: change_onnx(
            path, lambda m: set_metadata(m, classes=["a", "b"], output_of_class=[0, 1])
        ),
        "outputs of shape",
    ),
    "huge": (lambda path: change_onnx(path, add_huge), "cannot be run .*numbers"),
    "loop": (lambda path: change_onnx(path, add_loop), "cannot be run .*Loop"),
    "unknown size": (lambda path: change_onnx(path, add_unknown_size), "no size that is known"),
    "another file": (lambda path: change_onnx(path, point_outside), "a tensor in another file"),
    "not finite": (lambda path: change_onnx(path, break_weights), "not finite"),
    "foreign operator": (lambda path: change_onnx(path, call_foreign_operator), "com.evil"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_onnx_of_a_stranger_is_refused_with_one_line(
    onnx_file: Path, cktrain: Cktrain, sequence: Path, tmp_path: Path, case: str
) -> None:
    path = Path(shutil.copy(onnx_file, tmp_path / "net.onnx"))
    spoil, complaint = HOSTILE[case]
    spoil(path)
    refused(cktrain, path, sequence, complaint)


def refused(cktrain: Cktrain, path: Path, sequence: Path, complaint: str) -> None:
    code, _, error = cktrain("predict", path, sequence, "--out", path.parent / "out")
    first, *more = error.splitlines()
    assert code == 2 and first.startswith(f"cktrain: error: {path}"), error
    assert re.search(complaint, first) and all(line.startswith("  ") for line in more), error


@pytest.fixture(scope="session")
def onnx_file(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.train.tiny_net import make_tiny_net
    from train.prediction.export import export_run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.build._torchvision_model", make_tiny_net)
        return export_run(runs["flow"], out=tmp_path_factory.mktemp("onnx") / "net.onnx").path


def change_entry(path: Path, end: str, data: bytes | None) -> None:
    """Write an archive again with other bytes in one entry, or without it."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in entries if name.endswith(end)]
    del entries[name]
    with zipfile.ZipFile(path, "w") as archive:
        for other, content in (entries | ({} if data is None else {name: data})).items():
            archive.writestr(other, content)


def test_the_program_in_a_pt2_is_not_loaded_and_what_else_is_wrong_is_one_line(
    exported: Callable[[str, str], Path], cktrain: Cktrain, sequence: Path, tmp_path: Path
) -> None:
    whole = exported("rgb", "torch")
    for end, data, complaint in (
        ("model_weights_config.json", b'{"config": {}}', "other tensors than the net's"),
        (
            "model_weights_config.json",
            b'{"config": {"conv.weight": {"path_name": 3}}}',
            "path_name",
        ),
        ("/weight_0", b"1234", "cannot be read as .pt2"),
        ("extra/original_head", b"true", "other tensors than the net's"),
        ("extra/classes", None, "classes"),
    ):
        path = Path(shutil.copy(whole, tmp_path / "net.pt2"))
        change_entry(path, end, data)
        refused(cktrain, path, sequence, complaint)
    path.write_bytes(whole.read_bytes()[:-50])
    refused(cktrain, path, sequence, "cannot be read as .pt2")
    shutil.copy(whole, path)
    change_entry(path, "models/model.json", b"__import__('os').abort()")
    code, _, error = cktrain("predict", path, sequence, "--out", tmp_path / "out")
    assert code == 0, error


def test_an_onnx_is_read_as_onnx_whoever_made_it(
    onnx_file: Path, cktrain: Cktrain, sequence: Path, tmp_path: Path
) -> None:
    """onnxruntime tells its own format, whose graph nobody has checked, by the bytes 4 to 7."""
    path = Path(shutil.copy(onnx_file, tmp_path / "net.onnx"))
    change_onnx(path, lambda model: setattr(model, "producer_name", "ORTM"))
    assert path.read_bytes()[4:8] == b"ORTM"
    code, _, error = cktrain("predict", path, sequence, "--out", tmp_path / "out")
    assert code == 0, error
