"""The stall test's cases."""

from __future__ import annotations

import torch

from train.running.stall_comparison import stall_cases


def test_a_gpu_is_measured_with_both_engines_side_by_side() -> None:
    cases = stall_cases(torch.device("cuda"), "bf16", with_baseline=True)
    assert [case.name for case in cases] == [
        "synthetic",
        "cached, cpu engine",
        "real, cpu engine",
        "real, dali engine",
        "real, in device memory",
        "synthetic, fp32 NCHW",
    ]
