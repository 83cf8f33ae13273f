"""The kernels: the same bits on every processor, compiled once, off the path of imports."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pipelines.test_fused_cutter import TARGETS, cut, draw_window, fused_cutter, halide_kernel


@pytest.mark.parametrize("shape", [(10, 256, 340), (20, 256, 340), (2, 64, 48), (256, 340, 3)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("target", TARGETS)
def test_every_processor_gives_the_same_bits(
    shape: tuple[int, int, int], dtype: torch.dtype, target: str
) -> None:
    window = draw_window(shape)
    height, width = shape[1:] if shape[2] != 3 else shape[:2]
    for box in ((0, 0, height, height * 3 // 4), (3, 5, height - 5, width - 7)):
        for mirrored in (False, True):
            expected = cut(window, box, mirrored, dtype)
            assert np.array_equal(cut(window, box, mirrored, dtype, target=target), expected)


@pytest.mark.parametrize(("is_planar", "dtype"), [(True, "float16"), (False, "bfloat16")])
def test_the_kernel_compiles_for_apple_silicon(is_planar: bool, dtype: str, tmp_path: Path) -> None:
    kind = halide_kernel.KernelKind(
        is_planar=is_planar,
        num_channels=10 if is_planar else 3,
        max_width=512,
        dtype=dtype,
        target="arm-64-osx",
    )
    kernel, path = halide_kernel.Kernel(kind), tmp_path / "kernel.s"
    arguments = [getattr(kernel._inputs, item.name) for item in fields(kernel._inputs)]
    kernel._output.compile_to_assembly(str(path), arguments, "cut", kernel._target)
    assert "umull" in path.read_text()  # NEON's widening multiplication


def test_kernels_are_compiled_once_a_kind() -> None:
    window = draw_window((8, 96, 96))
    kernels = fused_cutter._idle_kernels
    before = sum(map(len, kernels.values()))
    for _ in range(3):
        cut(window, (0, 0, 96, 96), False)
    assert sum(map(len, kernels.values())) <= before + 1


def test_importing_the_cutter_compiles_nothing() -> None:
    program = (
        "import halide as hl\n"
        "def refuse(*_, **__): raise AssertionError('compiled')\n"
        "hl.Func.realize = hl.Func.compile_jit = refuse\n"
        "import torch\n"
        "from pipelines.engines.fused_cutter import FusedCutter\n"
        "from pipelines.streams import FLOW\n"
        "FusedCutter(FLOW, (10, 256, 340), torch.uint8)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
