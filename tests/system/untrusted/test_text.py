"""Names of strangers reach terminal and figures as plain text; what verify says it checked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import torch

from pipelines.dataset import open_dataset
from shard_builder.format.manifest import MANIFEST_NAME
from shard_builder.format.verify import verify_dataset
from tests.pipelines.flat_loader import flat_loader
from tests.system.mutations.base import Base
from tests.system.mutations.datasets import read_table, rehash
from tests.system.untrusted.changes import Cli, edit_json, set_column

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
