"""The table of ``bench/gpu.sh``, from its record alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

REASON_CHARS = 200


def gpu_blocks(record: dict[str, Any]) -> dict[str, str]:
    """Write the Markdown of a record of ``bench/gpu.sh``: the block ``gpu``, one table below a
    sentence of what it was measured on.
    """
    rows = [
        *_loader_rows(record["loaders"] or {}),
        *_training_rows(record["training"]),
        *_step_rows(record),
    ]
    lines = [
        _sentence(record),
        "",
        "| what | how | samples/s | range | ratio |",
        "|---|---|---|---|---|",
    ]
    return {"gpu": "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])}


def _sentence(record: dict[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    driver = f" (driver {record['driver']})" if record["driver"] else ""
    names = {"torch": "torch", "cuda": "CUDA", "nvidia-dali-cuda120": "DALI", "python": "Python"}
    found = ", ".join(f"{name} {versions[key]}" for key, name in names.items() if versions.get(key))
    where = (
        f"{machine['gpu'] or 'the CPU alone'}{driver}, {machine['usable_cores']} cores of"
        f" {machine['processor']}"
    )
    return (
        f"`{record['command']}`, {record['seconds']:.0f} s on {where},\n{found}, revision"
        f" {record['revision'] or 'unknown'}. Medians of interleaved repeats; the ratio of a"
        " loader\nis to the original's way, a DataLoader over the PNG tree, and that of training"
        " to synthetic batches of the same run:"
    )


def _loader_rows(loaders: dict[str, Any]) -> Iterator[Sequence[str]]:
    """Yield a row for each loader, and for each peer that was left out."""
    entries = loaders.get("records", [])
    tree = next(
        (entry["samples_per_s"]["median"] for entry in entries if entry["engine"] == "png-tree"),
        None,
    )
    for entry in entries:
        speed = entry["samples_per_s"]
        how = (
            f"{entry['dtype']}, batch {entry['batch_size']}, {entry['threads']} threads or"
            " processes"
        )
        ratio = f"{speed['median'] / tree:.2f}" if tree else "-"
        yield (
            f"load {entry['stream']}: {entry['name']}",
            how,
            f"{speed['median']:,.0f}",
            f"{speed['min']:,.0f} - {speed['max']:,.0f}",
            ratio,
        )
    for entry in loaders.get("skipped", []):
        yield (
            f"load flow: {entry['name']}",
            f"left out: {short_reason(entry['reason'])}",
            "-",
            "-",
            "-",
        )


def _training_rows(training: Sequence[dict[str, Any]]) -> Iterator[Sequence[str]]:
    """Yield a row for each case of each run of ``cktrain bench``."""
    for bench in training:
        medians = {
            result["case"]["name"]: result["median_samples_per_s"] for result in bench["results"]
        }
        for result in bench["results"]:
            case, speeds = result["case"], result["samples_per_s"]
            layout = "channels_last" if case["channels_last"] else "NCHW"
            yield (
                f"train {bench['arch']} {bench['stream']}, {bench['codec']}: {case['name']}",
                (
                    f"{case['precision']}, {layout}, batch {bench['batch_size']}, data wait"
                    f" {result['median_data_wait_pct']:.2f} %"
                ),
                f"{result['median_samples_per_s']:,.1f}",
                f"{min(speeds):,.1f} - {max(speeds):,.1f}",
                (
                    f"{result['median_samples_per_s'] / medians['synthetic']:.3f}"
                    if "synthetic" in medians
                    else "-"
                ),
            )


def _step_rows(record: dict[str, Any]) -> Iterator[Sequence[str]]:
    """Yield a row for each step: how long it took, what the tests gave, or why it is missing."""
    for step in record["steps"]:
        how = f"{step['seconds']:.0f} s" if step["ok"] else short_reason(step["reason"])
        if step["name"] == "tests" and record["tests"]:
            how = (
                ", ".join(f"{number} {name}" for name, number in record["tests"].items())
                + f"; {how}"
            )
        yield (
            f"step {step['name']}",
            how if step["ok"] or how.startswith("not run") else f"failed: {how}",
            "-",
            "-",
            "-",
        )


def short_reason(reason: str) -> str:
    r"""Return the last lines of a reason in one table cell.

    >>> short_reason("Traceback ...\n\n  line\nValueError: a | b\nexit status 1")
    'line; ValueError: a / b; exit status 1'
    """
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    text = "; ".join(lines[-3:]).replace("|", "/")
    return text if len(text) <= REASON_CHARS else f"...{text[-REASON_CHARS:]}"
