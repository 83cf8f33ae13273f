"""Links planted in a folder: nothing is written through them, nothing read from elsewhere."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.dataset import open_dataset
from shard_builder.errors import DatasetError, InputError
from shard_builder.format.index import INDEX_NAME
from shard_builder.format.verify import verify_dataset
from tests.system.mutations.base import Base
from tests.system.untrusted.changes import MARK, Cli


@pytest.fixture
def victims(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "outside"
    folder.mkdir()
    yield folder
    for path in folder.rglob("*"):
        assert not path.is_file() or path.read_bytes() == b"keep me", f"{path} was written"


def plant(victims: Path, at: Path) -> None:
    target = victims / at.name
    target.write_bytes(b"keep me")
    at.unlink(missing_ok=True)
    at.symlink_to(target)


def test_links_in_a_run_are_not_written_through(
    run: Path, base: Base, cli: Cli, victims: Path
) -> None:
    for name in ("metrics.jsonl.tmp", "config.json.tmp", ".last.pt.tmp", ".best.pt.tmp"):
        plant(victims, run / name)
    for name in ("scores.parquet", "predictions.jsonl", "test.json", "confusion-flow.png"):
        plant(victims, run / "test" / name)
        plant(victims, run / "test" / f"{name}.tmp")
    plant(victims, run / "figures" / "curves.png")
    plant(victims, run / "report.html")
    plant(victims, run / "report.html.tmp")
    dataset = base.datasets["jpg"]
    more = ["--out", run, "--resume", "--epochs", 3, "--workers", 1]
    assert cli("cktrain", "flow", dataset, *more)[0] == 0
    assert cli("cktrain", "test", run, dataset)[0] == 0
    assert cli("cktrain", "predict", run, base.frames, "--out", run / "test")[0] == 0
    assert cli("cktrain", "report", run)[0] == 2, "predictions of another command"
    for path in (run / "test" / "test.json", run / "figures" / "curves.png"):
        assert not path.is_symlink(), "the link was replaced"


def test_links_in_a_build_are_not_written_through(base: Base, cli: Cli, victims: Path) -> None:
    release, out = base.frames.parents[3], victims.parent / "built"
    (out / ".build").mkdir(parents=True)
    for name in ("flow-000000.tar", "rgb-000000.idx", "index.arrow", "manifest.json"):
        plant(victims, out / name)
        plant(victims, out / ".build" / f"{name}.tmp")
    code, printed = cli("ckshard", "build", release, out, "--size", "96x64", "--flow-method", "dis")
    assert code == 0, printed
    assert verify_dataset(out).faults == ()


def test_a_build_folder_that_leads_elsewhere_is_refused(
    base: Base, cli: Cli, victims: Path
) -> None:
    out = victims.parent / "built"
    out.mkdir()
    (out / ".build").symlink_to(victims)
    code, printed = cli("ckshard", "build", base.frames.parents[3], out)
    assert code == 2 and ".build: is a link or a file, expected a folder" in printed


@pytest.mark.parametrize("name", ["figures/curves.png", "test/confusion-flow.png"])
def test_a_report_embeds_no_file_from_elsewhere(
    name: str, run: Path, cli: Cli, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes((run / name).read_bytes() + MARK.encode())
    (run / name).unlink()
    (run / name).symlink_to(secret)
    code, printed = cli("cktrain", "report", run)
    assert code == 0, printed  # figures are drawn anew, from the numbers
    page = (run / "report.html").read_text()
    assert page.count("data:image/png") >= 2
    assert base64.b64encode(secret.read_bytes()).decode() not in page


def test_a_folder_of_a_run_that_leads_elsewhere_is_refused(
    run: Path, cli: Cli, tmp_path: Path
) -> None:
    (run / "test").rename(tmp_path / "elsewhere")
    (run / "test").symlink_to(tmp_path / "elsewhere")
    code, printed = cli("cktrain", "report", run)
    assert code == 2 and f"{run / 'test'}: is a link or a file, expected a folder" in printed


def test_metrics_are_not_appended_to_a_file_of_two_names(run: Path, tmp_path: Path) -> None:
    from train.running.run_folder import RunFolder

    os.link(run / "metrics.jsonl", tmp_path / "other")
    before = (tmp_path / "other").read_bytes()
    folder = RunFolder(run, is_writer=True)
    with pytest.raises(InputError, match="no regular file of one name"):
        folder.log({"kind": "step", "step": 1})
    assert (tmp_path / "other").read_bytes() == before


@pytest.mark.parametrize("name", [INDEX_NAME, "flow-000000.tar", "rgb-000000.idx"])
def test_links_in_a_dataset_are_named_and_not_read(name: str, dataset: Path) -> None:
    shutil.move(dataset / name, dataset.parent / name)
    (dataset / name).symlink_to(dataset.parent / name)
    faults = [str(fault) for fault in verify_dataset(dataset).faults]
    assert any(fault.startswith(f"{name}: is a link to {dataset.parent}") for fault in faults)
    if not name.endswith(".idx"):
        with pytest.raises(DatasetError, match="link"), open_dataset(dataset) as opened:
            opened.read_member("flow", 0, 0)
            opened.check_sizes()
