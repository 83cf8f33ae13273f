"""The tables of ``bench/gpu.sh``, from its record alone, and that of ``cktrain bench``."""

from __future__ import annotations

from bench.harness import Record, cores_of, low_to_high, markdown_table
from bench.loaders.report import loader_blocks

MAX_REASON_CHARS = 200


def gpu_blocks(record: Record) -> dict[str, str]:
    """Write the Markdown of a record: the block ``gpu``, what it was run on and its tables."""
    machine, versions = record["machine"], record["versions"]
    names = {"torch": "torch", "cuda": "CUDA", "nvidia-dali-cuda120": "DALI", "python": "Python"}
    known = ", ".join(f"{name} {versions[key]}" for key, name in names.items() if versions.get(key))
    driver = f" (driver {record['driver']})" if record["driver"] else ""
    caption = (
        f"`{record['command']}`, {record['seconds']:.0f} s on {machine['gpu'] or 'the CPU alone'}"
        f"{driver},\n{cores_of(record)}; {known},\nrevision {record['revision'] or 'unknown'}:"
    )
    steps = [
        f"{step['name']} | {'ok' if step['ok'] else 'failed'} | {step['seconds']:.0f}"
        f" | {last_lines(step['end'], 1 if step['ok'] else 3)}"
        for step in record["steps"]
    ]
    tables = [loader_blocks(loaders)["loaders"] for loaders in record["loaders"]]
    tables += [training_table(bench) for bench in record["training"]]
    tables += [waits_table(waits) for waits in record["waits"]]
    tables += [markdown_table("step | | s | its last words", steps)]
    return {"gpu": "\n\n".join([caption, *tables])}


def training_table(record: Record) -> str:
    """Show the stall test: samples per second, and each case's ratio to two others."""
    medians = {r["case"]["name"]: r["median_samples_per_s"] for r in record["results"]}
    plain, rows = medians.get("synthetic, fp32 NCHW"), []
    for result in record["results"]:
        case, speeds = result["case"], result["samples_per_s"]
        median, layout = medians[case["name"]], "channels_last" if case["channels_last"] else "NCHW"
        rows.append(
            f"{case['name']} | {case['precision']} | {layout} | {median:,.2f}"
            f" | {min(speeds):,.2f} - {max(speeds):,.2f} | {result['median_data_wait_pct']:.2f} %"
            f" | {median / medians['synthetic']:.3f} | {f'{median / plain:.2f}' if plain else ''}"
        )
    batch = f"{record['batch_size']}"
    batch += f" x {record['iter_size']}" if record["version"] > 1 else ""
    header = "batches | precision | layout | samples/s | range | data wait"
    return (
        f"{record['arch']}, {record['stream']} stream, batch {batch},"
        f" {record['codec']}; {record['device_name']}, {record['num_cores']} cores, medians of"
        f" {len(speeds)} interleaved repeats:\n\n"
        f"{markdown_table(f'{header} | x synthetic | x fp32 NCHW', rows)}"
    )


def waits_table(records: list[Record]) -> str:
    """Show what a simulated device waits: in one long epoch, and at the borders of short ones."""
    first, rows = records[0], []
    for record in records:
        names = ("long_wait_pct", "short_wait_pct", "border_points", "first_batch_ms")
        cells = [f"{record[n]['median']:.2f} ({low_to_high(record[n], 2)})" for n in names]
        rows.append(" | ".join([record["name"], record["codec"], *cells]))
    header = f"loader | codec | % of a long epoch | % of epochs of {first['epoch_samples']}"
    return (
        f"Waits of a simulated device that takes {first['consumer_ms']:g} ms a batch of"
        f" {first['batch_size']} {first['dtype']}:\n\n"
        f"{markdown_table(f'{header} | points more | first batch, ms', rows)}"
    )


def last_lines(text: str, num_lines: int) -> str:
    """Return the last lines of an output in one table cell."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cell = "; ".join(lines[-num_lines:]).replace("|", "/")
    return cell if len(cell) <= MAX_REASON_CHARS else f"...{cell[-MAX_REASON_CHARS:]}"
