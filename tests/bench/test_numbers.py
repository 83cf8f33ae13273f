"""Every measured table in README and docs is that of a committed JSON file."""

from __future__ import annotations

import pytest

from bench.tables import BLOCK, PAGES, ROOT, all_blocks, fill


@pytest.fixture(scope="module")
def blocks() -> dict[str, str]:
    return all_blocks()


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_what_the_records_say(page: str, blocks: dict[str, str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert fill(text, blocks) == text, "run: python -m bench.tables"


def test_every_record_is_shown(blocks: dict[str, str]) -> None:
    shown = {
        name
        for page in PAGES
        for name, _ in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    }
    assert shown == set(blocks)


def test_a_page_that_is_out_of_date_is_found() -> None:
    page = "It makes <!-- begin: speed -->1 samples/s<!-- end --> here."
    assert fill(page, {"speed": "2 samples/s"}) == page.replace("1", "2")
    assert fill(page, {"speed": "a\nb"}).splitlines()[1:] == ["a", "b", "<!-- end --> here."]
    with pytest.raises(KeyError):
        fill(page, {})
