"""A fake GPU for the branches that only CUDA takes."""

from __future__ import annotations

import pytest

from tests.pipelines.fake_cuda import FakeCuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """torch's CUDA calls, answered by a fake GPU."""
    fake = FakeCuda()
    fake.take(monkeypatch)
    return fake
