"""What users import: everything is there, typed, and nothing is loaded before it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shard_builder
from pipelines.dataset import open_dataset
from shard_builder import (
    BuildOptions,
    InputError,
    build_dataset,
    make_split,
    scan_source,
    verify_dataset,
)
from shard_builder.split import leaking_subjects


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    tree = ast.parse(Path(shard_builder.__file__).read_text())
    typed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("shard_builder.")
        for alias in node.names
    }
    assert typed == set(shard_builder.__all__) == set(dir(shard_builder))
    for name in shard_builder.__all__:
        assert getattr(shard_builder, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'build_datasets'"):
        _ = shard_builder.build_datasets


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, shard_builder; heavy = {'cv2', 'numpy', 'pyarrow', 'rich', 'typer'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_dataset_is_scanned_built_and_split(tiny_release: Path, tmp_path: Path) -> None:
    source = scan_source(str(tiny_release))
    options = BuildOptions(flow_method="dis", width=64, height=48, streams=("flow",))
    report = build_dataset(source, str(tiny_release), str(tmp_path / "dataset"), options)
    assert not verify_dataset(str(tmp_path / "dataset")).faults
    assert report.manifest.num_sequences == 42 and set(report.manifest.streams) == {"flow"}
    with open_dataset(tmp_path / "dataset") as dataset:
        split = make_split(dataset, "subject-kfold", folds=3, fold=1)
        assert len(split.train) == 28 and len(split.val) == 14
        assert not leaking_subjects(split, dict(zip(dataset.keys, dataset.subjects, strict=True)))
        assert make_split(dataset, folds=3, fold=1) == split
        assert set(make_split(dataset, "loso", subject="S005").val) < set(dataset.keys)


class Labelled:
    """Twenty sequences of two subjects, as anything but a dataset may hold them."""

    keys = tuple(f"{subject}_{number}" for subject in "AB" for number in range(10))
    subjects = tuple(subject for subject in "AB" for _ in range(10))
    labels = np.zeros(20, np.int64)


def test_anything_with_keys_subjects_and_labels_is_split() -> None:
    assert make_split(Labelled(), "loso", subject="A").val == Labelled.keys[:10]
    assert len(make_split(Labelled(), "original-random", seed=3).val) == 2


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (
            "kfold",
            {},
            "^kind='kfold', expected subject-kfold, loso, original-random, fold or a file",
        ),
        ("subject-kfold", {"folds": 3}, "^folds=3, expected 2 to 2"),
        ("subject-kfold", {"folds": 2, "fold": 2}, "^fold=2, expected an integer from 0 to 1"),
        ("loso", {}, "^kind='loso' needs the subject.*subject='A'"),
        ("loso", {"subject": "C"}, "^subject='C' is not in the dataset"),
    ],
)
def test_a_bad_argument_of_make_split_is_named(
    kind: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        make_split(Labelled(), kind, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("package", ["shard_builder", "pipelines", "models", "train"])
def test_the_packages_say_that_they_are_typed(package: str) -> None:
    root = Path(shard_builder.__file__).parent.parent
    assert (root / package / "py.typed").is_file()
    assert '"py.typed"' in (root / "pyproject.toml").read_text()
