"""Files of ``cktrain export``, as strangers may send them: checked before a number is computed.

An ``.onnx`` is run by onnxruntime once its graph is seen to be plain: sizes known beforehand, no
loops, no files beside it. Loading the program in a ``.pt2`` evaluates text of it as Python; so it
is left alone, and the net is built by its name with the weights in the file.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import torch
from msgspec import Meta

from models.tensor_file import MOST_BYTES, check_entries
from pipelines.plan.crops import INPUT_SIZE
from pipelines.streams import kind_of
from shard_builder.errors import InputError
from shard_builder.files import Sha256, open_regular
from shard_builder.untrusted.records import check_version, parse_record
from shard_builder.untrusted.text import clean
from train.device import choose_device
from train.prediction.onnx_net import MOST_ONNX_BYTES, open_onnx, parse_onnx
from train.prediction.stream_model import StreamModel, build_trained, load_stream_model, make_net
from train.running.checkpoint import Checkpoint, TrainedNet

EXPORT_FORMAT, EXPORT_VERSION = "ckshard-export", 1
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
MOST_RECORD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedNet(TrainedNet):
    """The metadata of an exported file, each field as JSON under its name.

    Args:
        input_size: Height and width of the images.
        mean: Of values in 0..1, per channel, or one for all.
        deviation: Likewise; the net's input is (value - mean) / deviation.
        checkpoint_sha256: Of the checkpoint that was exported.
    """

    input_size: Annotated[int, Meta(ge=1, le=1 << 16)]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    checkpoint_sha256: Sha256

    def __post_init__(self) -> None:
        TrainedNet.__post_init__(self)
        kind = kind_of(self.stream)
        given = self.input_size, self.mean, self.deviation
        if given != (expected := (INPUT_SIZE, kind.mean, kind.deviation)):
            raise ValueError(f"input_size, mean and deviation {given}, expected {expected}")

    def to_metadata(self) -> dict[str, str]:
        """Return the fields as JSON by their name, with format and version."""
        record = {"format": EXPORT_FORMAT, "version": EXPORT_VERSION, **asdict(self)}
        return {name: json.dumps(value) for name, value in record.items()}


def metadata_of(content: Checkpoint, *, checkpoint_sha256: str) -> ExportedNet:
    """Return what an exported file says of a checkpoint."""
    kind = kind_of(content.stream)
    shared = {name: getattr(content, name) for name in TrainedNet.__dataclass_fields__}
    return ExportedNet(
        **shared,
        input_size=INPUT_SIZE,
        mean=kind.mean,
        deviation=kind.deviation,
        checkpoint_sha256=checkpoint_sha256,
    )


def open_stream_model(path: Path, *, checkpoint: str = "last", device: str = "auto") -> StreamModel:
    """Load the net of a run folder or of an exported file.

    Args:
        path: Either.
        checkpoint: ``last`` or ``best``, of a run folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; an ``.onnx`` runs on the CPU.

    Raises:
        InputError: If it cannot be used; the message says why.
    """
    if path.is_dir() or not os.path.lexists(path):
        return load_stream_model(path, checkpoint=checkpoint, device=device)
    with open_regular(path) as file:
        return read_exported(file, path, device=device)


def read_exported(file: BinaryIO, path: Path, *, device: str = "auto") -> StreamModel:
    """Read an exported file; see :func:`open_stream_model`.

    Args:
        file: The open file.
        path: Its name; the suffix says which format it has.
        device: See there.
    """
    if path.suffix not in SUFFIXES.values():
        known = " or ".join(SUFFIXES.values())
        raise InputError(
            f"{path}: is a file, expected a run folder or a file of cktrain export ({known})"
        )
    is_onnx = path.suffix == SUFFIXES["onnx"]
    size, most = os.fstat(file.fileno()).st_size, MOST_ONNX_BYTES if is_onnx else MOST_BYTES
    if size > most:
        raise InputError(f"{path}: {size} bytes, expected at most {most}")
    file.seek(0)
    if is_onnx and device not in ("auto", "cpu"):
        raise InputError(
            f"device={device!r}, but {path} runs on the CPU\n"
            "  Predict with its run folder, or with what --format torch exports."
        )
    chosen = choose_device("cpu" if is_onnx else device)
    content: ExportedNet
    net: Callable[[torch.Tensor], torch.Tensor]
    if is_onnx:
        model = parse_onnx(data := file.read(), path)
        content = _parse_metadata({prop.key: prop.value for prop in model.metadata_props}, path)
        net = open_onnx(model, data, content, path)
    else:
        content, state = _read_pt2(file, path, size)
        net = build_trained(content, state, origin=path).to(chosen)
    return StreamModel(
        path,
        content,
        net=net,
        checkpoint_sha256=content.checkpoint_sha256,
        device=chosen,
        precision="fp32",
    )


def _parse_metadata(entries: Mapping[str, str], path: Path) -> ExportedNet:
    place = f"{path}: metadata"
    if sum(map(len, entries.values())) > MOST_RECORD_BYTES:
        raise InputError(f"{place}: longer than {MOST_RECORD_BYTES} characters")
    try:
        data = json.dumps({name: json.loads(text) for name, text in entries.items()}).encode()
    except (ValueError, RecursionError) as fault:
        raise InputError(f"{place}: is not JSON ({clean(fault)})") from None
    what = "file of cktrain export, by cktrain"
    check_version(data, format=EXPORT_FORMAT, versions=(EXPORT_VERSION,), place=place, what=what)
    return parse_record(data, ExportedNet, place=place)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Payload:
    path_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    config: Mapping[str, _Payload]


def _read_pt2(file: BinaryIO, path: Path, size: int) -> tuple[ExportedNet, dict[str, Any]]:
    """Read the metadata and the weights of a ``.pt2``; the program itself is left alone."""
    try:
        check_entries(file, size)
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            root = names[0].partition("/")[0]
            extra, weights = f"{root}/extra/", f"{root}/data/weights/"
            texts = {
                name.removeprefix(extra): archive.read(name).decode()
                for name in names
                if name.startswith(extra)
            }
            content = _parse_metadata(texts, path)
            listed = archive.read(f"{weights}model_weights_config.json")
            places = parse_record(listed, _Weights, place=f"{path}: weights").config
            if len({entry.path_name for entry in places.values()}) < len(places):
                raise ValueError("two weights in one place")
            with torch.device("meta"):
                own = make_net(content).state_dict()
            state = {}
            for name in own.keys() & places.keys():
                data = bytearray(archive.read(weights + places[name].path_name))
                state[name] = torch.frombuffer(data, dtype=own[name].dtype).view(own[name].shape)
            unknown = dict.fromkeys(places.keys() - own.keys())
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged archive makes zipfile raise anything
        raise InputError(f"{path}: cannot be read as .pt2 ({clean(error)})") from None
    return content, state | unknown
