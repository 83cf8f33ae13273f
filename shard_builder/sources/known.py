"""Known sets by how their files are named, and the options that read them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shard_builder.errors import SourceError, counted
from shard_builder.sources.walk import is_image, relative_name, source_name, walk_files
from shard_builder.videos import is_video

WAYS_IN = (
    "Three ways in: a CK+ release (S005/001/S005_001_00000001.png ...) or a prepared tree as it is;"
    " --layout with a template of the paths, such as '{subject}/{label}/*.mp4' or"
    " '{label}/{subject}_*/img_{frame}.jpg'; or a table of clips: ckshard build TABLE.csv DATASET"
    " (columns path, label, subject). See docs/datasets.md."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSet:
    """A set, how the path of one of its files ends, and the options that read it.

    Args:
        name: What it is called.
        path: Regular expression of the end of such a path.
        options: Options for ``ckshard build SRC DATASET``; SRC is the folder that the layout's
            first part lies in.
    """

    name: str
    path: str
    options: str


KNOWN_SETS = (
    KnownSet(
        name="CK+48",
        path=r"\w+/S\d{3}_\d{3}_\d{8}\.png",
        options="--layout '**/{label}/{subject}_*_*.png'",
    ),
    KnownSet(
        name="RAVDESS",
        path=r"Actor_\d\d/\d\d(-\d\d){6}\.mp4",
        options=(
            "--layout '**/Actor_{subject}/02-*-{label}-*-*-*-*.mp4' --classes '01=neutral,02=calm,"
            "03=happy,04=sad,05=angry,06=fearful,07=disgust,08=surprised'"
        ),
    ),
    KnownSet(
        name="CREMA-D",
        path=r"\d{4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{2}\.(flv|mp4)",
        options="--layout '**/{subject}_*_{label}_*.flv'",
    ),
    KnownSet(
        name="Oulu-CASIA",
        path=r"(Strong|Weak|Dark)/P\d{3}/[A-Z][a-z]+/\d{3}\.jpeg",
        options="--layout '**/VL/{light}/{subject}/{label}/{frame}.jpeg'",
    ),
    KnownSet(
        name="CASME II",
        path=r"sub\d\d/EP\d\d_\w+/(reg_)?img\d+\.jpg",
        options=(
            "--layout '**/sub{subject}/{clip}/*{frame}.jpg' --labels CODING.csv --columns"
            " 'label=Estimated Emotion,onset=OnsetFrame,apex=ApexFrame,offset=OffsetFrame'"
        ),
    ),
    KnownSet(
        name="SMIC",
        path=r"s\d+/micro/\w+/\w+/\w*\d+\.bmp",
        options="--layout '**/{subject}/micro/{label}/{clip}/*{frame}.bmp'",
    ),
    KnownSet(
        name="MEAD",
        path=r"[MW]\d{3}/video/\w+/\w+/level_\d/\d+\.mp4",
        options="--layout '**/{subject}/video/front/{label}/{level}/*.mp4'",
    ),
    KnownSet(
        name="eNTERFACE'05",
        path=r"subject \d+/\w+/(sentence \d/)?\w+\.avi",
        options="--layout '**/subject {subject}/{label}/**/*.avi'",
    ),
    KnownSet(
        name="MMI",
        path=r"Sessions/\d+/S\d+-\d+\.avi",
        options="a table, because its labels are in each session's XML",
    ),
    KnownSet(
        name="AFEW",
        path=r"(Train|Val|Test)\w*/\w+/\d{9}\.avi",
        options="--layout '{fold}_AFEW/{label}/*.avi' --no-subjects",
    ),
    KnownSet(
        name="DFEW",
        path=r"(\d{5})/\2_\d{5}\.jpg",
        options=(
            "--layout '**/{clip}/*_{frame}.jpg' --labels '.../single_testset_{fold}.csv'"
            " --no-subjects"
        ),
    ),
    KnownSet(
        name="RAF-DB",
        path=r"(train|test)_\d{5}(_aligned)?\.jpg",
        options=(
            "--layout '**/{fold}_{number}_aligned.jpg' --labels EmoLabel/list_patition_label.txt"
            " --match '{fold}_{number}' --no-subjects"
        ),
    ),
    KnownSet(
        name="FERV39k",
        path=r"\w+/(Angry|Disgust|Fear|Happy|Neutral|Sad|Surprise)/\d{4}/\w+\.jpg",
        options="--layout '**/{scene}/{label}/{clip}' --labels '{fold}_All.csv' --no-subjects",
    ),
    KnownSet(
        name="JAFFE",
        path=r"[A-Z]{2}\.[A-Z]{2}\d\.\d+\.tiff",
        options="--layout '**/{subject}.{label}?.*.tiff'",
    ),
    KnownSet(
        name="mmaction2 rawframes",
        path=r"\w+/[^/]+/img_\d{5}\.jpg",
        options="--layout '**/{label}/{clip}/img_{frame}.jpg' --labels '{fold}_rawframes.txt'",
    ),
)
"""In this order: a path may look like those of several sets."""


def resembles(name: str) -> KnownSet | None:
    """Return the known set whose files are named like this path below a source."""
    return next((known for known in KNOWN_SETS if re.search(rf"(^|/){known.path}$", name)), None)


def hint(name: str, others: Iterable[str] = ()) -> str:
    """Return what a message says of a path below a source: the known set, how it is read; where a
    list lies stands in it if it is among the other paths.
    """
    if not (known := resembles(name)):
        return ""
    options = known.options
    if shortened := re.search(r"'\.\.\./([^']+)'", options):
        file = re.escape(shortened[1]).replace(r"\{fold\}", "[^/]+")
        lists = (re.fullmatch(rf"(.*/)?{file}", other) for other in others)
        if found := next(filter(None, lists), None):
            options = options.replace(".../", found[1] or "")
    return f"; this resembles {known.name}: {options}"


def nothing_found(root: Path, *, tried: str) -> SourceError:
    """Return the error that says what is there and which ways in exist.

    Args:
        root: The source.
        tried: What no file did: ``match --layout '...'``.
    """
    paths = list(walk_files(root))
    images, videos = ([path for path in paths if fits(path)] for fits in (is_image, is_video))
    first = min([*images[:1], *videos[:1]], default=None)
    text = f"{root}: no file or folder could {tried}; there are {counted(len(images), 'image')} and"
    text += f" {counted(len(videos), 'video')}"
    if first is None:
        return SourceError(f"{text}\n  {WAYS_IN}")
    text += f", the first is {source_name(first, root)}"
    text += hint(relative_name(first, root), (relative_name(path, root) for path in paths))
    return SourceError(f"{text}\n  {WAYS_IN}")
