"""The shape of the project: who may import whom, what the README lists, what never belongs into a file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("shard_builder", "pipelines", "models", "train")
MAY_IMPORT = {
    "shard_builder": {"shard_builder"},
    "pipelines": {"pipelines", "shard_builder"},
    "models": {"models", "shard_builder"},
    "train": {"train", "pipelines", "models", "shard_builder"},
}
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".sh", ".html", ".j2", ".yml", ""}


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return sorted({ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()})


def imported_roots(path: Path) -> set[str]:
    roots: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        foreign = imported_roots(path) & set(PACKAGES) - MAY_IMPORT[package]
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


def test_shard_builder_imports_neither_torch_nor_dali() -> None:
    for path in sorted((ROOT / "shard_builder").rglob("*.py")):
        assert not imported_roots(path) & {"torch", "torchvision", "nvidia"}, path.name


@pytest.mark.parametrize("module", ["shard_builder.cli", "train.cli"])
def test_help_imports_neither_torch_nor_dali(module: str) -> None:
    program = (
        f"import sys; sys.argv = ['x', '--help']; from {module} import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'torchvision', 'nvidia', 'cv2', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not [p for package in PACKAGES for p in (ROOT / package).rglob("*.py") if p.stem in drawers]


def test_modules_stay_short() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for package in PACKAGES
        for p in (ROOT / package).rglob("*.py")
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long


def test_readme_tree_lists_exactly_the_files() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"<!-- tree -->\n```\n(.*?)```", readme, re.DOTALL)
    assert tree, "README.md has no block between <!-- tree --> and ```"
    listed: set[str] = set()
    folder = ""
    for line in tree[1].splitlines():
        name = line.split()[0] if line.strip() else ""
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            if not folder:
                listed.add(name)
        elif name:
            listed.add(folder + name)
    covered = ("shard_builder/", "pipelines/", "models/", "train/", "bench/", "docs/")
    actual = {str(p.relative_to(ROOT)) for p in tracked_files()}
    missing = {name for name in listed if not name.endswith("/") and name not in actual}
    unlisted = {
        name
        for name in actual
        if (name.startswith(covered) or "/" not in name)
        and name not in listed
        and not name.endswith(("__init__.py", ".gitignore", "py.typed", ".json", ".png"))
    }
    assert not missing, f"README lists files that are not there: {sorted(missing)}"
    assert not unlisted, f"README does not list: {sorted(unlisted)}"


def test_no_addresses_or_private_paths_in_the_tree() -> None:
    forbidden = re.compile(
        r"--(extra-)?index-url|--find-links|pypi\.org|files\.pythonhosted|deb\.debian|registry\.npmjs|(?<![\w.])/work/|/root/"
    )
    for path in tracked_files():
        if path.suffix in TEXT_SUFFIXES and path != Path(__file__).resolve():
            match = forbidden.search(path.read_text(encoding="utf-8", errors="replace"))
            assert match is None, f"{path.relative_to(ROOT)}: {match[0]}"


def test_no_pickle_and_no_unsafe_load() -> None:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            assert not imported_roots(path) & {"pickle", "dill", "joblib"}, path.name
            assert "allow_pickle=True" not in text and "weights_only=False" not in text, path.name


def test_every_test_that_the_docs_name_exists() -> None:
    text = (ROOT / "docs" / "seed-parity.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 30
    for file, function in named:
        path = next((ROOT / "tests").rglob(file), ROOT / file)
        assert path.is_file(), file
        assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), f"{file}::{function}"
