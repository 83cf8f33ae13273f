"""Every measured table in README and docs is that of a committed JSON file."""

from __future__ import annotations

import doctest

import pytest

import bench.harness
from bench.tables import BLOCK, RESULTS, all_blocks, fill, pages

REDONE = "run: python -m bench.tables"


def test_pages_show_what_the_records_say_and_every_record() -> None:
    blocks, shown = all_blocks(), set()
    for page in pages():
        text = page.read_text(encoding="utf-8")
        assert fill(text, blocks) == text, f"{page.name}: {REDONE}"
        shown |= {name for name, _ in BLOCK.findall(text)}
    assert shown == set(blocks)


def test_no_record_is_left_over() -> None:
    """Each file of docs/results is read for a table."""
    import bench.tables

    read = set()
    original = bench.tables.read_record

    def note(name: str) -> object:
        read.add(name)
        return original(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.tables, "read_record", note)
        all_blocks()
    assert read == {path.stem for path in RESULTS.glob("*.json")}


def test_a_page_that_is_out_of_date_is_noticed() -> None:
    page = "It makes <!-- begin: speed -->1 samples/s<!-- end --> here."
    assert fill(page, {"speed": "2 samples/s"}) == page.replace("1", "2")
    assert fill(page, {"speed": "a\nb"}).splitlines()[1:] == ["a", "b", "<!-- end --> here."]
    with pytest.raises(KeyError):
        fill(page, {})


def test_the_examples_hold() -> None:
    result = doctest.testmod(bench.harness)
    assert result.attempted and not result.failed
