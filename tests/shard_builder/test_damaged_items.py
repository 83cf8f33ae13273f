"""One bad item is that item's fault, no other's: clips cut short, clips too small for the flow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shard_builder.building.build import build_dataset
from shard_builder.building.options import BuildOptions
from shard_builder.errors import SourceError
from shard_builder.sources.detect import scan_source
from shard_builder.sources.options import ScanOptions
from tests.mp4 import cut, write_mp4


def build(src: Path, out: Path, *, on_error: str, **options: object) -> list[dict[str, str]]:
    scan = ScanOptions(on_error=on_error, no_subjects=True)  # type: ignore[arg-type]
    chosen = BuildOptions(flow_method="dis", on_error=on_error, **options)  # type: ignore[arg-type]
    build_dataset(scan_source(src, scan), src, out, chosen, workers=1)
    lines = (out / "skipped.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for label in ("anger", "joy"):
        (tmp_path / "src" / label).mkdir(parents=True)
        write_mp4(tmp_path / "src" / label / "S1.mp4", num_frames=12)
    return tmp_path / "src"


def test_a_video_that_ends_early_is_a_fault_that_can_be_skipped(
    clips: Path, tmp_path: Path
) -> None:
    write_mp4(clips / "joy" / "S2.mp4", num_frames=100)
    cut(clips / "joy" / "S2.mp4", 1 / 3)
    with pytest.raises(SourceError, match=r"S2\.mp4: cut short: \d\d frames .* 100 in its header"):
        build(clips, tmp_path / "strict", on_error="raise")
    skipped = build(clips, tmp_path / "dataset", on_error="skip")
    assert len(skipped) == 1 and "cut short" in skipped[0]["reason"]


def test_an_error_of_a_library_is_that_clips_fault(clips: Path, tmp_path: Path) -> None:
    write_mp4(clips / "joy" / "S3.mp4", num_frames=6, size=(40, 12))
    with pytest.raises(SourceError, match=r"S3\.mp4.*flow_method='dis'.*40x12 pixels"):
        build(clips, tmp_path / "strict", on_error="raise")
    skipped = build(clips, tmp_path / "dataset", on_error="skip")
    assert len(skipped) == 1 and "S3" in skipped[0]["path"]


def test_a_long_clip_is_encoded_as_it_is_read(clips: Path) -> None:
    import tracemalloc

    from shard_builder.building.encode import SequenceEncoder

    clip = clips / "joy" / "S1.mp4"
    peaks = []
    for num_frames in (20, 120):
        write_mp4(clip, num_frames=num_frames)
        scan = ScanOptions(no_subjects=True)
        sequence = next(s for s in scan_source(clips, scan).sequences if s.emotion == "joy")
        encoder = SequenceEncoder(BuildOptions(codec="jpg", flow_method="dis"))
        tracemalloc.start()
        encoder.encode(sequence)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 100 < 100_000, "bytes for each further frame"
