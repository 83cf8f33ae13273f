"""Every option of every command reaches the function that acts on it: none does nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipelines.throughput.cli import bench
from shard_builder.cli import app as ckshard_app
from train.cli import app as cktrain_app

if "bench" not in {command.name for command in ckshard_app.registered_commands}:
    ckshard_app.command("bench")(bench)  # what the entry point does
APPS = {"ckshard": ckshard_app, "cktrain": cktrain_app}
FUNCTIONS = {
    "ckshard synth": "shard_builder.commands.synth.run_synth",
    "ckshard build": "shard_builder.commands.build.run_build",
    "ckshard list": "shard_builder.commands.list.run_list",
    "ckshard prepare": "shard_builder.commands.prepare.run_prepare",
    "ckshard split": "shard_builder.commands.split.run_split",
    "ckshard push": "shard_builder.commands.transfer.run_push",
    "ckshard pull": "shard_builder.commands.transfer.run_pull",
    "ckshard verify": "shard_builder.commands.verify.run_verify",
    "ckshard inspect": "shard_builder.commands.inspect.run_inspect",
    "ckshard bench": "pipelines.throughput.command.run_bench_command"
    " pipelines.throughput.wait_command.run_wait_command",
    "cktrain rgb": "train.running.train_run.open_run",
    "cktrain flow": "train.running.train_run.open_run",
    "cktrain both": "train.commands.both.run_both",
    "cktrain test": "train.evaluation.evaluate.evaluate_runs",
    "cktrain cv": "train.evaluation.cross_validate.run_folds",
    "cktrain predict": "train.prediction.predict.run_predict",
    "cktrain export": "train.prediction.export.export_run",
    "cktrain report": "train.reporting.report.write_report",
    "cktrain bench": "train.running.stall_comparison.compare_stalls",
}
ARGUMENTS = {
    "synth": ["out"],
    "build": ["src", "out"],
    "list": ["src"],
    "prepare": ["src", "out"],
    "test": ["run", "dataset"],
    "predict": ["run", "clip", "--out", "prediction"],
    "cv": ["flow", "dataset", "--out", "cv", "--folds", "10"],
    "rgb": ["dataset", "--out", "run"],
    "flow": ["dataset", "--out", "run"],
    "both": ["dataset", "--out", "run"],
}
VALUES = {
    "--apex": ("motion", "motion"),
    "--flow-codec": ("raw", "raw"),
    "--consumer-ms": ("12.5", 12.5),
    "--shard-bytes": ("8192", 8192),
    "--cache-bytes": ("8192", 8192),
    "--size": ("320x240", 320),
    "--flow-size": ("160x120", "160x120"),
    "--streams": ("rgb", "rgb"),
    "--lr-steps": ("3,5", 5),
    "--only": ("3", 3),
    "--columns": ("path=video", "path=video"),
    "--classes": ("anger,happy", "anger,happy"),
    "--folds": ("4", 4),
    "--dropout": ("0.25", 0.25),
    "--fps": ("12.5", 12.5),
    "--momentum": ("0.25", 0.25),
    "--stream": ("rgb", "rgb"),
    "--crop-margin": ("0.25", 0.25),
    "--quality": ("80", 80),
    "--split": None,
    "--device": ("cpu", "cpu"),
    "--overlay": ("labelled.mp4", "labelled.mp4"),
}
"""Values of options that take no arbitrary text or number, and what must arrive."""
NEEDS = {
    "ckshard build --face-model": ("--crop", "faces"),
    "--match": ("--labels", "labels.csv"),
    "--epoch-samples": ("--consumer-ms", "5"),
}
"""What an option cannot be without."""
ACTED_ON_BY_THE_COMMAND = {"--help", "cktrain bench --json", "cktrain bench --stream"}
"""The command itself writes that file; the stream is part of the configuration."""


class Arrived(Exception):
    """The function was called."""


def options_of(name: str) -> Iterator[Any]:
    app, _, command = name.partition(" ")
    yield from (
        option
        for option in typer.main.get_command(APPS[app]).commands[command].params  # type: ignore[attr-defined]
        if option.param_type_name == "option"
    )


def cases() -> Iterator[tuple[str, str]]:
    for name in FUNCTIONS:
        for option in options_of(name):
            flag = max(option.opts, key=len)
            if flag not in ACTED_ON_BY_THE_COMMAND and f"{name} {flag}" not in (
                ACTED_ON_BY_THE_COMMAND
            ):
                yield name, flag


def flattened(value: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from flattened(getattr(value, field.name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from flattened(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from flattened(item)
    else:
        yield str(value)


def chosen(option: Any, flag: str, name: str) -> tuple[list[str], str]:
    """The words that set an option to something else than its default, and what must arrive."""
    if option.is_flag:
        return [flag], str(not option.default)
    if VALUES.get(flag):
        text, arrived = VALUES[flag]  # type: ignore[misc]
        return [flag, text], str(arrived)
    metavar = option.metavar or ""
    if "|" in metavar:
        text = next(word for word in metavar.split("|") if word != option.default)
    elif isinstance(option.default, int):
        text = str(option.default + 7)
    elif isinstance(option.default, float):
        text = str(option.default + 0.125)
    else:
        text = "a-value"
    return [flag, text, *NEEDS.get(flag, ()), *NEEDS.get(f"{name} {flag}", ())], text


def received(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    arrived: list[Any] = []

    def record(*arguments: Any, **options: Any) -> None:
        arrived.extend([arguments, options])
        raise Arrived

    for function in FUNCTIONS[name].split():
        monkeypatch.setattr(function, record)
    app, _, command = name.partition(" ")
    arguments = ARGUMENTS.get(command, ["dataset"])
    result = CliRunner().invoke(APPS[app], [command, *arguments, *words])
    assert isinstance(result.exception, Arrived), (words, result.exception, result.output)
    return sorted(flattened(arrived))


@pytest.mark.parametrize(("name", "flag"), list(cases()))
def test_the_value_of_an_option_arrives(
    name: str, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = next(o for o in options_of(name) if flag in o.opts)
    words, expected = chosen(option, flag, name)
    before = received(name, [], monkeypatch)
    after = received(name, words, monkeypatch)
    assert before != after, f"{name} {' '.join(words)} changes nothing"
    assert expected in after


def test_every_command_is_looked_at() -> None:
    commands = {
        f"{app} {name}"
        for app, group in APPS.items()
        for name in typer.main.get_command(group).commands  # type: ignore[attr-defined]
    }
    assert commands == FUNCTIONS.keys()
