"""Files of strangers in the place of exported nets: refused in one line."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.train.prediction.test_export import exported, sequence
from tests.train.tiny_net import Cktrain

__all__ = ["exported", "sequence"]


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
