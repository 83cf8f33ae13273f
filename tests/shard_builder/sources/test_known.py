"""Every recipe of docs/datasets.md reads a tree with the real set's names."""

from __future__ import annotations

import csv
import io
import re
import shlex
from pathlib import Path

import pytest

from shard_builder.sources.known import KNOWN_SETS, resembles
from tests.face_sets import SETS, write_images
from tests.programs import ckshard

PAGE = Path(__file__).parents[3] / "docs" / "datasets.md"
RECIPES = {known.name: known.options for known in KNOWN_SETS}
TYPED = {  # what the page shortens, as one would type it for these trees
    "DFEW": {".../": "data_affine/single_label/label/"},
    "mmaction2 rawframes": {"rawframes.txt'": "rawframes.txt' --no-subjects"},
}


def recipe(name: str) -> list[str]:
    options = RECIPES[name]
    for short, long in TYPED.get(name, {}).items():
        options = options.replace(short, long)
    return shlex.split(options)


@pytest.mark.parametrize("name", list(SETS))
def test_the_recipe_reads_the_set_as_its_names_say(name: str, tmp_path: Path) -> None:
    expected = SETS[name](tmp_path)
    done = ckshard("list", tmp_path, *recipe(name))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    found = {(row["path"], row["label"], row.get("subject", ""), row["fold"]) for row in rows}
    assert found == expected and len(rows) == len(expected)
    assert ("no subjects" in done.stderr) == ("--no-subjects" in recipe(name))


def test_the_page_has_every_recipe_and_every_recipe_is_tried() -> None:
    text = re.sub(r"\s+", " ", PAGE.read_text(encoding="utf-8"))
    assert not [name for name, options in RECIPES.items() if options not in text]
    assert set(RECIPES) == {*SETS, "MMI"} and all(f"**{name}**" in text for name in RECIPES)


@pytest.mark.parametrize("name", list(SETS))
def test_a_set_is_known_by_its_names_and_told_how_to_be_read(name: str, tmp_path: Path) -> None:
    paths = {path for path, *_ in SETS[name](tmp_path)}
    for path in paths:
        file = tmp_path / path
        image = min(file.iterdir()) if file.is_dir() else file
        known = resembles(image.relative_to(tmp_path).as_posix())
        assert known is not None and known.name == name


def test_the_casme_sheet_gives_onset_apex_and_offset(tmp_path: Path) -> None:
    SETS["CASME II"](tmp_path)
    done = ckshard("list", tmp_path, *recipe("CASME II"))
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    first = rows["Cropped_sub01_EP02_01f"]
    assert (first["onset"], first["apex"], first["offset"]) == ("98", "100", "103")
    assert rows["Cropped_sub01_EP03_02"]["apex"] == ""


def test_nothing_found_says_what_is_there_and_what_it_resembles(tmp_path: Path) -> None:
    SETS["Oulu-CASIA"](tmp_path)
    done = ckshard("build", tmp_path, tmp_path / "dataset")
    assert done.returncode == 2 and "Unpack" not in done.stderr
    for words in (
        "48 images and 0 videos",
        "OriginalImg/VL/Dark/P001/Anger/000.jpeg",
        "resembles Oulu-CASIA: --layout '**/VL/{light}/{subject}/{label}/{frame}.jpeg'",
        "TABLE.csv",
    ):
        assert words in done.stderr
    wrong = ckshard("build", tmp_path, tmp_path / "dataset", "--layout", "{subject}/{label}.mp4")
    assert wrong.returncode == 2 and "--layout '{subject}/{label}.mp4'" in wrong.stderr
    assert "48 images" in wrong.stderr


def test_only_a_release_gets_the_hint_to_unpack(tmp_path: Path) -> None:
    write_images([tmp_path / "images/S005/001/S005_001_00000001.png"])
    done = ckshard("build", tmp_path, tmp_path / "dataset")
    assert done.returncode == 2 and "Unpack Emotion_labels.zip" in done.stderr


def test_what_is_said_of_a_set_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    SETS["DFEW"](tmp_path)
    said = ckshard("list", tmp_path)
    options = re.search(r"this resembles DFEW: (.*)", said.stderr)
    assert said.returncode == 2 and options, said.stderr
    assert ckshard("list", tmp_path, *shlex.split(options[1])).returncode == 0, options[1]
