"""Where a prediction is written if nobody says where: a folder of its input's name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from shard_builder.errors import InputError
from shard_builder.files import folder_inside, is_regular, open_regular
from shard_builder.untrusted.records import MOST_BYTES, parse_record, split_lines
from train.prediction.batch import list_videos
from train.prediction.frame_source import open_frames
from train.prediction.predict import PREDICTIONS_NAME

ALL = Path("prediction")


def own_folder(source: Path) -> Path:
    """Return ``prediction/NAME`` for an input: its name, or the key of a CK+ sequence.

    Predicted again, an input replaces what was predicted of it, and never what was of another.

    Raises:
        InputError: If the prediction of another input stands there, or there is nothing to predict.
    """
    name = source.resolve().name if list_videos(source) else open_frames(source).name
    folder, own = folder_inside(ALL, name), os.path.realpath(source)
    for lines in sorted(folder.rglob(PREDICTIONS_NAME)):
        path = _path_of(lines)
        if path and path != own and Path(own) not in Path(path).parents:
            raise InputError(
                f"{folder}: holds the prediction of {path}, not of {own}\n"
                "  Choose another folder with out=..."
            )
    return folder


def _path_of(lines: Path) -> str:
    """Read which input a file of predictions is of; empty if it was not finished."""
    if not is_regular(lines):
        return ""
    with open_regular(lines) as file:
        file.seek(max(os.fstat(file.fileno()).st_size - MOST_BYTES, 0))
        whole, _torn = split_lines(file.read(MOST_BYTES))
    try:
        clip = parse_record(whole[-1] if whole else b"", dict[str, Any], place=str(lines))
    except InputError:
        return ""
    return str(clip.get("path", ""))
