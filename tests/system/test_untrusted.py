"""What a stranger's folder may hold, kind by kind: refused in one line, with nothing touched."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.dataset import open_dataset
from shard_builder.errors import DamagedMemberError, DatasetError, InputError
from shard_builder.format.index import INDEX_NAME
from shard_builder.format.manifest import MANIFEST_NAME
from shard_builder.format.verify import verify_dataset
from tests.pipelines.flat_loader import flat_loader
from tests.system.mutations.base import Base, make_base
from tests.system.mutations.datasets import (
    claim_size,
    read_table,
    rehash,
    rewrite_shard,
    write_table,
)
from tests.train.tiny_net import make_tiny_net

PROGRAMS = {"ckshard": "shard_builder.cli", "cktrain": "train.cli"}
MARK = "victim-5f1d2c"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.build._torchvision_model", make_tiny_net)
        return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.build._torchvision_model", make_tiny_net)


@pytest.fixture
def dataset(base: Base, tmp_path: Path) -> Path:
    shutil.copytree(base.datasets["jpg"], tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def run(base: Base, tmp_path: Path) -> Path:
    shutil.copytree(base.runs["flow"], tmp_path / "run")
    return tmp_path / "run"


Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in this process; returns its exit code and all that it printed."""

    def call(program: str, *words: object) -> tuple[int, str]:
        module = __import__(PROGRAMS[program], fromlist=["main"])
        monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            module.main()
        return int(stop.value.code or 0), "".join(capfd.readouterr())

    return call


def edit_json(path: Path, edit: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def set_column(dataset: Path, name: str, values: list[object], *, nullable: bool = False) -> None:
    table = read_table(dataset)
    field = table.schema.field(name).with_nullable(nullable)
    array = pa.array(values, field.type)
    write_table(dataset, table.set_column(table.column_names.index(name), field, array))
    rehash(dataset)


# --- Arrow ---------------------------------------------------------------------------------------


def test_a_flipped_bit_in_a_string_offset_is_refused_wherever_the_column_is_used(
    dataset: Path,
) -> None:
    path = dataset / INDEX_NAME
    data = bytearray(path.read_bytes())
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        offsets = reader.get_batch(0).column("subject").buffers()[1]
    at = data.find(offsets.to_pybytes()[:60])
    data[at + 11] ^= 0x40  # an offset of a billion
    path.write_bytes(data)
    rehash(dataset)
    program = (
        "import sys\nfrom pipelines.dataset import open_dataset\n"
        "try: open_dataset(sys.argv[1]).subjects\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(dataset)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, "a signal"
    assert "column subject is damaged" in done.stdout
    faults = [str(fault) for fault in verify_dataset(dataset).faults]
    assert any("column subject is damaged" in fault for fault in faults)


def test_an_index_of_another_sha256_is_reported_and_not_used(dataset: Path) -> None:
    path = dataset / INDEX_NAME
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    report = verify_dataset(dataset)
    assert [str(f) for f in report.faults] == [
        f"{INDEX_NAME}: its SHA-256 differs from the manifest's"
    ]
    assert report.num_members == 0


def test_nulls_are_refused(dataset: Path) -> None:
    labels = read_table(dataset).column("subject").to_pylist()
    set_column(dataset, "subject", [None, *labels[1:]])
    with open_dataset(dataset) as opened, pytest.raises(DatasetError, match="subject holds 1 null"):
        opened.subjects  # noqa: B018
    assert any("nulls" in str(fault) for fault in verify_dataset(dataset).faults)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_buffers_are_refused(codec: str, dataset: Path) -> None:
    write_table(dataset, read_table(dataset), compression=codec)
    rehash(dataset)
    with pytest.raises(DatasetError, match="is compressed, expected uncompressed"):
        open_dataset(dataset)
    assert any("is compressed" in str(fault) for fault in verify_dataset(dataset).faults)


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [("num_pairs", 16_777_225), ("num_frames", -(2**31)), ("num_frames", 2**31 - 1), ("label", 99)],
)
def test_numbers_of_the_index_are_compared_with_what_it_lists(
    column: str, value: int, dataset: Path
) -> None:
    values = read_table(dataset).column(column).to_pylist()
    set_column(dataset, column, [value, *values[1:]])
    with pytest.raises(DatasetError, match=INDEX_NAME), open_dataset(dataset) as opened:
        opened.members("flow")
        opened.members("rgb")
    report = verify_dataset(dataset)
    assert any(fault.file == INDEX_NAME for fault in report.faults)


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r["geometry"].update(height=30_000, width=30_000),
        lambda r: r.update(classes=[r["classes"][0] | {"label": n} for n in range(100_000)]),
        lambda r: r.update(seed=-1),
        lambda r: r.update(num_sequences=0),
        lambda r: r["streams"]["flow"].update(quality=101),
        lambda r: r["streams"]["flow"].update(num_members=-5),
        lambda r: r["flow"].update(bound_px=0),
        lambda r: r["flow"].update(mean_level=1e9),
        lambda r: r["files"][INDEX_NAME].update(num_bytes=-1),
        lambda r: r["files"][INDEX_NAME].update(sha256="abc"),
        lambda r: r["streams"]["flow"].update(shards=[]),
        lambda r: r["streams"]["flow"]["shards"].reverse(),
        lambda r: r.update(version=True),
    ],
)
def test_numbers_of_the_manifest_have_ranges(
    edit: Callable[[dict], None],  # type: ignore[type-arg]
    dataset: Path,
) -> None:
    edit_json(dataset / MANIFEST_NAME, edit)
    for read in (open_dataset, verify_dataset):
        with pytest.raises(DatasetError, match=MANIFEST_NAME) as raised:
            read(dataset)
        assert str(raised.value).count("\n") <= 1


def test_a_negative_size_in_a_tar_header_ends_the_walk(dataset: Path) -> None:
    path = sorted(dataset.glob("flow-*.tar"))[0]
    data = bytearray(path.read_bytes())
    data[124:136] = b"\xff" * 10 + b"\xfe\x00"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    rehash(dataset)
    faults = [str(fault) for fault in verify_dataset(dataset).faults]
    assert any("header at byte 0 is broken (size -512)" in fault for fault in faults)


@pytest.mark.parametrize("fps", ["nan", "inf", "0", "-1", "1e9"])
def test_frame_rates_are_bounded(fps: str, run: Path, base: Base, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "prediction"
    code, printed = cli("cktrain", "predict", run, base.frames, "--fps", fps, "--out", out)
    assert code == 2 and "--fps" in printed and "expected a number from" in printed


def test_training_numbers_are_bounded(dataset: Path, cli: Cli, tmp_path: Path) -> None:
    more = ["--out", tmp_path / "run", "--stack-length", 1_000_000]
    code, printed = cli("cktrain", "flow", dataset, *more)
    assert code == 2 and "--stack-length 1000000, expected 256 or less" in printed


# --- links ---------------------------------------------------------------------------------------


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


# --- special files -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fifo", "sparse", "folder"])
@pytest.mark.parametrize("name", [MANIFEST_NAME, INDEX_NAME, "flow-000000.tar", "rgb-000000.idx"])
def test_special_files_and_sizes_in_a_dataset(kind: str, name: str, dataset: Path) -> None:
    path = dataset / name
    make_special(path, kind)
    if name == MANIFEST_NAME:
        for read in (open_dataset, verify_dataset):
            with pytest.raises(DatasetError, match=r"not a regular file|expected at most"):
                read(dataset)
        return
    assert any(fault.file == name for fault in verify_dataset(dataset).faults)


@pytest.mark.parametrize("name", [INDEX_NAME, "flow-000000.tar", "rgb-000000.idx"])
def test_holes_are_not_hashed_even_where_the_manifest_claims_them(name: str, dataset: Path) -> None:
    make_special(dataset / name, "sparse")
    edit_json(dataset / MANIFEST_NAME, lambda r: r["files"][name].update(num_bytes=1 << 40))
    faults = [fault for fault in verify_dataset(dataset).faults if fault.file == name]
    assert any("is sparse" in fault.what for fault in faults)


@pytest.mark.parametrize("kind", ["fifo", "sparse", "folder"])
@pytest.mark.parametrize(
    "name", ["config.json", "split.json", "metrics.jsonl", "last.pt", "test/test.json"]
)
def test_special_files_and_sizes_in_a_run(
    kind: str, name: str, run: Path, base: Base, cli: Cli
) -> None:
    make_special(run / name, kind)
    dataset = base.datasets["jpg"]
    if name == "last.pt":
        code, printed = cli("cktrain", "test", run, dataset)
    else:
        code, printed = cli("cktrain", "report", run)
    assert code == 2 and name in printed and "unexpected" not in printed


def make_special(path: Path, kind: str) -> None:
    if kind == "sparse":
        os.truncate(path, 1 << 40)
        return
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()


# --- images --------------------------------------------------------------------------------------


def replace_image(dataset: Path, change: Callable[[bytes], bytes]) -> str:
    """Change the first pair of the first row; all checksums fit. Returns the member's name."""
    row = read_table(dataset).slice(0, 1).to_pylist()[0]
    path = dataset / f"flow-{row['flow_shard']:06d}.tar"
    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    name = f"{row['key']}.flow-000.jpg"
    members = [(n, change(data) if n == name else data) for n, data in members]
    rewrite_shard(dataset, path, members)
    rehash(dataset)
    return name


def as_format(suffix: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        return cv2.imencode(suffix, image)[1].tobytes()

    return change


def of_size(width: int, height: int) -> Callable[[bytes], bytes]:
    return lambda data: cv2.imencode(".jpg", np.zeros((height, width), np.uint8))[1].tobytes()


HOSTILE_IMAGES = {
    "bmp": as_format(".bmp"),
    "tiff": as_format(".tiff"),
    "webp": as_format(".webp"),
    "png": as_format(".png"),
    "32000": lambda data: claim_size(data, 32_000),
    "65500": lambda data: claim_size(data, 65_500),
    "400x300": of_size(400, 300),
    "colour": lambda data: cv2.imencode(".jpg", np.zeros((128, 96, 3), np.uint8))[1].tobytes(),
    "empty": lambda data: b"\xff\xd8\xff",
}


@pytest.mark.parametrize("kind", HOSTILE_IMAGES)
def test_images_that_are_not_the_manifests_are_refused_before_they_are_decoded(
    kind: str, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = replace_image(dataset, HOSTILE_IMAGES[kind])
    decoded: list[int] = []
    real = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *a: decoded.append(1) or real(*a))
    with (
        open_dataset(dataset) as opened,
        pytest.raises(DamagedMemberError, match=r"expected a gray jpg of 96x128|is a JPEG w|nei"),
    ):
        opened.read_member("flow", 0, 0)
    assert not decoded
    faults = [str(fault) for fault in verify_dataset(dataset).faults]
    assert any(name in fault for fault in faults), faults


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_no_engine_takes_a_picture_of_another_size(engine: str, dataset: Path) -> None:
    replace_image(dataset, of_size(400, 300))
    options = {"engine": engine, "num_threads": 1, "dtype": torch.uint8, "stack_length": 6}
    with open_dataset(dataset) as opened:
        loader = flat_loader(opened, training=False, batch_size=4, **options)
        with loader, pytest.raises(DamagedMemberError, match="400x300, expected a gray jpg of 96x"):
            list(loader)


def test_a_page_of_inspect_shows_no_picture_of_another_size(
    dataset: Path, cli: Cli, tmp_path: Path
) -> None:
    replace_image(dataset, lambda data: claim_size(data, 65_500))
    with open_dataset(dataset) as opened:
        key = opened.keys[0]
    code, printed = cli("ckshard", "inspect", dataset, "--html", tmp_path / "page.html")
    assert (code, key in printed) in ((2, True), (0, False)), printed
    assert "unexpected" not in printed


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_sources_image_that_claims_gigabytes_is_refused(suffix: str, tmp_path: Path) -> None:
    from shard_builder.faces.frames import read_image

    data = cv2.imencode(suffix, np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    if suffix == ".bmp":
        data = data[:18] + (40_000).to_bytes(4, "little") * 2 + data[26:]
    else:
        data = claim_size(data, 40_000)
    path = tmp_path / f"frame{suffix}"
    path.write_bytes(data)
    with pytest.raises(InputError, match="claims"):
        read_image(path)


# --- records -------------------------------------------------------------------------------------

RECORDS = {
    "version: true": (r'"version": \d+', '"version": true'),
    "a key twice": (r"^\{", '{"format": "x", '),
    "1e400": (r'"version": \d+', '"version": 1e400'),
    "deep nesting": (r'"version": \d+', '"version": 1, "x": ' + "[" * 100_000 + "]" * 100_000),
    "a lone surrogate": (r'"version": \d+', '"version": 1, "x": "\\\\ud800"'),
    "not JSON": (r'"version": \d+', '"version": }'),
    "a list": (r"(?s).*", "[]"),
    "nothing": (r"(?s).*", ""),
    "no field": (r'"version": \d+', '"other": 1'),
}


@pytest.mark.parametrize("fault", RECORDS)
@pytest.mark.parametrize("name", [MANIFEST_NAME, "config.json", "test/test.json"])
def test_a_damaged_record_is_one_line_with_its_file(
    fault: str, name: str, dataset: Path, run: Path, cli: Cli
) -> None:
    path = (dataset if name == MANIFEST_NAME else run) / name
    text, count = re.subn(*RECORDS[fault], path.read_text(), count=1)
    assert count == 1
    path.write_text(text)
    words = ("ckshard", "verify", dataset) if name == MANIFEST_NAME else ("cktrain", "report", run)
    code, printed = cli(*words)
    assert code == 2, printed
    assert printed.startswith(f"{words[0]}: error: {path}: ")
    assert len(printed.splitlines()) <= 2 and len(printed) < 1000


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("config.json", lambda r: r["options"].update(stack_length="5"), "options.stack_length"),
        ("config.json", lambda r: r["options"].update(stack_length=10**6), "options"),
        ("config.json", lambda r: r["options"].update(lr=-1), "options"),
        ("config.json", lambda r: r["split"].update(sha256="x"), "split.sha256"),
        ("config.json", lambda r: r.pop("dataset"), "dataset"),
        ("split.json", lambda r: r.update(train=[1]), "train[0]"),
        ("split.json", lambda r: r.update(kind="other"), "kind"),
        ("test/test.json", lambda r: r["flow"].update(accuracy=7), "flow.accuracy"),
        ("test/test.json", lambda r: r.pop("flow"), "no result"),
    ],
)
def test_a_damaged_field_is_named(
    name: str,
    change: Callable[[dict], None],  # type: ignore[type-arg]
    field: str,
    run: Path,
    cli: Cli,
) -> None:
    edit_json(run / name, change)
    code, printed = cli("cktrain", "report", run)
    assert code == 2 and f"{run / name}: " in printed and field in printed, printed


@pytest.mark.parametrize("file", ["metrics.jsonl", "test/predictions.jsonl"])
def test_a_damaged_line_is_named(file: str, run: Path, cli: Cli) -> None:
    lines = (run / file).read_text().splitlines()
    lines[1] = lines[1].replace(": ", ": {", 1)
    (run / file).write_text("\n".join(lines) + "\n")
    code, printed = cli("cktrain", "report", run)
    assert code == 2 and f"{run / file}, line 2: " in printed


def test_a_torn_last_line_is_dropped_with_a_notice(run: Path, base: Base, cli: Cli) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epo')
    assert cli("cktrain", "report", run)[0] == 0
    assert "its last line is cut short" in (run / "report.html").read_text()
    more = ["--out", run, "--resume", "--epochs", 3, "--workers", 1]
    code, printed = cli("cktrain", "flow", base.datasets["jpg"], *more)
    assert code == 0 and "its last line is cut short and left out" in printed
    assert all(json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())


# --- checkpoints ---------------------------------------------------------------------------------


def test_a_flipped_bit_in_a_checkpoint_is_always_found(run: Path, base: Base, cli: Cli) -> None:
    path, draw = run / "last.pt", random.Random(0)
    whole = path.read_bytes()
    for _ in range(6):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        code, printed = cli("cktrain", "test", run, base.datasets["jpg"])
        assert code == 2 and f"{path}: " in printed, printed


def test_a_sealed_checkpoint_is_still_one_of_torch(run: Path) -> None:
    content = torch.load(run / "last.pt", weights_only=True)
    assert content["format"] == "ckshard-checkpoint"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_an_error(
    value: float, run: Path, base: Base, cli: Cli, tmp_path: Path
) -> None:
    from train.running.checkpoint import write_checkpoint

    content = torch.load(run / "last.pt", weights_only=True)
    content["model"]["conv.weight"].fill_(value)
    write_checkpoint(run / "last.pt", content)
    code, printed = cli("cktrain", "predict", run, base.frames, "--out", tmp_path / "prediction")
    assert code == 2 and "numbers that are not finite" in printed


@pytest.mark.parametrize("command", ["test", "weights"])
def test_a_checkpoint_that_unpacks_to_gigabytes_is_refused(
    command: str, run: Path, base: Base, cli: Cli, tmp_path: Path
) -> None:
    import zipfile

    path = run / "last.pt"
    source = zipfile.ZipFile(path)
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            with target.open(entry.filename, "w", force_zip64=True) as file:
                if entry.filename.endswith("data/0"):
                    for _ in range(48):
                        file.write(bytes(1 << 26))
                else:
                    file.write(source.read(entry))
    (tmp_path / "bomb").replace(path)
    dataset = base.datasets["jpg"]
    words = ["test", run, dataset]
    if command == "weights":
        words = ["flow", dataset, "--out", tmp_path / "new", "--weights", path, "--folds", 3]
    code, printed = cli("cktrain", *words)
    assert code == 2 and f"{path}: cannot be read as" in printed


def test_fields_of_a_sealed_checkpoint_are_checked(run: Path, base: Base, cli: Cli) -> None:
    from train.running.checkpoint import write_checkpoint

    whole = torch.load(run / "last.pt", weights_only=True)
    for name, value, words in (
        ("stack_length", 10**6, "stack_length"),
        ("classes", "x", "classes"),
        ("output_of_class", [0, 99], "output_of_class"),
        ("progress", None, "progress"),
        ("model", {}, "other tensors than the net's"),
        ("geometry", {"height": 30_000, "width": 30_000}, "geometry.height"),
    ):
        write_checkpoint(run / "last.pt", whole | {name: value})
        code, printed = cli("cktrain", "test", run, base.datasets["jpg"])
        assert code == 2 and words in printed, printed


def test_a_small_checkpoint_that_names_a_net_of_gigabytes_takes_none(
    run: Path, base: Base, cli: Cli
) -> None:
    from train.running.checkpoint import write_checkpoint

    content = torch.load(run / "last.pt", weights_only=True)
    write_checkpoint(run / "last.pt", content | {"arch": "timm/vit_huge_patch14_224"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, printed = cli("cktrain", "predict", run, base.frames, "--out", run / "prediction")
    assert code == 2 and "other tensors than the net's" in printed
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


# --- text ----------------------------------------------------------------------------------------

EVIL = "a\x1b[2J\nno fault found [/red]$x^$" + "y" * 5000


def test_names_in_a_dataset_reach_the_terminal_as_one_line_of_text(dataset: Path, cli: Cli) -> None:
    edit_json(dataset / MANIFEST_NAME, lambda r: r["classes"][0].update(name=EVIL))
    (dataset / "evil\n\x1b[1mflow-000000.tar: fine").write_text("")
    set_column(dataset, "subject", [EVIL] * read_table(dataset).num_rows)
    for words in (("verify",), ("verify", "--quick"), ("inspect",)):
        _, printed = cli("ckshard", words[0], dataset, *words[1:])
        assert "\x1b" not in printed and "unexpected" not in printed
        assert not any(line.startswith(("no fault", "\x1b")) for line in printed.splitlines())
        assert max(map(len, printed.splitlines())) < 5000


def test_class_names_are_no_formulas_in_figures(run: Path, base: Base, cli: Cli) -> None:
    from train.running.checkpoint import write_checkpoint

    content = torch.load(run / "last.pt", weights_only=True)
    content["classes"] = [EVIL, *(f"$\\bad{n}$" for n in range(len(content["classes"]) - 1))]
    write_checkpoint(run / "last.pt", content)
    code, printed = cli("cktrain", "predict", run, base.frames, "--out", run / "prediction")
    assert code == 0 and "\x1b" not in printed
    lines = (run / "prediction" / "predictions.jsonl").read_text().splitlines()
    assert EVIL in json.loads(lines[-1])["probs"]["flow"], "the data keep the original"


def test_verify_says_what_it_checked(dataset: Path, cli: Cli) -> None:
    code, printed = cli("ckshard", "verify", dataset)
    assert code == 0 and "all promises hold" not in printed
    assert re.search(r"no fault found in \d+ files \(size and SHA-256\), \d+ members", printed)
    _, printed = cli("ckshard", "verify", dataset, "--quick")
    assert "contents not read" in printed


def test_verify_finds_what_the_format_promises_of_a_tar(dataset: Path) -> None:
    path = sorted(dataset.glob("flow-*.tar"))[0]
    whole = path.read_bytes()
    size = int(whole[124:135], 8)
    for at, value in ((100, b"0000777\0"), (265, b"somebody"), (136, b"00000000017\0")):
        data = bytearray(whole)
        data[at : at + len(value)] = value
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        path.write_bytes(data)
        rehash(dataset)
        assert any("another format, mode" in str(f) for f in verify_dataset(dataset).faults)
    path.write_bytes(whole[: 512 + size] + b"x" + whole[513 + size :])
    rehash(dataset)
    assert any("padded with zeros" in str(f) for f in verify_dataset(dataset).faults)
    path.write_bytes(whole[:-512])
    rehash(dataset)
    assert any("expected two blocks" in str(f) for f in verify_dataset(dataset).faults)


# --- small planes --------------------------------------------------------------------------------


def test_predict_cuts_small_planes_as_validation_does(run: Path, base: Base) -> None:
    from pipelines.engines.normalize import Normalizer
    from pipelines.streams import kind_of
    from train.prediction.stream_model import load_stream_model

    model = load_stream_model(run, device="cpu")
    with open_dataset(base.datasets["jpg"]) as opened:
        loader = flat_loader(
            opened, training=False, batch_size=1, num_threads=1, dtype=torch.uint8, engine="cpu"
        )
        with loader:
            batch = next(iter(loader)).images.clone()
            start = (int(opened.num_pairs[0]) - model.stack_length + 1) // 2
            planes = []
            for number in range(start, start + model.stack_length):
                data = opened.read_member("flow", 0, number)
                pair = cv2.imdecode(np.asarray(data), cv2.IMREAD_GRAYSCALE)
                planes += [pair[:64], pair[64:]]
    normalizer = Normalizer(kind_of("flow"), 10, dtype=torch.float32, device=torch.device("cpu"))
    expected = model.forward(normalizer(batch))[0].double().numpy()
    assert np.allclose(model.logits_of(planes), expected, atol=1e-5)
