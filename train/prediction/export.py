"""A trained net as one file, for other programs and for ``cktrain predict``."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch

from pipelines.dataset import open_dataset
from pipelines.plan.crops import INPUT_SIZE
from pipelines.streams import kind_of
from shard_builder.checks import check_choice, check_targets
from shard_builder.errors import DatasetError, InputError
from shard_builder.files import atomic_writer
from shard_builder.lock import locked
from train.prediction.exported_file import SUFFIXES, ExportedNet, metadata_of, read_exported
from train.prediction.onnx_net import INPUT, MOST_ONNX_BYTES, OUTPUT
from train.prediction.stream_model import StreamModel, center_windows, check_fits, load_stream_model
from train.running.checkpoint import Checkpoint
from train.running.run_folder import read_run

ExportFormat = Literal["onnx", "torch"]
OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of an output, in units of the largest output where that is above 1."""
NUM_WINDOWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCheck:
    """What was written, and how it was compared with the run.

    Args:
        path: The file.
        difference: Largest difference of an output to the run's net in fp32.
        num_windows: Samples that were compared.
        windows: Where they are from.
    """

    path: Path
    difference: float
    num_windows: int
    windows: str


def export_run(
    run: Path,
    *,
    format: ExportFormat = "onnx",
    out: Path | None = None,
    checkpoint: str = "last",
    dataset: Path | None = None,
    take_over: bool = False,
) -> ExportCheck:
    """Write the net of a run as one file, with what is needed to use it in its metadata.

    The file appears only after it was read again as ``cktrain predict`` reads it, and has answered
    as the run's net does, for one sample and for several.

    Args:
        run: Run folder.
        format: ``onnx``, or ``torch``: a program of ``torch.export``.
        out: File to write; ``RUN/STREAM.onnx`` or ``.pt2`` if None.
        checkpoint: ``last`` or ``best``.
        dataset: The dataset to compare on, if not where it was in training. Where that is gone,
            random numbers are compared.
        take_over: See :func:`shard_builder.lock.locked`.

    Raises:
        InputError: If the run cannot be used, its net cannot be exported, or the file answers
            otherwise.
    """
    check_choice("format", format, ExportFormat)
    model = load_stream_model(run, checkpoint=checkpoint, device="cpu")
    assert isinstance(model.content, Checkpoint) and isinstance(model.net, torch.nn.Module)
    out = out or run / f"{model.stream}{SUFFIXES[format]}"
    if out.suffix != SUFFIXES[format]:
        raise InputError(f"out={str(out)!r}, expected a file name that ends in {SUFFIXES[format]}")
    net = model.net.to(memory_format=torch.contiguous_format)
    metadata = metadata_of(model.content, checkpoint_sha256=model.origin()["checkpoint_sha256"])
    write = _write_onnx if format == "onnx" else _write_torch
    check_targets(out)
    with locked(out, take_over=take_over), torch.no_grad(), atomic_writer(out) as file:
        images, windows = windows_of(model, dataset)
        write(_trace(net, images, run), metadata, file)
        file.flush()
        written = _read_again(file, out, run, format)
        difference = 0.0
        for batch in (images, images[:1]):
            own, other = net(batch), written.net(batch)
            scale = max(1.0, float(own.abs().max()))
            difference = max(difference, float((own - other).abs().max()) / scale)
        if not difference <= TOLERANCE:
            raise InputError(
                f"{run}: the exported net answers otherwise, by {difference:.2g} on {windows},"
                f" expected at most {TOLERANCE}"
            )
    return ExportCheck(path=out, difference=difference, num_windows=len(images), windows=windows)


def _read_again(file: BinaryIO, out: Path, run: Path, format: str) -> StreamModel:
    try:
        return read_exported(file, out)
    except InputError as error:
        if "pip install" in str(error):
            raise
        reason = str(error).splitlines()[0].removeprefix(f"{out}: ")
        other = "\n  Choose format='torch'." if format == "onnx" else ""
        raise InputError(f"{run}: its net cannot be exported: {reason}{other}") from None


def windows_of(model: StreamModel, dataset: Path | None) -> tuple[torch.Tensor, str]:
    """Return some inputs of a net, (N, C, 224, 224), and in words where they are from.

    Raises:
        InputError: If a dataset was given and is none, or not that of the run.
    """
    path = dataset or Path(read_run(model.run)[0].dataset.path)
    try:
        with open_dataset(path) as opened:
            if dataset is not None or opened.sha256 == model.content.manifest_sha256:
                check_fits(model, opened)
                known = set(opened.keys)
                keys = [key for key in model.val_keys if key in known] or list(opened.keys)
                windows = center_windows(opened, model, keys[:NUM_WINDOWS])
                return windows, f"windows of {opened.address}"
            reason = "is another dataset now"
    except DatasetError:
        if dataset is not None:
            raise
        reason = "cannot be read"
    shape = (NUM_WINDOWS, kind_of(model.stream).num_channels(model.stack_length))
    random = torch.Generator().manual_seed(0)
    images = torch.randn((*shape, INPUT_SIZE, INPUT_SIZE), generator=random)
    return images, f"random numbers ({path} {reason})"


def _trace(net: torch.nn.Module, images: torch.Tensor, run: Path) -> torch.export.ExportedProgram:
    example = images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        program = torch.export.export(net, (example,), dynamic_shapes=shapes)
    except Exception as error:  # noqa: BLE001 - torch.export raises anything
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{run}: torch.export cannot export its net ({reason})") from None
    program.example_inputs = None  # someone's face
    for node in program.graph.nodes:  # paths of this machine
        node.meta.pop("stack_trace", None)
        node.meta.pop("nn_module_stack", None)
    return program


def _write_torch(
    program: torch.export.ExportedProgram, metadata: ExportedNet, file: BinaryIO
) -> None:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=metadata.to_metadata())
    file.write(buffer.getbuffer())


def _write_onnx(
    program: torch.export.ExportedProgram, metadata: ExportedNet, file: BinaryIO
) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(
            "format='onnx' needs onnx, onnxscript and onnxruntime\n"
            "  Install them: pip install 'ckshard[export]', or choose format='torch'."
        ) from None
    exported = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    model: Any = exported.model_proto
    for node in model.graph.node:  # paths of this machine
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata.to_metadata())
    if model.ByteSize() > MOST_ONNX_BYTES:
        raise InputError(
            f"format='onnx': the net takes {model.ByteSize()} bytes, expected at most"
            f" {MOST_ONNX_BYTES}\n  Choose format='torch'."
        )
    file.write(model.SerializeToString())
