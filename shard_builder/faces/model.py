"""The face detector's model: a file that is named, or OpenCV's own, fetched once and checked."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from shard_builder.errors import InputError
from shard_builder.files import read_regular

MODEL_VARIABLE = "CKSHARD_FACE_MODEL"
MODEL_NAME, MODEL_BYTES = "face_detection_yunet_2026may.onnx", 229_738
MODEL_SHA256 = "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"
WANTED = f"{MODEL_NAME} ({MODEL_BYTES} bytes, sha256 {MODEL_SHA256})"
MODEL_URL = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/"
    f"47534e27c9851bb1128ccc0102f1145e27f23f98/models/face_detection_yunet/{MODEL_NAME}"
)
"""YuNet of OpenCV's model zoo (Wu et al. 2023; MIT licence), at one commit of it."""
TIMEOUT_S = 10
MOST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceModel:
    """A model as it was read: what is hashed is what is used, on whatever host.

    Args:
        path: Where it was read.
        sha256: Of its bytes.
        data: The ONNX file's bytes.
    """

    path: str
    sha256: str
    data: bytes = field(repr=False)


def load_face_model(path: Path | str | None = None) -> FaceModel:
    """Read a face model.

    Args:
        path: The file. None or an empty text: the one that the environment variable
            ``CKSHARD_FACE_MODEL`` names, else the one in the user's cache folder, else OpenCV's,
            which is fetched into it. The last two must have the SHA-256 that is known.

    Raises:
        InputError: If there is none, or it cannot be read.
    """
    named = path or os.environ.get(MODEL_VARIABLE)
    if not named:
        return _default_model()
    file = Path(named)
    try:  # a link that is named is followed
        data = read_regular(Path(os.path.realpath(named)), most_bytes=MOST_BYTES)
    except InputError as error:
        by = "face_model" if path else MODEL_VARIABLE
        raise InputError(f"{error}, expected the face model that {by} names: {WANTED}") from None
    if data.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{file}: is a Git LFS pointer of {len(data)} bytes, expected the model itself:"
            f" {WANTED}\n  Fetch it with git lfs pull."
        )
    return FaceModel(path=str(file), sha256=hashlib.sha256(data).hexdigest(), data=data)


def _default_model() -> FaceModel:
    """Read OpenCV's model from the cache folder; fetch it if it is not there, or is another."""
    import pooch  # here: nothing but this needs it

    pooch.get_logger().setLevel(logging.ERROR)
    folder = Path(pooch.os_cache("ckshard"))
    try:
        pooch.retrieve(
            MODEL_URL,
            known_hash=f"sha256:{MODEL_SHA256}",
            fname=MODEL_NAME,
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S),
        )
        data = read_regular(folder / MODEL_NAME, most_bytes=MOST_BYTES)
    except (OSError, ValueError) as error:  # what requests raises is an OSError
        reason = "what came has another hash" if _is_hash_fault(error) else type(error).__name__
        raise InputError(
            f"face model {WANTED} is not in {folder} and cannot be fetched ({reason}) from"
            f" {MODEL_URL}\n"
            f"  Fetch it elsewhere, and put it there, or name it by face_model=FILE or"
            f" {MODEL_VARIABLE}."
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != MODEL_SHA256:
        raise InputError(
            f"{folder / MODEL_NAME}: sha256 {sha256}, expected {MODEL_SHA256}\n  Remove it."
        )
    return FaceModel(path=str(folder / MODEL_NAME), sha256=sha256, data=data)


def _is_hash_fault(error: Exception) -> bool:
    return type(error) is ValueError and "hash" in str(error)
