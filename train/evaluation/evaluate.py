"""The original's ten-view test of one or two runs, on subjects that were never trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.fusion import DEFAULT_WEIGHTS, FusionWeights, Probs, deciding, late_fusion
from pipelines.dataset import Dataset, open_dataset
from pipelines.reading import Reading
from pipelines.views import Views, make_view_loader
from shard_builder.errors import InputError, counted
from shard_builder.files import digest_file, write_atomically, write_json
from shard_builder.lock import locked
from shard_builder.untrusted.text import clean
from train.evaluation.confusion import write_confusion_figure
from train.evaluation.fusion_choice import choose_weights
from train.evaluation.scores import SCORES_NAME, StreamScores, write_scores
from train.evaluation.statistics import compute_metrics, mcnemar_exact
from train.evaluation.stored_test import RESULTS, TEST_NAME, EvaluationReport, Part
from train.prediction.stream_model import StreamModel, check_fits, check_pair, load_stream_model

PREDICTIONS_NAME = "predictions.jsonl"
TITLES = {
    "rgb": "Spatial stream (rgb)",
    "flow": "Temporal stream (flow)",
    "fused": "Both streams, fused",
}


def evaluate_runs(
    runs: Sequence[Path],
    dataset: Path,
    *,
    out: Path,
    checkpoint: str = "last",
    views: Views = "ten",
    batch_size: int = 4,
    workers: int | None = None,
    device: str = "auto",
    fusion: str = "default",
    take_over: bool = False,
) -> EvaluationReport:
    """Test one run, or an rgb and a flow run together, on what their split left out.

    That is its third part if it has one, else the validation part. The epoch must not have been
    chosen on the validation part: there ``last`` is honest, ``best`` flatters.

    Args:
        runs: One run folder, or two in any order.
        dataset: The dataset's folder or address.
        out: Folder for ``test.json``, ``scores.parquet``, ``predictions.jsonl`` and
            ``confusion-*.png``.
        checkpoint: ``last`` or ``best``.
        views: ``ten``, or ``original`` for the original's own sampling.
        batch_size: Sequences per batch; each has 10 views (rgb) or 50 (flow).
        workers: Loader threads; None takes the loader's default.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        fusion: Weights of two runs; see :func:`train.evaluation.fusion_choice.choose_weights`.
        take_over: See :func:`shard_builder.lock.locked`.

    Raises:
        InputError: If a run cannot be loaded, does not fit the dataset or the other run, or has
            seen a test subject in training; or if another process writes ``out``.
    """
    if len(runs) == 1 and fusion != "default":
        raise InputError(f"fusion={fusion!r}, but there is one run, expected an rgb and a flow run")
    with locked(out, take_over=take_over):
        models = [load_stream_model(run, checkpoint=checkpoint, device=device) for run in runs]
        check_pair(models)
        keys, names = models[0].test_keys or models[0].val_keys, models[0].class_names
        with open_dataset(dataset) as opened:
            opened.check_sizes()
            for model in models:
                check_fits(model, opened)
            check_unseen(models, opened, keys)
            tested = set(subjects_of(opened, keys))
            weights = choose_weights(fusion, tested_subjects=tested, class_names=names)
            scores = [
                score_sequences(
                    model, opened, keys, views=views, batch_size=batch_size, workers=workers
                )
                for model in models
            ]
        return write_evaluation(
            out,
            scores,
            dataset=opened,
            class_names=names,
            views=views,
            checkpoint=checkpoint,
            part="test" if models[0].test_keys else "val",
            weights=weights,
            origin=[model.origin() for model in models],
        )


def check_unseen(models: Sequence[StreamModel], dataset: Dataset, keys: Sequence[str]) -> None:
    """Make sure that no model was trained on a subject of ``keys``.

    The subjects come from the checkpoint and from the training sequences' rows in the dataset:
    either is enough to refuse.

    Raises:
        InputError: If one was; the message names the run and the subject.
    """
    known, tested = set(dataset.keys), set(subjects_of(dataset, keys))
    for model in models:
        trained_keys = [key for key in model.train_keys if key in known]
        seen = sorted(tested & {*model.train_subjects, *subjects_of(dataset, trained_keys)})
        if seen:
            named = ", ".join(map(clean, seen[:5])) + (
                f" and {len(seen) - 5} more" if len(seen) > 5 else ""
            )
            raise InputError(
                f"{model.run}: was trained on {len(seen)} of the"
                f" {counted(len(tested), 'test subject')} ({named}), expected none\n"
                "  Its accuracy on them says nothing about new faces."
                " Train with a subject split."
            )


def subjects_of(dataset: Dataset, keys: Sequence[str]) -> list[str]:
    """Return the subject of each sequence."""
    return [str(dataset.subjects[row]) for row in dataset.rows_of(keys)]


@torch.inference_mode()
def score_sequences(
    model: StreamModel,
    dataset: Dataset,
    keys: Sequence[str],
    *,
    views: Views,
    batch_size: int = 4,
    workers: int | None = None,
) -> StreamScores:
    """Compute the logits of every view of some sequences.

    Args:
        model: The model.
        dataset: An open dataset that fits the model.
        keys: The sequences.
        views: ``ten`` or ``original``.
        batch_size: Sequences per batch.
        workers: Loader threads; None takes the loader's default.
    """
    rows, logits = dataset.rows_of(keys), list[npt.NDArray[np.float32]]()
    with make_view_loader(
        dataset,
        model.stream,
        rows=rows,
        views=views,
        batch_size=batch_size,
        stack_length=model.stack_length,
        reading=Reading(device=model.device, num_threads=workers),
    ) as loader:
        for batch in loader:
            count, num_views = batch.images.shape[:2]
            output = model.forward(batch.images.flatten(0, 1)).cpu().numpy()
            logits.append(output.reshape(count, num_views, -1))
    return StreamScores(
        stream=model.stream,
        keys=tuple(keys),
        subjects=tuple(subjects_of(dataset, keys)),
        labels=dataset.labels[rows].astype(np.int64),
        logits=np.concatenate(logits),
    )


def write_evaluation(
    out: Path,
    scores: Sequence[StreamScores],
    *,
    dataset: Dataset,
    class_names: Sequence[str],
    views: Views,
    checkpoint: str,
    part: Part = "val",
    weights: FusionWeights = DEFAULT_WEIGHTS,
    origin: Sequence[dict[str, str]],
) -> EvaluationReport:
    """Compute the metrics of one or two streams and write the test folder, ``test.json`` last.

    Args:
        out: The folder.
        scores: Scores of one stream, or of both over the same sequences in the same order.
        dataset: The dataset that was tested on.
        class_names: Names in label order.
        views: ``ten`` or ``original``, for the record.
        checkpoint: ``last`` or ``best``, for the record.
        part: ``val`` or ``test``, for the record.
        weights: Fusion weights, for two streams.
        origin: :meth:`train.prediction.stream_model.StreamModel.origin` of each model: it proves
            later whether the test is still that of the run.
    """
    first = scores[0]
    probs = {entry.stream: entry.probs for entry in sorted(scores, key=lambda entry: entry.stream)}
    is_pair = len(scores) == 2
    if is_pair:
        probs["fused"] = late_fusion(rgb=probs["rgb"], flow=probs["flow"], weights=weights)
    predicted = {stream: values.argmax(axis=1) for stream, values in probs.items()}
    labels, subjects = first.labels, first.subjects
    report = EvaluationReport(
        class_names=tuple(class_names),
        num_subjects=len(set(subjects)) if dataset.manifest.has_subjects else None,
        views=views,
        checkpoint=checkpoint,
        part=part,
        results={
            stream: compute_metrics(labels, guess, subjects=subjects, class_names=class_names)
            for stream, guess in predicted.items()
        },
        weights=weights if is_pair else None,
        mcnemar=mcnemar_exact(labels, predicted["rgb"], predicted["flow"]) if is_pair else None,
        notices=tuple(
            f"notice: {dataset.address} is another dataset than {entry['run']} was trained on"
            for entry in origin
            if entry["manifest_sha256"] != dataset.sha256
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    for name in (TEST_NAME, *(f"confusion-{stream}.png" for stream in RESULTS)):
        if os.path.lexists(out / name):  # nothing of an earlier test stays beside this one
            (out / name).unlink()
    for stream, metrics in report.results.items():
        write_confusion_figure(out / f"confusion-{stream}.png", metrics, title=TITLES[stream])
    write_scores(out / SCORES_NAME, scores, class_names=class_names, fused=probs.get("fused"))
    _write_predictions(out / PREDICTIONS_NAME, first, probs, class_names)
    proof = {
        "manifest_sha256": dataset.sha256,
        "scores_sha256": digest_file(out / SCORES_NAME).sha256,
        "origin": list(origin),
    }
    write_json(out / TEST_NAME, report.to_record() | proof)
    return report


def _write_predictions(
    path: Path, scores: StreamScores, probs: dict[str, Probs], class_names: Sequence[str]
) -> None:
    predicted = deciding(probs).argmax(axis=1)
    lines = []
    for n, (key, label) in enumerate(zip(scores.keys, scores.labels, strict=True)):
        record = {
            "key": key,
            "subject": scores.subjects[n],
            "label": int(label),
            "emotion": class_names[label],
            "predicted": class_names[predicted[n]],
            "probs": {name: values[n].round(6).tolist() for name, values in probs.items()},
        }
        lines.append(json.dumps(record))
    write_atomically(path, ("\n".join(lines) + "\n").encode())
