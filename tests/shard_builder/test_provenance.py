"""What a record says of how it was made."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from shard_builder.provenance import command_line, shared_command_line


@pytest.mark.parametrize(
    ("module", "program", "expected"),
    [
        ("bench.loaders.__main__", "/a/bench/loaders.py", "python -m bench.loaders --repeats 5"),
        ("tool.__main__", "/a/tool/__main__.py", "python -m tool --repeats 5"),
        (None, "/usr/bin/ckshard", "ckshard --repeats 5"),
    ],
)
def test_the_command_can_be_typed_again(
    module: str | None, program: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SimpleNamespace(name=module) if module else None
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", [program, "--repeats", "5"])
    assert command_line() == expected


def test_a_record_that_is_passed_on_names_no_folder_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    words = ["bench", "/data/me/set", "s3://a/b", "docs/x.json", "--json=/tmp/me/y.json", "1/2"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/cktrain", *words])
    assert shared_command_line() == "cktrain bench set s3://a/b docs/x.json --json=y.json 1/2"
