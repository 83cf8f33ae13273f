"""Every measured number in README and docs is that of a committed JSON file."""

from __future__ import annotations

import json
import re

import pytest

from bench.tables import BLOCK, PAGES, RESULTS, ROOT, all_blocks, fill

UNITS = (
    r"%|(?:samples|pairs|windows|sequences)/s|ms|us|s|seconds?|minutes?|min|hours?|h|GB|GiB|MB"
    r"|MiB|kB|bytes|times|x"
)
MEASURED = re.compile(
    rf"(?<![\w.,/x-])\d[\d,]*(?:\.\d+)?(?:(?: to | - )\d[\d,]*(?:\.\d+)?)? ?(?:{UNITS})(?!\w| \d)"
)
PROSE = json.loads((RESULTS / "prose.json").read_text(encoding="utf-8"))
DOCS = sorted({*PAGES, *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))})


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


@pytest.mark.parametrize("page", DOCS)
def test_numbers_outside_the_blocks_have_a_source(page: str) -> None:
    """Whatever looks measured is part of a sentence in prose.json, which says where it comes
    from."""
    text = BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
    known = [entry["text"] for entry in PROSE if entry["page"] == page]
    for sentence in known:
        assert sentence in text, f"prose.json: {sentence!r} is not in {page}"
        text = text.replace(sentence, "")
    unknown = [match[0] for match in MEASURED.finditer(text)]
    assert not unknown, (
        f"{page}: no source for {unknown}: put them into a block or into docs/results/prose.json"
    )


@pytest.mark.parametrize("entry", PROSE, ids=lambda entry: entry["text"][:40])
def test_sources_say_where_a_number_comes_from(entry: dict[str, str]) -> None:
    assert set(entry) == {"page", "text", "kind", "source"}
    assert entry["kind"] in ("quoted", "chosen", "estimated", "by hand")
    assert MEASURED.search(entry["text"]) and len(entry["source"]) > 15


def test_a_page_that_is_out_of_date_is_found() -> None:
    page = "It makes <!-- begin: speed -->1 samples/s<!-- end --> here."
    assert fill(page, {"speed": "2 samples/s"}) == page.replace("1", "2")
    assert fill(page, {"speed": "a\nb"}).splitlines()[1:] == ["a", "b", "<!-- end --> here."]
    with pytest.raises(KeyError):
        fill(page, {})


@pytest.mark.parametrize(
    "text",
    [
        "93.10 %",
        "5,348 samples/s",
        "0.3 times",
        "7 GB",
        "60x",
        "in 5.1 ms",
        "14 to 20 us",
        "3 minutes",
    ],
)
def test_what_looks_measured(text: str) -> None:
    assert MEASURED.search(text)


@pytest.mark.parametrize(
    "text",
    ["640x490", "ResNet-152", "python 3.10", "batch 10 x 5", "S010_004", "224 x 224", "10 files"],
)
def test_what_does_not(text: str) -> None:
    assert not MEASURED.search(text)
