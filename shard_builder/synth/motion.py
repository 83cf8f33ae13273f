"""Move a neutral face: displacements of 68 landmarks, spread to a field, over time, with drift."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from shard_builder.synth.face import Face, FloatImage, Points

NUM_LANDMARKS = 68
SPREAD = 0.17
"""Reach of a landmark's motion, in half face widths."""
NOISE_LEVELS = 1.5
"""Deviation of the sensor noise, in gray levels."""

LEFT_BROW, RIGHT_BROW = [17, 18, 19, 20, 21], [26, 25, 24, 23, 22]
"""Outer to inner."""
UPPER_LIDS, LOWER_LIDS = [37, 38, 43, 44], [40, 41, 46, 47]
UPPER_LIP, LOWER_LIP = [49, 50, 51, 52, 53, 61, 62, 63], [55, 56, 57, 58, 59, 65, 66, 67]


def expression_displacements(emotion: str, generator: np.random.Generator) -> Points:
    """Return each landmark's displacement at the peak, (68, 2), in half face widths, y downwards.

    The action units are the prototypes of the Facial Action Coding System that CK+'s labels were
    checked against (Lucey et al. 2010): anger 4+7+23, contempt one-sided 14, disgust 9+10, fear
    1+2+4+5+20, happy 6+12, sadness 1+4+15, surprise 1+2+5+26.
    """
    move = np.zeros((NUM_LANDMARKS, 2))
    if emotion == "anger":
        _brows(move, outer=(0.02, 0.06), inner=(0.07, 0.17))
        move[UPPER_LIDS, 1] += 0.025
        move[LOWER_LIDS, 1] -= 0.02
        move[UPPER_LIP, 1] += 0.035
        move[LOWER_LIP, 1] -= 0.055
        _corners(move, out=-0.05, down=0.01)
    elif emotion == "contempt":
        side = 1 if generator.random() < 0.5 else -1
        corner, near = (54, [53, 55, 64]) if side > 0 else (48, [49, 59, 60])
        move[corner] += [side * 0.13, -0.16]
        move[near] += [side * 0.08, -0.09]
    elif emotion == "disgust":
        _brows(move, outer=(0.0, 0.04), inner=(0.03, 0.08))
        move[29:36, 1] -= 0.11
        move[UPPER_LIP, 1] -= 0.14
        move[LOWER_LIDS, 1] -= 0.05
        _corners(move, out=0.02, down=-0.03)
    elif emotion == "fear":
        _brows(move, outer=(0.0, -0.08), inner=(0.06, -0.15))
        move[UPPER_LIDS, 1] -= 0.05
        move[LOWER_LIP, 1] += 0.07
        _corners(move, out=0.16, down=0.06)
    elif emotion == "happy":
        move[LOWER_LIDS, 1] -= 0.05
        move[UPPER_LIP, 1] -= 0.05
        move[LOWER_LIP, 1] += 0.02
        _corners(move, out=0.16, down=-0.16)
    elif emotion == "sadness":
        _brows(move, outer=(0.0, 0.04), inner=(0.03, -0.14))
        move[UPPER_LIDS, 1] += 0.03
        move[LOWER_LIP, 1] -= 0.05
        _corners(move, out=-0.02, down=0.14)
    elif emotion == "surprise":
        _brows(move, outer=(0.0, -0.16), inner=(0.0, -0.19))
        move[UPPER_LIDS, 1] -= 0.055
        move[LOWER_LIP, 1] += 0.3
        move[5:12, 1] += 0.2
        _corners(move, out=-0.05, down=0.1)
    elif emotion != "neutral":
        raise ValueError(f"emotion {emotion!r} has no displacements")
    return move


def _brows(move: Points, *, outer: tuple[float, float], inner: tuple[float, float]) -> None:
    """Move both brows; x is positive towards the nose."""
    share = np.linspace(0, 1, 5)[:, None]
    shift = (1 - share) * outer + share * inner
    move[LEFT_BROW] += shift
    move[RIGHT_BROW] += shift * [-1, 1]


def _corners(move: Points, *, out: float, down: float) -> None:
    """Move the corners of the mouth and, half as much, the points beside them."""
    for side, corner, near in ((-1, 48, [49, 59, 60]), (1, 54, [53, 55, 64])):
        move[corner] += [side * out, down]
        move[near] += [side * out / 2, down / 2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """What moves in one sequence; ``float32`` fields in pixels.

    Args:
        face: The neutral face.
        peak_field: Displacement of the peak frame, (H, W, 2): the peak shows at p what the neutral
            frame shows at p - field(p).
        landmark_shift: The same at the landmarks, (68, 2).
        course: Part of the displacement reached at each frame, (N,), 0 at the neutral and 1 at the
            peak frame.
        drift_px: Translation of the head at each frame, (N, 2).
        light: Gray levels added at each frame, (N,).
    """

    face: Face
    peak_field: FloatImage
    landmark_shift: Points
    course: npt.NDArray[np.float64]
    drift_px: Points
    light: npt.NDArray[np.float64]

    def render(self, number: int, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Draw frame ``number`` with fresh sensor noise: ``uint8`` (H, W, 3) RGB."""
        height, width = self.peak_field.shape[:2]
        columns, rows = _pixel_grid(height, width)
        shift = self.peak_field * np.float32(self.course[number])
        shift = shift + self.drift_px[number].astype(np.float32)
        map_x, map_y = columns - shift[..., 0], rows - shift[..., 1]
        moved = cv2.remap(
            self.face.image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        noise = generator.standard_normal((height, width), dtype=np.float32)
        added = noise * np.float32(NOISE_LEVELS) + np.float32(self.light[number])
        return np.clip(moved + added[..., None], 0, 255).astype(np.uint8)

    def landmarks(self, number: int) -> Points:
        """Return the 68 landmarks in frame ``number``, (68, 2) pixels."""
        moved = self.face.landmarks + self.landmark_shift * self.course[number]
        return np.asarray(moved + self.drift_px[number])


def make_motion(
    face: Face, emotion: str, *, num_frames: int, generator: np.random.Generator
) -> Motion:
    """Draw one sequence's motion: strength, asymmetry, onset, and a drifting head and light."""
    shift = expression_displacements(emotion, generator) * generator.uniform(0.75, 1.25)
    shift += shift * generator.normal(0, 0.12, shift.shape)
    shift_px = shift * face.unit_px
    height, width = face.image.shape[:2]
    walk = np.cumsum(generator.normal(0, 0.22 * width / 640, (num_frames, 2)), axis=0)
    drift = np.asarray(cv2.GaussianBlur(walk, (1, 5), 0.01, sigmaY=1.5), np.float64)
    return Motion(
        face=face,
        peak_field=_spread(shift_px, face, height=height, width=width),
        landmark_shift=shift_px,
        course=_onset(num_frames, generator),
        drift_px=drift - drift[0],
        light=np.cumsum(generator.normal(0, 0.4, num_frames)),
    )


def _onset(num_frames: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Rise from 0 to 1 over most of the sequence, at a varying speed, and hold the peak."""
    length = max(2, round((num_frames - 1) * generator.uniform(0.8, 1.0)))
    part = np.clip(np.arange(num_frames) / length, 0, 1) ** generator.uniform(0.8, 1.4)
    smooth = part * part * (3 - 2 * part)
    course = 0.5 * part + 0.5 * smooth
    return np.asarray(course / course[-1], np.float64)


def _spread(shift_px: Points, face: Face, *, height: int, width: int) -> FloatImage:
    """Spread the displacements with Gaussian weights; far from all landmarks nothing moves."""
    step = max(2, round(face.unit_px / 12))
    rows, columns = np.arange(0, height + step, step), np.arange(0, width + step, step)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float64)
    target = face.landmarks + shift_px
    distance = np.square(grid[:, :, None] - target).sum(axis=-1)
    weight = np.exp(-distance / (2 * (SPREAD * face.unit_px) ** 2))
    coarse = (weight @ shift_px) / (weight.sum(axis=-1, keepdims=True) + 0.08)
    map_x, map_y = (axis / np.float32(step) for axis in _pixel_grid(height, width))
    field = cv2.remap(coarse.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR)
    return field.astype(np.float32, copy=False)


def _pixel_grid(height: int, width: int) -> tuple[FloatImage, FloatImage]:
    """Return x and y of every pixel, ``float32`` (H, W)."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x, y
