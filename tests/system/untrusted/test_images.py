"""Images that are not what the manifest says, refused before they are decoded."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from shard_builder.errors import DamagedMemberError, InputError
from shard_builder.format.verify import verify_dataset
from tests.pipelines.flat_loader import flat_loader
from tests.system.mutations.datasets import read_table, rehash, rewrite_shard
from tests.system.mutations.members import claim_size
from tests.system.untrusted.changes import Cli


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
