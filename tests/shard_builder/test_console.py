"""Library errors name arguments, the commands print flags."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shard_builder.building.options import BuildOptions
from shard_builder.console import name_flags
from shard_builder.errors import CkError, InputError
from shard_builder.split import make_split
from shard_builder.synth.options import ReleaseOptions
from tests.programs import CKSHARD, assert_refused, ckshard


def test_an_input_error_is_a_value_error_and_names_the_argument() -> None:
    with pytest.raises(ValueError, match=r"^codec='bmp', expected one of jpg, png, raw$") as raised:
        BuildOptions(codec="bmp")  # type: ignore[arg-type]
    assert isinstance(raised.value, InputError) and isinstance(raised.value, CkError)
    with pytest.raises(ValueError, match=r"^num_subjects=0, expected an integer from 1 to 999$"):
        ReleaseOptions(num_subjects=0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["build", "{src}", "{out}", "--codec", "bmp"], "--codec bmp, expected one of jpg, png"),
        (["build", "{src}", "{out}", "--size", "340x250"], "--size (height) 250, expected"),
        (["build", "{src}", "{out}", "--source", "zip"], "--source zip, expected one of auto"),
        (["build", "{src}", "{full}"], "or replace it with --overwrite."),
        (["synth", "{out}", "--subjects", "0"], "--subjects 0, expected an integer from 1"),
        (["synth", "{out}", "--broken", "fire"], "--broken fire, expected one of gap"),
        (["synth", "{full}"], "or replace it with --overwrite."),
        (["prepare", "{src}", "{out}", "--workers", "-1"], "--workers -1, expected 0"),
        (["prepare", "{src}", "{out}", "--flow-method", "tvl1"], "--flow-method tvl1, expected"),
        (["verify", "{dataset}", "--workers", "-2"], "--workers -2, expected 0"),
        (["split", "{dataset}", "--folds", "7"], "--folds 7, expected 2 to 6"),
        (
            ["split", "{dataset}", "--fold", "9", "--folds", "3"],
            "--fold 9, expected an integer from 0 to 2",
        ),
        (["split", "{dataset}", "--kind", "loso"], "--kind loso needs the subject"),
        (["split", "{dataset}", "--kind", "loso"], "for instance --subject S005"),
        (["split", "{dataset}", "--kind", "loso", "--subject", "S1"], "--subject S1 is not in"),
        (["split", "{dataset}", "--kind", "none"], "--kind none, expected subject-kfold"),
        (
            ["inspect", "{dataset}", "--lossless", "{dataset}"],
            "--lossless {dataset}: has no lossless",
        ),
    ],
)
def test_a_command_prints_the_flag(
    words: list[str], expected: str, tiny_release: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    places = {
        "src": tiny_release,
        "dataset": tiny_dataset,
        "full": tmp_path / "full",
        "out": tmp_path / "out",
    }
    done = ckshard(*(word.format(**places) for word in words))
    assert_refused(done, expected.format(**places))
    assert not (tmp_path / "out").exists()


def test_what_the_user_typed_is_no_argument() -> None:
    """A folder may well be called ``seed=3``."""
    flags = {"seed": "--seed", "out": "--out"}
    words = ["split", "seed=3", "--out", "x"]
    assert name_flags("seed=3: no such folder", flags, words=words) == "seed=3: no such folder"
    for message in ("runs/seed=3: no such folder", "'seed=3' is no folder", "--seed=3", "a.seed=3"):
        assert name_flags(message, flags) == message
    columns = "--columns 'onset=OnsetFrame,seed=Seed,out=Out'"
    assert name_flags(columns, flags) == columns
    assert name_flags("seed=3, or (out='a b')", flags) == "--seed 3, or (--out 'a b')"


def test_an_argument_without_an_option_stays_as_it_is() -> None:
    with pytest.raises(InputError) as raised:
        make_split(_Sequences(), "loso")
    assert name_flags(str(raised.value), {"kind": "--split"}) == (
        "--split loso needs the subject to validate on, for instance subject='A'"
    )


class _Sequences:
    keys = ("A_1", "B_1")
    subjects = ("A", "B")
    labels = (0, 1)


def test_only_python_writes_to_the_terminal(tmp_path: Path) -> None:
    """libjpeg says on standard error what it thinks of a damaged file; so does any C library."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, typer\nfrom shard_builder.console import run_app\napp = typer.Typer()\n"
        "@app.command()\ndef main() -> None:\n    os.write(2, b'chatter')\n"
        "    print('python', file=sys.stderr)\n    raise ValueError('bad')\n"
        "run_app(app, prog_name='x')\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert "python" in done.stderr and "unexpected ValueError: bad" in done.stderr
    assert "chatter" not in done.stderr
    done = subprocess.run(
        [sys.executable, program, "--debug"], capture_output=True, text=True, check=False
    )
    assert "chatter" in done.stderr and "Traceback" in done.stderr


def test_a_reader_that_has_gone_ends_a_command_without_a_word(tiny_dataset: Path) -> None:
    command = [CKSHARD, "inspect", str(tiny_dataset)]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_narrow_terminal_shows_every_name(tiny_dataset: Path) -> None:
    done = subprocess.run(
        [CKSHARD, "inspect", str(tiny_dataset)],
        env=os.environ | {"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "xterm"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "surprise" in done.stdout, done
