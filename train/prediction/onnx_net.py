"""A net in ONNX, as strangers may send it: run once its graph is seen to be plain."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from pipelines.plan.crops import INPUT_SIZE
from pipelines.streams import kind_of
from shard_builder.errors import InputError
from shard_builder.untrusted.text import clean
from train.running.checkpoint import TrainedNet

INPUT, OUTPUT = "images", "logits"
MOST_ONNX_BYTES = (1 << 31) - 1
"""What a protocol buffer may have."""
MOST_VALUES, MOST_WORK = 1 << 30, 1 << 41
"""Of one sample: numbers in all layers, multiplications; ResNet-152 has 1 % of either."""
PLAIN_ATTRIBUTES = frozenset({1, 2, 3, 4, 6, 7, 8})
"""Float, int, string, tensor, floats, ints, strings: no graph, none that is sparse or a type."""


def parse_onnx(data: bytes, path: Path) -> Any:
    """Return the ``onnx.ModelProto`` in a file.

    Raises:
        InputError: If it is none, or onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise InputError(
            f"{path}: an .onnx needs onnxruntime\n  Install it: pip install 'ckshard[export]'"
        ) from None
    try:
        return onnx.load_from_string(data)
    except Exception as error:  # noqa: BLE001 - protobuf and onnx raise anything
        raise InputError(f"{path}: is not ONNX ({clean(error)})") from None


def open_onnx(model: Any, data: bytes, content: TrainedNet, path: Path) -> OnnxNet:
    """Make a model ready to run on the CPU.

    Args:
        model: What :func:`parse_onnx` returned; it is changed.
        data: The file.
        content: Its metadata.
        path: Its name.

    Raises:
        InputError: If its graph is not plain, or onnxruntime refuses it.
    """
    import onnxruntime

    try:
        check_graph(model, content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
        # Not its own format, which it would see in a net whose producer is called ORTM: that graph
        # would be another than the one that was checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # Two nets may run beside each other: threads that spin would take the other's core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - so does onnxruntime
        raise InputError(f"{path}: its graph cannot be run ({clean(error, most=200)})") from None
    return OnnxNet(path, session, content.num_outputs)


class OnnxNet:
    """A net that onnxruntime runs on the CPU."""

    def __init__(self, path: Path, session: Any, num_outputs: int) -> None:
        self._path, self._session, self._num_outputs = path, session, num_outputs

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return outputs (N, outputs) of images (N, C, 224, 224)."""
        try:
            (outputs,) = self._session.run([OUTPUT], {INPUT: images.contiguous().numpy()})
        except Exception as error:  # noqa: BLE001 - onnxruntime raises anything
            reason = clean(error, most=200)
            raise InputError(f"{self._path}: its graph fails ({reason})") from None
        if outputs.shape != (expected := (len(images), self._num_outputs)):
            raise InputError(f"{self._path}: outputs of shape {outputs.shape}, expected {expected}")
        return torch.from_numpy(outputs)


def check_graph(model: Any, content: TrainedNet) -> None:
    """Make sure that a graph is plain: what it takes of memory and time is known and bounded.

    Args:
        model: An ``onnx.ModelProto``; it is changed.
        content: Its metadata.

    Raises:
        ValueError: If it is not.
    """
    from onnx import TensorProto, shape_inference

    graph, num_channels = model.graph, kind_of(content.stream).num_channels(content.stack_length)
    if model.functions or len(graph.input) != 1 or [o.name for o in graph.output] != [OUTPUT]:
        raise ValueError(f"functions, or another input and output than {INPUT} and {OUTPUT}")
    for node in graph.node:
        kinds = {attribute.type for attribute in node.attribute}
        tensors = [attribute.t for attribute in node.attribute]
        if node.domain not in ("", "ai.onnx") or kinds - PLAIN_ATTRIBUTES:
            raise ValueError(f"operator {node.domain}.{node.op_type} or its attributes")
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors):
            raise ValueError("a tensor in another file")
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer):
        raise ValueError("a tensor in another file")
    if graph.sparse_initializer:
        raise ValueError("a sparse tensor")
    shape = graph.input[0].type.tensor_type.shape
    given = [entry.dim_value for entry in shape.dim]
    if graph.input[0].name != INPUT or given[1:] != [num_channels, INPUT_SIZE, INPUT_SIZE]:
        raise ValueError(f"input {given}, expected (N, {num_channels}, {INPUT_SIZE}, {INPUT_SIZE})")
    shape.dim[0].Clear()
    shape.dim[0].dim_value = 1
    del graph.value_info[:]  # claims
    graph.output[0].type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    _check_work(inferred)


def _check_work(graph: Any) -> None:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    num_values = work = 0
    for node in graph.node:
        for name in filter(None, node.output):
            if name not in shapes:
                raise ValueError(f"{node.op_type}: {name} has no size that is known beforehand")
            num_values += math.prod(shapes[name])
        # A number of the output is a sum over the second operand's numbers, at most.
        operand = shapes.get(node.input[1], ()) if len(node.input) > 1 else ()
        outputs = math.prod(shapes[node.output[0]]) if node.output else 0
        factor = {
            "Conv": math.prod(operand[1:]),
            "Gemm": max(operand, default=1),
            "MatMul": max(operand, default=1),
        }.get(node.op_type, 1)
        work += outputs * factor
    if num_values > MOST_VALUES or work > MOST_WORK:
        raise ValueError(
            f"{num_values} numbers and {work} multiplications a sample, expected at most"
            f" {MOST_VALUES} and {MOST_WORK}"
        )
