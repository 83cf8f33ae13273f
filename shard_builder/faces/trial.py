"""A face model tried in a process of its own: OpenCV dies of some that are not as it expects."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np

from shard_builder.faces.detector import SIDES_PX, FaceDetector, not_usable
from shard_builder.faces.model import MODEL_SHA256, FaceModel

PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from shard_builder.faces.trial import _try; _try()"
)
MOST_CPU_S, MOST_MEMORY_BYTES = 20, 1 << 31


def try_face_model(model: FaceModel) -> None:
    """Make sure that OpenCV can use a model and survives it; its own one is known to be good.

    Raises:
        InputError: If it cannot, dies of it, or needs over 20 s of processor time or 2 GiB.
    """
    if model.sha256 == MODEL_SHA256:
        return
    # Not by multiprocessing, which would run a user's script anew; -I: nothing of this folder.
    command = [sys.executable, "-I", "-c", PROGRAM, *filter(None, sys.path)]
    nowhere, one_thread = subprocess.DEVNULL, os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, input=model.data, stdout=nowhere, stderr=nowhere, env=one_thread)
    if done.returncode:
        raise not_usable(model)


def _try() -> None:
    try:
        import resource
    except ImportError:  # Windows
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    cv2.setNumThreads(1)  # a thread's stack counts as well
    detector = FaceDetector(FaceModel(path="", sha256="", data=sys.stdin.buffer.read()))
    noise = np.random.default_rng(0)
    for side in SIDES_PX:
        detector.detect_at(noise.integers(0, 256, (side, side, 3), np.uint8), side)
