"""Videos are opened in one place: local files of known containers, whatever they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from shard_builder.errors import SourceError
from shard_builder.faces.frames import iter_video
from shard_builder.videos import CAPTURE_OPTIONS, VIDEO_SUFFIXES, open_video

CODECS = {
    ".mp4": "mp4v",
    ".mov": "mp4v",
    ".m4v": "mp4v",
    ".3gp": "mp4v",
    ".avi": "MJPG",
    ".mkv": "MJPG",
    ".webm": "VP80",
    ".flv": "FLV1",
    ".mpg": "MPG1",
    ".mpeg": "MPG1",
    ".ts": "MPG2",
    ".wmv": "WMV2",
}


def write_video(path: Path, *, num_frames: int = 12, suffix: str = "") -> Path:
    plain = path.parent / f"plain{suffix or path.suffix}"
    fourcc = cv2.VideoWriter.fourcc(*CODECS[suffix or path.suffix])
    writer = cv2.VideoWriter(str(plain), cv2.CAP_FFMPEG, fourcc, 25.0, (64, 48))
    assert writer.isOpened()
    for number in range(num_frames):
        writer.write(np.full((48, 64, 3), 20 + 15 * number, np.uint8))
    writer.release()
    shutil.move(plain, path)
    return path


def levels(path: Path) -> list[int]:
    return [round((float(frame.mean()) - 20) / 15) for frame in iter_video(path)]


@pytest.mark.parametrize("suffix", list(CODECS))
def test_every_container_is_read_whole_and_in_order(suffix: str, tmp_path: Path) -> None:
    assert suffix in VIDEO_SUFFIXES
    assert levels(write_video(tmp_path / f"clip{suffix}")) == list(range(12))


@pytest.mark.parametrize(
    "name",
    [
        b"caf\xe9.mp4",
        b"take:1.mkv",
        b"http:__x.mp4",
        b"concat:a|b.avi",
        b"%03d.mp4",
        b"-i.avi",
        "笑 顔.webm".encode(),
        b"a\nb.mp4",
    ],
)
def test_any_name_works_also_relative(
    name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / os.fsdecode(name))
    assert levels(path) == list(range(12))
    monkeypatch.chdir(tmp_path)
    assert levels(Path(os.fsdecode(name))) == list(range(12))


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.mkv\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "no video",
        "",
        "RIFF",
    ],
)
def test_a_text_that_makes_ffmpeg_open_other_files_is_no_video(text: str, tmp_path: Path) -> None:
    write_video(tmp_path / "secret.mkv")
    write_video(tmp_path / "secret.ts")
    path = tmp_path / "clip.mp4"
    path.write_text(text)
    words = r"clip\.mp4: (cannot be opened as|is empty, expected) a video"
    with pytest.raises(SourceError, match=words):
        list(iter_video(path))


def test_the_container_must_be_the_one_that_the_file_begins_as(tmp_path: Path) -> None:
    """Even where the first bytes lie, FFmpeg may not take the file for a playlist."""
    write_video(tmp_path / "secret.mkv")
    path = tmp_path / "clip.avi"
    path.write_bytes(b"RIFF\0\0\0\0AVI LIST" + b"\nffconcat version 1.0\nfile secret.mkv\n")
    with pytest.raises(SourceError, match=r"clip\.avi"):
        list(iter_video(path))


def test_special_and_missing_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe.mp4", "folder.mp4", "nowhere.mp4"):
        with pytest.raises(SourceError, match=name), open_video(tmp_path / name):
            pytest.fail("opened")


def test_the_environment_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4")
    with open_video(path):
        assert CAPTURE_OPTIONS not in os.environ
    monkeypatch.setenv(CAPTURE_OPTIONS, "rtsp_transport;tcp")
    with open_video(path):
        assert os.environ[CAPTURE_OPTIONS] == "rtsp_transport;tcp"


def test_nothing_of_a_damaged_video_reaches_the_terminal(tmp_path: Path) -> None:
    for suffix in (".mp4", ".avi", ".mkv"):
        data = bytearray(write_video(tmp_path / f"clip{suffix}").read_bytes())
        for index in range(500, len(data), 97):
            data[index] ^= 0x55
        (tmp_path / f"clip{suffix}").write_bytes(data)
        (tmp_path / f"cut{suffix}").write_bytes(bytes(data[: len(data) // 3]))
    program = (
        "import sys, pathlib\nfrom shard_builder.faces.frames import iter_video\n"
        "from shard_builder.errors import SourceError\n"
        "for name in sys.argv[1:]:\n"
        "    try: list(iter_video(pathlib.Path(name)))\n"
        "    except SourceError: pass\n"
    )
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
