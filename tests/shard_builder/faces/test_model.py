"""Where the face detector's model comes from: named, cached, or fetched once and checked."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from shard_builder.errors import InputError
from shard_builder.faces import model, trial
from shard_builder.faces.detector import FaceDetector
from shard_builder.faces.model import FaceModel, load_face_model

CONTENT = b"as if it were a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no model named by the environment."""
    monkeypatch.delenv(model.MODEL_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ckshard"


class Zoo(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, *words: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A server that has the model where the address says."""
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / model.MODEL_NAME).write_bytes(CONTENT)
    Zoo.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Zoo, directory=tmp_path / "zoo"))
    address = f"http://127.0.0.1:{server.server_port}/{model.MODEL_NAME}"
    monkeypatch.setattr(model, "MODEL_URL", address)
    monkeypatch.setattr(model, "MODEL_SHA256", SHA256)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_is_fetched_once_and_checked(zoo: ThreadingHTTPServer, cache: Path) -> None:
    for _ in range(2):
        loaded = load_face_model()
        assert (loaded.data, loaded.sha256) == (CONTENT, SHA256)
        assert loaded.path == str(cache / model.MODEL_NAME)
    assert len(Zoo.asked) == 1
    (cache / model.MODEL_NAME).write_bytes(b"half of it")
    assert load_face_model().data == CONTENT and len(Zoo.asked) == 2, "a damaged one is replaced"


def test_another_file_than_the_known_one_is_not_used(
    zoo: ThreadingHTTPServer, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "zoo" / model.MODEL_NAME).write_bytes(b"another")
    with pytest.raises(InputError, match="what came has another hash"):
        load_face_model()
    assert not (cache / model.MODEL_NAME).exists()


def test_without_a_network_one_error_says_what_to_fetch(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(model, "MODEL_URL", f"http://127.0.0.1:{port}/{model.MODEL_NAME}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(InputError, match="cannot be fetched") as refused:
        load_face_model()
    for word in (model.MODEL_NAME, "229738 bytes", model.MODEL_SHA256, "face_model=", str(cache)):
        assert word in str(refused.value)


def test_a_file_that_is_named_wins_whatever_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("option", "variable"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "option")
    monkeypatch.setenv(model.MODEL_VARIABLE, str(tmp_path / "variable"))
    assert load_face_model(tmp_path / "link").data == b"option"
    assert load_face_model().data == b"variable"
    monkeypatch.setenv(model.MODEL_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match=rf"none: is missing.*{model.MODEL_VARIABLE}.*sha256"):
        load_face_model()


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="Git LFS pointer"):
        load_face_model(tmp_path / "pointer")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="loop: is a link"):
        load_face_model(tmp_path / "loop")
    for data in (b"", b"hello" * 99):
        with pytest.raises(InputError, match=r"yu\.onnx: OpenCV .* cannot use it"):
            FaceDetector(FaceModel(path="yu.onnx", sha256="", data=data))


def test_a_model_that_opencv_dies_of_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = FaceModel(path="yu.onnx", sha256="", data=b"hello")
    with pytest.raises(InputError, match=r"yu\.onnx: OpenCV .* cannot use it"):
        trial.try_face_model(strange)
    monkeypatch.setattr(trial, "PROGRAM", "import sys; sys.exit(sys.stdin.read() != 'hello')")
    trial.try_face_model(strange)
    monkeypatch.setattr(trial, "PROGRAM", "import os; os.abort()")
    with pytest.raises(InputError, match=r"yu\.onnx: OpenCV .* cannot use it"):
        trial.try_face_model(strange)
    trial.try_face_model(FaceModel(path="", sha256=model.MODEL_SHA256, data=b""))  # is known
