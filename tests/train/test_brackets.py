"""Names with brackets are shown as they are by every command: what prints knows no markup."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import shard_builder.cli
import train.cli
from tests.face_sets import write_video
from tests.train.tiny_net import SHORT

CLASSES = ("[bold]joy[/]", "[/red]")
SUBJECTS = ("[p1]", "[/p2]", "[link=x]p3")
OPTIONS = [f"--{n.replace('_', '-')}={value}" for n, value in SHORT.items() if n != "batch_size"]
OPTIONS += ["--batch-size=2", "--folds=3", "--loader=cpu"]
Command = Callable[..., str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs one of both programs in this process and returns what it printed."""

    def run(program: str, *words: object, expected: int = 0) -> str:
        main = shard_builder.cli.main if program == "ckshard" else train.cli.main
        monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert (end.value.code or 0) == expected, printed.err
        return printed.out + printed.err

    return run


def test_names_with_brackets_are_shown_as_they_are(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "[red]faces"
    lines = ["path;label;subject"]
    for number, label in enumerate(CLASSES):
        for subject in SUBJECTS:
            name = f"c[{number}]/{subject.replace('/', '')}_a[1].avi"
            write_video(root / name)
            lines.append(f"{name};{label};{subject}")
    (root / "broken[0].avi").write_bytes(b"nothing")
    lines.append(f"broken[0].avi;{CLASSES[0]};{SUBJECTS[0]}")
    table, dataset, run = root / "[b]table.csv", tmp_path / "[i]dataset", tmp_path / "[u]run"
    table.write_text("\n".join(lines))

    def shows(printed: str, *names: object) -> None:
        assert [str(name) for name in names if str(name) not in printed] == [], printed

    shows(command("ckshard", "list", table, "--on-error", "skip"), *CLASSES, *SUBJECTS)
    small = ("--size", "64x48", "--codec", "png", "--flow-method", "dis", "--workers", 1)
    shows(command("ckshard", "build", table, dataset, *small, expected=2), "broken[0].avi")
    built = command("ckshard", "build", table, dataset, *small, "--on-error", "skip")
    shows(built, *CLASSES, dataset / "skipped.jsonl")
    shows(command("ckshard", "verify", dataset), dataset)
    shows(command("ckshard", "split", dataset, "--kind", "loso", "--subject", "[p1]"), *CLASSES)
    shows(
        command("ckshard", "split", dataset, "--kind", "loso", "--subject", "[x]", expected=2),
        "[x]",
    )
    page = tmp_path / "[s]page.html"
    shows(command("ckshard", "inspect", dataset, "--html", page), *CLASSES, page)
    shows(page.read_text(), *CLASSES)
    shows(command("cktrain", "flow", dataset, "--out", run, *OPTIONS), run)
    shows(command("cktrain", "test", run, dataset), *CLASSES)
    shows(command("cktrain", "report", run), run)
    shows((run / "report.html").read_text(), *CLASSES)
    words = ("predict", run, root / "c[0]" / "[p1]_a[1].avi", "--out", tmp_path / "[r]out")
    shows(command("cktrain", *words), "[p1]_a[1].avi", *CLASSES)
    tar = next(dataset.glob("flow-*.tar"))
    tar.write_bytes(tar.read_bytes()[:-20000])
    shows(command("ckshard", "verify", dataset, expected=1), dataset)
    shows(command("cktrain", "flow", dataset, "--out", tmp_path / "[/]", expected=2), dataset)
