"""A CK+-shaped release of drawn faces with known motion, for those who do not have CK+.

A subject's identity (face, skin, hair, light, background, place in the picture) decides most of the
pixels; only the motion and the shape of the peak frame tell the class. Everything follows from
(seed, subject, sequence).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from shard_builder.checks import check_choice
from shard_builder.errors import InputError
from shard_builder.files import temporary_folder
from shard_builder.lock import locked
from shard_builder.machine import num_workers, run_in_processes
from shard_builder.sources.sequence import CKPLUS_EMOTIONS
from shard_builder.synth.face import Face, draw_face
from shard_builder.synth.motion import Motion, make_motion
from shard_builder.synth.options import MIN_FRAMES, ReleaseOptions
from shard_builder.synth.quirks import FAULTS, add_quirks, break_release

IMAGES = Path("extended-cohn-kanade-images/cohn-kanade-images")
LABELS = Path("Emotion_labels/Emotion")
LANDMARKS = Path("Landmarks/Landmarks")
COLOR_EVERY = 8
"""Every eighth subject is recorded in colour at 640x480, as CK+'s late subjects are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSummary:
    """What was written."""

    num_subjects: int
    num_sequences: int
    num_frames: int


def write_release(
    out: Path,
    options: ReleaseOptions,
    *,
    workers: int = 1,
    overwrite: bool = False,
    take_over: bool = False,
    quirks: bool = False,
    broken: str = "",
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ReleaseSummary:
    """Write a release in CK+'s own layout: images, emotion labels 1..7 and landmarks.

    It is written beside ``out`` and renamed when whole.

    Args:
        out: Where to.
        options: What to draw.
        workers: Processes; 0 takes all cores.
        overwrite: Whether ``out`` may be replaced.
        take_over: See :func:`shard_builder.lock.locked`.
        quirks: Make it as untidy as copies in the wild.
        broken: Name of a fault to put into its first sequence.
        on_progress: Called with (subjects done, subjects in all).

    Raises:
        InputError: If ``out`` is not empty and not to be overwritten, another process writes it, or
            the fault is unknown.
    """
    if broken:
        check_choice("broken", broken, FAULTS)
    workers = num_workers(workers)
    with locked(out, take_over=take_over):
        if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
            raise InputError(
                f"{out}: exists, expected a new folder\n"
                "  Choose another OUT, or replace it with overwrite=True."
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        lengths = []
        with temporary_folder(out.parent, out.name) as scratch:
            drawn = scratch / "release"
            drawn.mkdir()
            for subject_lengths in _write_subjects(drawn, options, workers):
                lengths.append(subject_lengths)
                on_progress(len(lengths), options.num_subjects)
            if broken:
                break_release(broken, drawn / IMAGES, drawn / LABELS)
            if quirks:
                add_quirks(drawn / IMAGES, drawn / LABELS)
            if out.exists():
                shutil.rmtree(out)
            drawn.replace(out)
    return ReleaseSummary(
        num_subjects=options.num_subjects,
        num_sequences=sum(map(len, lengths)),
        num_frames=sum(map(sum, lengths)),
    )


def _write_subjects(root: Path, options: ReleaseOptions, workers: int) -> Iterator[list[int]]:
    """Write all subjects in processes; yield their sequences' lengths in frames."""
    write = partial(write_subject, root, options)
    numbers = list(range(options.num_subjects))
    kept = "Nothing is kept."
    with closing(run_in_processes(write, numbers, workers=workers, kept=kept)) as finished:
        yield from finished


def subject_name(number: int, options: ReleaseOptions) -> str:
    """Return CK+-like ids: S005, S006, ...; the colour subjects are S501, S502, ..."""
    if options.num_subjects >= 480:  # S005... would run into S501
        return f"S{number:03d}"
    return f"S{501 + number // COLOR_EVERY}" if is_color(number) else f"S{5 + number:03d}"


def is_color(number: int) -> bool:
    """Tell whether a subject is recorded in colour."""
    return number % COLOR_EVERY == COLOR_EVERY - 1


def draw_subject(number: int, options: ReleaseOptions) -> Face:
    """Draw the neutral face of subject ``number``, gray (three equal channels) or in colour."""
    height = round((480 if is_color(number) else 490) * options.image_scale)
    width = round(640 * options.image_scale)
    face = draw_face(_generator(options.seed, number), height=height, width=width)
    if is_color(number):
        return face
    gray = cv2.cvtColor(face.image, cv2.COLOR_RGB2GRAY)
    return replace(face, image=np.repeat(gray[..., None], 3, axis=2))


def draw_sequence(
    face: Face, number: int, code: int, options: ReleaseOptions
) -> tuple[Motion, np.random.Generator]:
    """Draw a subject's motion of class ``code`` (1..7); also return its noise generator."""
    generator = _generator(options.seed, number, code)
    length = round(generator.lognormal(np.log(16), 0.42))
    num_frames = int(np.clip(length, MIN_FRAMES, options.max_frames))
    emotion = CKPLUS_EMOTIONS[code]
    return make_motion(face, emotion, num_frames=num_frames, generator=generator), generator


def write_subject(root: Path, options: ReleaseOptions, number: int) -> list[int]:
    """Write the seven sequences of one subject; return their lengths in frames."""
    cv2.setNumThreads(1)
    face, subject = draw_subject(number, options), subject_name(number, options)
    codes = _generator(options.seed, number, 0).permutation(np.arange(1, 8))
    lengths = []
    for session, code in enumerate(map(int, codes), start=1):
        motion, generator = draw_sequence(face, number, code, options)
        stem = f"{subject}_{session:03d}"
        write_sequence(root, stem, code, motion, generator, color=is_color(number))
        lengths.append(len(motion.course))
    return lengths


def write_sequence(
    root: Path, stem: str, code: int, motion: Motion, generator: np.random.Generator, *, color: bool
) -> None:
    """Write one sequence: its frames, their landmarks, and the label of the last frame."""
    images, labels, landmarks = (
        root / kind / Path(*stem.split("_")) for kind in (IMAGES, LABELS, LANDMARKS)
    )
    for folder in (images, labels, landmarks):
        folder.mkdir(parents=True)
    num_frames = len(motion.course)
    for index in range(num_frames):
        frame = motion.render(index, generator)
        image = frame[..., ::-1] if color else frame[..., 0]
        path = images / f"{stem}_{index + 1:08d}.png"
        png = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        if not cv2.imwrite(str(path), np.ascontiguousarray(image), png):
            raise OSError(f"{path}: cannot be written")
        lines = "".join(f"   {x:.7e}   {y:.7e}\n" for x, y in motion.landmarks(index))
        (landmarks / f"{stem}_{index + 1:08d}_landmarks.txt").write_text(lines)
    (labels / f"{stem}_{num_frames:08d}_emotion.txt").write_text(f"   {code:.7e}\n")


def _generator(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
