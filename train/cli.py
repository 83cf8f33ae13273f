"""The command ``cktrain``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from shard_builder.console import run_app

if TYPE_CHECKING:
    from train.config import TrainConfig

app = typer.Typer(
    name="cktrain",
    help="Train and test two-stream emotion recognition on a dataset of ckshard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DatasetArgument = Annotated[Path, typer.Argument(help="Dataset folder made by ckshard build.")]
NET, SCHEDULE, DATA, HARDWARE = "Net", "Schedule", "Data", "Hardware and run"


def main() -> NoReturn:
    """Run ``cktrain``."""
    run_app(app, prog_name="cktrain")


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train and test two-stream emotion recognition on a dataset of ckshard."""


def _option(text: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


def _config_of(context: Any) -> tuple[TrainConfig, set[str]]:
    """Return the training options of a parsed ``cktrain rgb|flow``, and the names of those that
    were given.
    """
    from train.config import TrainConfig, parse_lr_steps

    names = {field.name for field in fields(TrainConfig)} - {"stream"}
    values = {name: value for name, value in context.params.items() if name in names}
    values["lr_steps"] = parse_lr_steps(values["lr_steps"])
    given = {
        name
        for name in names
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    return TrainConfig(stream=str(context.info_name), **values), given


def train_stream(
    context: typer.Context,
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Run folder to make, or with --resume to go on with.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, exactly where it was.")
    ] = False,
    arch: Annotated[
        str, _option("resnet18, 34, 50, 101, 152 or another torchvision classifier.", NET)
    ] = "resnet152",
    weights: Annotated[
        str, _option("imagenet, a torchvision name such as IMAGENET1K_V1, a file, or none.", NET)
    ] = "imagenet",
    original_head: Annotated[
        bool, _option("The original's heads of 8 outputs.", NET, "--original-head")
    ] = False,
    dropout: Annotated[
        float | None, _option("Before the classifier; 0.8 rgb, 0.7 flow unless given.", NET)
    ] = None,
    partial_bn: Annotated[
        bool, _option("Freeze every BatchNorm but the first (TSN).", NET, "--partial-bn")
    ] = False,
    sync_bn: Annotated[
        bool, _option("BatchNorm statistics over all GPUs.", NET, "--sync-bn")
    ] = False,
    epochs: Annotated[int, _option("Passes over the training sequences.", SCHEDULE)] = 250,
    batch_size: Annotated[int, _option("Samples of a batch, over all ranks.", SCHEDULE)] = 10,
    iter_size: Annotated[int, _option("Batches accumulated into one step.", SCHEDULE)] = 5,
    lr: Annotated[float, _option("Learning rate.", SCHEDULE)] = 1e-3,
    lr_steps: Annotated[str, _option("Epochs at which it is divided by 10.", SCHEDULE)] = "100,200",
    momentum: Annotated[float, _option("Momentum of SGD.", SCHEDULE)] = 0.9,
    weight_decay: Annotated[float, _option("Weight decay, on every parameter.", SCHEDULE)] = 5e-4,
    stem_lr_scale: Annotated[
        float, _option("Factor on the stem's learning rate (TSN: 5 for flow).", SCHEDULE)
    ] = 1.0,
    clip_grad: Annotated[
        float, _option("Largest gradient norm (TSN: 20); 0 does not clip.", SCHEDULE)
    ] = 0.0,
    class_weights: Annotated[
        str, _option("none, or balanced: inverse to the class frequency.", SCHEDULE)
    ] = "none",
    val_every: Annotated[int, _option("Epochs between validations.", SCHEDULE)] = 5,
    stack_length: Annotated[
        int, _option("Flow pairs in a sample (the original's new_length).", DATA)
    ] = 5,
    rgb_last_frames: Annotated[
        int, _option("rgb trains on one of the last so many frames.", DATA)
    ] = 1,
    aug: Annotated[
        str, _option("standard, or original: the original's own crop table.", DATA)
    ] = "standard",
    split: Annotated[
        str, _option("subject-kfold, loso, original-random (leaks) or a file.", DATA)
    ] = "subject-kfold",
    folds: Annotated[int, _option("subject-kfold: number of folds.", DATA)] = 10,
    fold: Annotated[int, _option("subject-kfold: the fold to validate on, from 0.", DATA)] = 0,
    subject: Annotated[str, _option("loso: the subject to validate on.", DATA)] = "",
    seed: Annotated[
        int, _option("Initial weights, order, augmentation, dropout follow from it.", DATA)
    ] = 0,
    loader: Annotated[str, _option("auto, dali or cpu.", DATA)] = "auto",
    cache: Annotated[str, _option("none, or ram: keep decoded planes.", DATA)] = "none",
    workers: Annotated[int, _option("Decoding threads of a rank; 0 takes all cores.", DATA)] = 0,
    on_error: Annotated[
        str, _option("raise, or skip damaged samples (at most 1 %).", DATA)
    ] = "raise",
    precision: Annotated[
        str, _option("auto, bf16, fp16 or fp32; auto is bf16 where it is faster.", HARDWARE)
    ] = "auto",
    device: Annotated[str, _option("auto, cpu, cuda or cuda:N.", HARDWARE)] = "auto",
    compile: Annotated[bool, _option("torch.compile the net.", HARDWARE, "--compile")] = False,
    deterministic: Annotated[
        bool, _option("Only algorithms that repeat bit for bit.", HARDWARE, "--deterministic")
    ] = False,
    save_every: Annotated[
        int, _option("Keep a checkpoint every so many epochs; 0: last and best only.", HARDWARE)
    ] = 0,
    log_every: Annotated[int, _option("Steps between step rows in metrics.jsonl.", HARDWARE)] = 10,
) -> None:
    """Train one stream."""
    from train.running.train_run import run_train

    config, given = _config_of(context)
    raise typer.Exit(run_train(config, dataset, out, resume=resume, given=given))


app.command("rgb", help="Train the spatial stream: one frame, 3 channels.")(train_stream)
app.command(
    "flow", help="Train the temporal stream: a stack of flow pairs, 2 x --stack-length channels."
)(train_stream)


@app.command()
def test(
    runs_and_dataset: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN [RUN] DATASET", help="One run, or an rgb and a flow run, then the dataset."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for test.json, scores and figures; RUN/test if not given."),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="last, or best (chosen on these sequences: optimistic).")
    ] = "last",
    views: Annotated[
        str, typer.Option(help="ten, or original: the original's own sampling.")
    ] = "ten",
    original_views: Annotated[
        bool, typer.Option("--original-views", help="The same as --views original.")
    ] = False,
    fusion: Annotated[
        str,
        typer.Option(
            help=(
                "default (1:1.5), RGB:FLOW, or the folder of another test to search the weights on."
            )
        ),
    ] = "default",
    batch_size: Annotated[
        int, typer.Option(help="Sequences a batch; each has 10 (rgb) or 50 (flow) views.")
    ] = 4,
    workers: Annotated[int, typer.Option(help="Decoding threads; 0 takes all cores.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Test one run, or fuse an rgb and a flow run, on the subjects that their split left out: ten
    views a sequence.
    """
    from shard_builder.errors import InputError
    from train.commands.evaluate import print_test

    if len(runs_and_dataset) < 2:
        raise InputError(f"{len(runs_and_dataset)} folder given, expected RUN [RUN] DATASET")
    *runs, dataset = runs_and_dataset
    print_test(
        runs,
        dataset,
        out=out or runs[0] / "test",
        checkpoint=checkpoint,
        views="original" if original_views else views,
        batch_size=batch_size,
        workers=workers or None,
        device=device,
        fusion=fusion,
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def cv(
    context: typer.Context,
    stream: Annotated[str, typer.Argument(help="rgb or flow.")],
    dataset: DatasetArgument,
    out: Annotated[
        Path, typer.Option(help="Cross-validation folder; finished folds in it are kept.")
    ],
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 10,
    only: Annotated[
        str,
        typer.Option(
            help="Folds of this process, such as 0,3; empty takes all that nobody works on."
        ),
    ] = "",
    split: Annotated[
        str, typer.Option(help="subject-kfold, or original-random to measure its leak.")
    ] = "subject-kfold",
    select: Annotated[
        str,
        typer.Option(
            help=(
                "fixed: test the last epoch; inner: choose it on a further fold left out of"
                " training."
            )
        ),
    ] = "fixed",
    views: Annotated[
        str, typer.Option(help="ten, or original: the original's own sampling.")
    ] = "ten",
) -> None:
    """Cross-validate one stream by subjects. Takes every option of cktrain rgb|flow too, such as
    --arch and --epochs.

    Killed and started again it goes on. Processes and hosts may share one folder: each takes folds
    that nobody works on.
    """
    from shard_builder.errors import InputError
    from train.commands.cross_validate import run_cv
    from train.evaluation.cross_validate import CvOptions

    if stream not in ("rgb", "flow"):
        raise InputError(f"stream {stream!r}, expected rgb or flow")
    command = typer.main.get_command(app).commands[stream]  # type: ignore[attr-defined]
    parsed = command.make_context(
        stream, [str(dataset), "--out", str(out), *context.args], parent=context.parent
    )
    config, given = _config_of(parsed)
    fixed = sorted(given & {"split", "folds", "fold", "subject"})
    if fixed:
        raise InputError(
            f"--{fixed[0]} is set by the cross-validation for each fold\n  Leave it out."
        )
    options = CvOptions(
        split=split, num_folds=folds, only=_parse_folds(only), select=select, views=views
    )
    raise typer.Exit(run_cv(config, dataset, out, options, given=given))


def _parse_folds(text: str) -> tuple[int, ...] | None:
    from shard_builder.errors import InputError

    try:
        return tuple(int(part) for part in text.replace(",", " ").split()) or None
    except ValueError:
        raise InputError(f"--only {text!r}, expected fold numbers such as 0,3") from None


@app.command()
def predict(
    runs_and_input: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN [RUN] INPUT",
            help="One run, or an rgb and a flow run, then a video or a folder of frames.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for predictions.jsonl, bars.png and timeline.png.")
    ] = Path("prediction"),
    overlay: Annotated[
        Path | None, typer.Option(help="Also write the video with the label drawn in (.mp4).")
    ] = None,
    stride: Annotated[int, typer.Option(help="Frames from one window to the next.")] = 5,
    fps: Annotated[
        float | None, typer.Option(help="Frame rate in place of the input's own.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="last or best.")] = "last",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Predict the emotion in a video, a folder of frames or a CK+ sequence; no dataset is
    needed.
    """
    from shard_builder.errors import InputError
    from train.commands.predict import print_prediction

    if len(runs_and_input) < 2:
        raise InputError(f"{len(runs_and_input)} path given, expected RUN [RUN] INPUT")
    *runs, source = runs_and_input
    print_prediction(
        runs,
        source,
        out=out,
        overlay=overlay,
        stride=stride,
        fps=fps,
        checkpoint=checkpoint,
        device=device,
    )


@app.command()
def bench(
    dataset: DatasetArgument,
    stream: Annotated[str, typer.Option(help="rgb or flow.")] = "flow",
    arch: Annotated[str, typer.Option(help="torchvision classifier.")] = "resnet152",
    batch_size: Annotated[int, typer.Option(help="Samples of a step.")] = 10,
    stack_length: Annotated[int, typer.Option(help="Flow pairs in a sample.")] = 5,
    steps: Annotated[int, typer.Option(help="Measured steps of a repeat.")] = 10,
    warmup: Annotated[int, typer.Option(help="Steps before the first repeat.")] = 2,
    repeats: Annotated[int, typer.Option(help="Interleaved repeats of each case, at least 3.")] = 5,
    baseline: Annotated[
        bool, typer.Option(help="Also train in fp32 NCHW, as the original does.")
    ] = True,
    precision: Annotated[str, typer.Option(help="auto, bf16, fp16 or fp32.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int, typer.Option(help="Decoding threads; 0 takes all cores.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file.")] = None,
) -> None:
    """The stall test: training on synthetic, cached and real batches, and the difference."""
    from train.commands.stall import print_bench
    from train.config import TrainConfig

    config = TrainConfig(
        stream=stream,
        arch=arch,
        batch_size=batch_size,
        stack_length=stack_length,
        precision=precision,
        device=device,
        workers=workers,
    )
    print_bench(
        config,
        dataset,
        steps=steps,
        warmup=warmup,
        repeats=repeats,
        with_baseline=baseline,
        json=json,
    )


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run, or a folder of cktrain cv.")],
    out: Annotated[
        Path | None, typer.Option(help="Page to write; FOLDER/report.html if not given.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset, if it has moved since; for pictures.")
    ] = None,
) -> None:
    """Write one self-contained HTML page: curves, confusion, classes, subjects, worst mistakes,
    speed, configuration.
    """
    from train.evaluation.report import write_report

    path = out or folder / "report.html"
    write_report(folder, path, dataset=dataset)
    typer.echo(f"written: {path}")
