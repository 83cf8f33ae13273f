"""What README and docs name exists: paths, links, commands, options, tests. Lines stay short."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from shard_builder.cli import app as ckshard_app
from train.cli import app as cktrain_app

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = "shard_builder|pipelines|models|train|bench|tests|docs"
PATH = re.compile(rf"(?:{FOLDERS})/[\w./-]*|[\w-]+\.(?:py|md|sh|toml)")
COMMAND = re.compile(r"\b(ckshard|cktrain)\)? ([a-z]+(?:\|[a-z]+)*)([^\n]*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
LINK = re.compile(r"\]\(([^)\s]+)\)")
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def code_of(text: str) -> list[str]:
    """Return the code spans and the lines of code blocks of a page."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", prose)]
    return [*spans, *(line for block in blocks for line in block.splitlines())]


@cache
def flags_of_commands() -> dict[str, set[str]]:
    """Map ``ckshard build`` and so on to the command's flags, as the command line has them."""
    flags: dict[str, set[str]] = {}
    for program, app in (("ckshard", ckshard_app), ("cktrain", cktrain_app)):
        joined = typer.Typer()
        for entry in entry_points(group=f"{program}.commands"):
            joined.command(entry.name)(entry.load())
        joined.callback()(lambda: None)
        for group in (typer.main.get_command(app), typer.main.get_command(joined)):
            for name, command in getattr(group, "commands").items():  # noqa: B009
                names = {flag for option in command.params for flag in option.opts}
                flags[f"{program} {name}"] = names | {"--help", "--debug", "--version"}
    flags["cktrain cv"] |= flags["cktrain flow"]  # cv hands the training options on
    return flags


@cache
def flags_of_scripts() -> set[str]:
    """Every flag that a script of bench spells, and torchrun's that the docs use."""
    scripts = [*(ROOT / "bench").rglob("*.py"), *(ROOT / "bench").rglob("*.sh")]
    scripts.append(ROOT / "tests" / "system" / "mutations" / "__main__.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in scripts)
    return set(FLAG.findall(text)) | {"--nproc-per-node"}


@cache
def files_by_name() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {Path(line).name for line in listed.stdout.splitlines() if (ROOT / line).exists()}


def missing_paths(text: str) -> Iterator[str]:
    for code in code_of(text):
        for word in code.split():
            found = PATH.match(word)
            if not found or not re.fullmatch(r"[\w./-]+(::\w+)?[,:;]?", word):
                continue
            name = found[0].rstrip(".")
            if not ((ROOT / name).exists() if "/" in name else name in files_by_name()):
                yield name


def missing_commands(text: str) -> Iterator[str]:
    known = flags_of_commands()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for code in code_of(text):
        for program, names, rest in COMMAND.findall(code):
            for command in (f"{program} {name}" for name in names.split("|")):
                if command not in known:
                    yield command
                yield from (
                    f"{command} {flag}"
                    for flag in FLAG.findall(re.split(r"  | #", rest)[0])
                    if flag not in known.get(command, set())
                )
        anywhere = set().union(*known.values()) | flags_of_scripts()
        yield from (flag for flag in FLAG.findall(code) if flag not in anywhere)
        yield from (
            f"make {name}" for name in re.findall(r"\bmake ([a-z]+)", code) if name not in targets
        )
        yield from (
            f"python -m {name}"
            for name in re.findall(r"python -m (bench[\w.]*)", code)
            if find_spec(name) is None
        )


@page
def test_lines_have_at_most_100_columns(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    long = [f"{number}: {len(line)}" for number, line in enumerate(lines, 1) if len(line) > 100]
    assert not long, f"{page.relative_to(ROOT)}: {long}"


@page
def test_paths_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not list(missing_paths(text))
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert not [link for link in links if not (page.parent / link.split("#")[0]).exists()]


@page
def test_commands_and_options_exist(page: Path) -> None:
    assert not list(missing_commands(page.read_text(encoding="utf-8")))


@page
def test_named_tests_exist(page: Path) -> None:
    for file, function in TEST.findall(page.read_text(encoding="utf-8")):
        texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file)]
        assert any(f"def {function}(" in text for text in texts), f"{file}::{function}"


def test_every_row_of_the_robustness_tables_names_tests_that_exist() -> None:
    tests = {
        path.stem for path in (ROOT / "tests").rglob("test_*.py") if "def test_" in path.read_text()
    }
    text = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    rows = [row for row in rows if not row.startswith(("| situation", "|---"))]
    assert len(rows) > 60
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[-2])
        assert named and set(named) <= tests, row


def test_every_item_of_the_original_names_a_test_or_another_item() -> None:
    text = (ROOT / "docs" / "original-parity.md").read_text(encoding="utf-8")
    items = [" ".join(item.split()) for item in re.split(r"^- (?=\*\*)", text, flags=re.M)[1:]]
    assert len(items) == 36
    for item in items:
        item = re.split(r" ## ", item)[0]
        assert re.match(r"\*\*[A-Z]\d\*\* ", item), item
        assert re.search(r"\*\*(Matched|[Ff]ixed|[Oo]ptional)\*\*", item), item
        assert TEST.search(item) or re.search(r"As [A-Z]\d( and [A-Z]\d)*\.$", item), item


def test_the_readme_is_short_and_lists_every_command_once() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 170
    block = re.search(r"^## Commands\n```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block
    listed = [
        f"{program} {name}"
        for program, names, _ in COMMAND.findall(block[1])
        for name in names.split("|")
    ]
    assert sorted(listed) == sorted(flags_of_commands())


def test_commands_md_has_a_section_for_every_command() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = [
        f"{program} {name}"
        for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)
        for program, names, _ in COMMAND.findall(heading)
        for name in names.split("|")
    ]
    assert sorted(sections) == sorted(flags_of_commands())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("`shard_builder/no_such.py`", "shard_builder/no_such.py"),
        ("```\ntrain/nowhere/  what\n```", "train/nowhere/"),
        ("as in `nowhere.md`", "nowhere.md"),
    ],
)
def test_a_path_that_is_not_there_is_found(text: str, named: str) -> None:
    assert list(missing_paths(text)) == [named]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("`ckshard buidl SRC`", "ckshard buidl"),
        ("```\ncktrain rgb|flwo DATASET\n```", "cktrain flwo"),
        ("```\nckshard split DATASET --codec jpg\n```", "ckshard split --codec"),
        ("```\ntorchrun $(which cktrain) flow d --out r --fodls 3\n```", "cktrain flow --fodls"),
        ("take `--no-such-thing`", "--no-such-thing"),
        ("`make coffee`", "make coffee"),
        ("`python -m bench.nothing`", "python -m bench.nothing"),
    ],
)
def test_a_command_that_is_not_there_is_found(text: str, named: str) -> None:
    assert named in set(missing_commands(text))
