"""The face of ``pipelines``: what it lists is there, light until it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pipelines


def test_every_public_name_is_there() -> None:
    for name in pipelines.__all__:
        assert getattr(pipelines, name).__doc__, name
    assert set(dir(pipelines)) == set(pipelines.__all__)


def test_make_loader_has_at_most_nine_parameters() -> None:
    assert len(inspect.signature(pipelines.make_loader).parameters) <= 9


def test_the_face_loads_no_torch() -> None:
    program = "import sys, pipelines; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
