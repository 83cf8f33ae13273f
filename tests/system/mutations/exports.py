"""Mutations of a file that a person names: nets of ``cktrain export``, as a net, as weights and as
a face detector."""

from __future__ import annotations

import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.system.mutations.box import Victims
from tests.system.mutations.files import EXTREMES, HOSTILE_TEXT, mutate_file

OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Relu", "Add", "Mul", "Pow", "Reshape", "Resize", "Expand", "Tile"),
    *("ConstantOfShape", "Range", "NonZero", "Concat", "Slice", "Gather", "Split", "Transpose"),
    *("Flatten", "GlobalAveragePool", "MaxPool", "AveragePool", "BatchNormalization", "LSTM"),
    *("Pad", "Squeeze", "Unsqueeze", "Constant", "Cast", "If", "Loop", "Scan", "Einsum", "TopK"),
    *("RandomNormal", "OneHot", "DepthToSpace", "QLinearConv", "StringNormalizer", "Optional"),
)


def mutate_export(draw: random.Random, path: Path, victims: Victims) -> str:
    """Mutate one file; returns the class of the mutation."""
    kinds = ["file"] * 3 + (["graph"] * 6 + list(GRAPH) if path.suffix == ".onnx" else list(ZIP))
    kind = draw.choice(kinds)
    if kind == "file":
        return f"{mutate_file(draw, path, victims)} {path.suffix}"
    if kind in ZIP:
        ZIP[kind](draw, path)
        return kind
    model = onnx.load(path, load_external_data=False)
    for _ in range(draw.choice((1, 1, 2, 5))):
        GRAPH.get(kind, _field)(draw, model)
    path.write_bytes(model.SerializeToString())
    return kind


def _fields(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    """Yield (message, field) of all that is set in a protocol buffer."""
    for field, value in message.ListFields():
        yield message, field
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for child in [value] if isinstance(value, Message) else value:
                yield from _fields(child)


def _field(draw: random.Random, model: Any) -> None:
    """Set, repeat or remove any field of the model."""
    message, field = draw.choice(list(_fields(model)))
    value = getattr(message, field.name)
    is_repeated = field.is_repeated
    if draw.random() < 0.2:
        message.ClearField(field.name)
        return
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if is_repeated and len(value):
            other = draw.choice(value)
            value.add().CopyFrom(other)
            if draw.random() < 0.5:
                del value[draw.randrange(len(value))]
        return
    one = _value(draw, field)
    if not is_repeated:
        setattr(message, field.name, one)
    elif len(value) and draw.random() < 0.7:
        value[draw.randrange(len(value))] = one
    else:
        value.extend([one] * draw.choice((1, 1, 9)))


def _value(draw: random.Random, field: FieldDescriptor) -> Any:
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        texts = [text for text in HOSTILE_TEXT if text.isascii()]
        text = draw.choice([*texts, *OPERATORS, "images", "logits"])
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return draw.choice((0.0, -1.0, 1e38, float("inf"), float("nan")))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return draw.choice(list(field.enum_type.values_by_number))
    whole = [int(n) for n in EXTREMES if abs(n) < 1 << 31] + [2, 3, 7, 64]
    if field.type == FieldDescriptor.TYPE_INT64:
        whole += [-(1 << 63), (1 << 63) - 1, 1 << 40, 1 << 32]
    if field.type == FieldDescriptor.TYPE_UINT64:
        whole = [n for n in whole if n >= 0] + [(1 << 64) - 1]
    return draw.choice(whole)


def _operator(draw: random.Random, model: Any) -> None:
    """Another operator with the same operands."""
    draw.choice(model.graph.node).op_type = draw.choice(OPERATORS)


def _wires(draw: random.Random, model: Any) -> None:
    """Another operand, perhaps the node's own output."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = draw.choice([node for node in model.graph.node if node.input])
    node.input[draw.randrange(len(node.input))] = draw.choice([*names, "", "nothing"])


def _outside(draw: random.Random, model: Any) -> None:
    """A tensor whose numbers are in another file."""
    tensor = draw.choice(model.graph.initializer)
    places = ("../outside/secret.txt", "/etc/passwd", "/dev/zero", "*/_ORT_MEM_ADDR_/*")
    if draw.random() < 0.5:
        tensor.ClearField("raw_data")
    entries = {"location": draw.choice(places), "offset": draw.choice(("0", "-1", str(1 << 62)))}
    entries["length"] = draw.choice(("4", "-4", str(1 << 40)))
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    tensor.data_location = draw.choice((onnx.TensorProto.EXTERNAL, onnx.TensorProto.DEFAULT))


def _many(draw: random.Random, model: Any) -> None:
    """A chain of many small nodes, each twice as large as the one before."""
    kind = draw.choice(("Concat", "Identity", "Tile"))
    last = draw.choice(model.graph.node).output[0]
    for number in range(draw.choice((40, 3000))):
        operands = [last, last] if kind == "Concat" else [last]
        node = model.graph.node.add(op_type=kind, input=operands, output=[f"more{number}"])
        if kind == "Concat":
            node.attribute.add(name="axis", type=onnx.AttributeProto.INT, i=0)
        last = f"more{number}"


GRAPH: dict[str, Callable[[random.Random, Any], None]] = {
    "graph-operator": _operator,
    "graph-wires": _wires,
    "graph-outside": _outside,
    "graph-many": _many,
}


def _entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _entry(draw: random.Random, path: Path) -> None:
    """Change one entry; its CRC fits."""
    entries = _entries(path)
    name = draw.choice(list(entries))
    data = entries[name]
    number = str(draw.choice(EXTREMES)).encode()
    values = (b"", data[:-1], data + data, number, b"[" * 100_000, b"\x1b[2J", draw.randbytes(64))
    entries[name] = draw.choice(values)
    _write(path, entries)


def _entry_name(draw: random.Random, path: Path) -> None:
    """Give an entry another name, or pack it compressed."""
    entries = _entries(path)
    name = draw.choice(list(entries))
    names = ("../../outside/new", "/etc/x", "a\x1b[2J", "x" * 60_000, draw.choice(list(entries)))
    entries[draw.choice(names)] = entries.pop(name)
    _write(path, entries, draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _write(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def _header(draw: random.Random, path: Path) -> None:
    """Change a number in a header of the archive."""
    data = bytearray(path.read_bytes())
    mark = draw.choice((b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"))
    places = [n for n in range(len(data) - 4) if data[n : n + 4] == mark]
    at = draw.choice(places) + draw.randrange(4, 44, 2)
    value = struct.pack("<I", draw.choice((0, 1, 8, 0x7FFFFFFF, 0xFFFFFFFF, 0x8000)))
    data[at : at + 4] = value[: max(0, len(data) - at)]
    path.write_bytes(data)


ZIP: dict[str, Callable[[random.Random, Path], None]] = {
    "zip-entry": _entry,
    "zip-name": _entry_name,
    "zip-header": _header,
}
