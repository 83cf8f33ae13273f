"""The shape of the project: who may import whom, and what never belongs into a file."""

from __future__ import annotations

import ast
import graphlib
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
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return sorted({ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()})


FLOORS = {
    "shard_builder": (
        "errors files checks machine keys untrusted lock lists images videos provenance progress"
        " console",
        "sources format",
        "faces parts cloud",
        "split synth building inspection",
        "commands",
        "cli",
    ),
    "pipelines": (
        "streams reading plan state batch web_pipeline members"
        " block_cache row_cache index_columns remote_members read_ahead dataset",
        "engines",
        "loader views",
        "throughput",
    ),
    "models": ("heads fusion tensor_file", "weights timm_nets", "build"),
    "train": (
        "config device distributed figures",
        "running",
        "prediction",
        "evaluation",
        "reporting",
        "commands",
        "cli",
    ),
}
"""Rooms and modules of each house, lowest floor first. One imports from floors below its own or
from its own room; on the lowest floor also what stands before it in its line."""


def imported_modules(path: Path) -> set[str]:
    """Dotted names of all imports: at the top, inside functions, and by ``import_module``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            if (
                path.name == "__init__.py"
            ):  # a house's face: what it hands out stands in its imports
                continue
            assert isinstance(node.args[0], ast.Constant), (
                f"{path}: imports a name that is computed"
            )
            found.add(str(node.args[0].value))
    return found


def imported_roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path)}


def room_of(parts: tuple[str, ...]) -> str:
    """The room (a folder) or the module itself that a dotted name below a house leads to."""
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        foreign = imported_roots(path) & set(PACKAGES) - MAY_IMPORT[package]
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_only_look_down(package: str) -> None:
    place = {
        room: (floor, number if floor == 0 else 0)
        for floor, rooms in enumerate(FLOORS[package])
        for number, room in enumerate(rooms.split())
    }
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = room_of(parts)
        if own == "__init__":  # the face of the house: it hands out what its rooms hold
            continue
        assert own in place, f"{path.relative_to(ROOT)}: {own} is on no floor"
        for name in imported_modules(path):
            other = room_of(tuple(name.split(".")))
            is_inside = name.split(".")[0] == package and other != own and other in place
            if is_inside and not place[other] < place[own]:
                wrong.append(f"{path.relative_to(ROOT)} -> {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_have_no_circles_inside(package: str) -> None:
    graph = {}
    for path in (ROOT / package).rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = imported_modules(path)
    edges = {
        module: {
            other
            for name in names
            for other in (name, name.rpartition(".")[0])
            if other in graph and other != module
        }
        for module, names in graph.items()
    }
    order = graphlib.TopologicalSorter(edges)
    order.prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", [*PACKAGES, "bench"])
def test_a_folder_has_at_most_14_modules(package: str) -> None:
    folders = [ROOT / package, *(p for p in (ROOT / package).rglob("*") if p.is_dir())]
    counts = {str(f.relative_to(ROOT)): len([*f.glob("[!_]*.py")]) for f in folders}
    assert max(counts.values()) <= 14, counts


def test_a_layer_test_sees_lazy_imports_and_import_module(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from a.b import c\n    import_module('d.e')\n    import g.h\n")
    assert imported_modules(path) == {"a.b.c", "d.e", "g.h"}


def test_shard_builder_imports_neither_torch_nor_dali() -> None:
    for path in sorted((ROOT / "shard_builder").rglob("*.py")):
        assert not imported_roots(path) & {"torch", "torchvision", "nvidia"}, path.name


@pytest.mark.parametrize("module", ["shard_builder.cli", "train.cli"])
def test_help_imports_neither_torch_nor_dali(module: str) -> None:
    program = (
        f"import sys; sys.argv = ['x', '--help']; from {module} import main\ntry: main()\nexcept"
        " SystemExit as stop: assert not stop.code, stop.code\nheavy = {'torch', 'torchvision',"
        " 'nvidia', 'cv2', 'matplotlib', 'pyarrow'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not [
        p for package in PACKAGES for p in (ROOT / package).rglob("*.py") if p.stem in drawers
    ]


def test_modules_stay_short() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for package in PACKAGES
        for p in (ROOT / package).rglob("*.py")
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long


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
