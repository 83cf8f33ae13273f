"""What users import: everything is there, typed, and nothing is loaded before it is asked for."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import shard_builder
from pipelines.dataset import open_dataset
from shard_builder import (
    BuildOptions,
    InputError,
    ScanOptions,
    Split,
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
        ("subject-kfold", {"folds": 2.0}, "^folds=2.0, expected 2 to 2"),
        ("original-random", {"seed": 1 << 64}, "^seed=18446744073709551616, expected an integer"),
        ("original-random", {"seed": None}, "^seed=None, expected an integer"),
        ("fold", {"fold": 1.0}, "^fold=1.0, expected an integer"),
        ("loso", {}, "^kind='loso' needs the subject.*subject='A'"),
        ("loso", {"subject": "C"}, "^subject='C' is not in the dataset"),
    ],
)
def test_a_bad_argument_of_make_split_is_named(
    kind: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        make_split(Labelled(), kind, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Split(kind="list", train="S005_001", val=()), "^train='S005_001', expected sev"),  # type: ignore[arg-type]
        (lambda: Split(kind="list", train=(), val=(3, 4)), "^val: 3 is no key"),  # type: ignore[arg-type]
        (lambda: BuildOptions(streams="rgb"), "^streams='rgb', expected rgb, flow or both"),  # type: ignore[arg-type]
        (lambda: BuildOptions(apex=3), "^apex=3, expected last"),  # type: ignore[arg-type]
        (lambda: BuildOptions(shard_bytes=0.0), "^shard_bytes=0.0, expected an integer"),  # type: ignore[arg-type]
        (lambda: BuildOptions(seed=1 << 64), "^seed=18446744073709551616, expected an integer"),
        (lambda: ScanOptions(allow_gaps="no"), "^allow_gaps='no', expected True or False"),  # type: ignore[arg-type]
        (lambda: verify_dataset("nowhere", workers=1.5), "^workers=1.5, expected 0"),  # type: ignore[arg-type]
        (lambda: verify_dataset("nowhere", workers=True), "^workers=True, expected 0"),
    ],
)
def test_an_argument_of_another_type_is_refused_and_not_cast(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_numpys_numbers_become_pythons() -> None:
    options = BuildOptions(width=np.int64(64), height=np.int32(48), bound_px=np.float32(5))  # type: ignore[arg-type]
    assert json.loads(json.dumps(asdict(options)))["bound_px"] == 5.0


@pytest.mark.parametrize("package", ["shard_builder", "pipelines", "models", "train"])
def test_the_packages_say_that_they_are_typed(package: str) -> None:
    root = Path(shard_builder.__file__).parent.parent
    assert (root / package / "py.typed").is_file()
    assert '"py.typed"' in (root / "pyproject.toml").read_text()
