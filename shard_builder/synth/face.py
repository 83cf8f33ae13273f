"""Draw a neutral face: a subject's own shape, skin, hair, light and background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FloatImage = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A drawn neutral face.

    Args:
        image: Colour ``float32`` (H, W, 3), 0..255, RGB.
        landmarks: 68 points in iBUG's order, (68, 2) x and y, pixels.
        unit_px: Half the face's width; all motion is scaled by it.
    """

    image: FloatImage
    landmarks: Points
    unit_px: float


def neutral_landmarks(generator: np.random.Generator) -> Points:
    """Draw 68 points in half face widths; the origin is between the eyes' height and the nose."""
    eye_x, eye_y = generator.uniform(0.37, 0.46), generator.uniform(-0.26, -0.16)
    eye_half, eye_open = generator.uniform(0.13, 0.18), generator.uniform(0.045, 0.075)
    brow_y, brow_arch = eye_y - generator.uniform(0.2, 0.3), generator.uniform(0.03, 0.09)
    nose_y, nose_half = generator.uniform(0.26, 0.36), generator.uniform(0.14, 0.21)
    mouth_y, mouth_half = generator.uniform(0.6, 0.72), generator.uniform(0.28, 0.4)
    lip_top, lip_bottom = generator.uniform(0.05, 0.09), generator.uniform(0.07, 0.12)
    jaw_power, chin = generator.uniform(0.75, 1.05), generator.uniform(1.08, 1.25)

    angle = np.linspace(0, np.pi, 17)
    jaw = np.stack([-np.cos(angle), chin * np.sin(angle) ** jaw_power], axis=1)
    along = np.linspace(0, 1, 5)
    brow = np.stack([-0.76 + 0.56 * along, brow_y - brow_arch * np.sin(np.pi * along)], axis=1)
    bridge = np.stack([np.zeros(4), np.linspace(eye_y, nose_y - 0.1, 4)], axis=1)
    nostrils = np.stack(
        [np.linspace(-nose_half, nose_half, 5), nose_y + np.array([0, 0.03, 0.05, 0.03, 0])], axis=1
    )
    third = eye_half / 3
    eye_x_of = [-eye_half, -third, third, eye_half, third, -third]
    eye = np.stack([eye_x_of, np.array([0, -1, -1, 0, 1, 1]) * eye_open], axis=1)
    left_eye, right_eye = eye + [-eye_x, eye_y], eye + [eye_x, eye_y]
    across = np.linspace(-mouth_half, mouth_half, 7)
    arc = np.sin(np.pi * np.linspace(0, 1, 7))
    cupid = np.array([0, 0, 0.012, -0.012, 0.012, 0, 0])
    upper = np.stack([across, mouth_y - lip_top * arc - cupid], axis=1)
    lower = np.stack([across[::-1], mouth_y + lip_bottom * arc], axis=1)[1:-1]
    inner = across[[1, 2, 3, 4, 5]] * 0.98
    inner_upper = np.stack([inner, np.full(5, mouth_y - 0.012)], axis=1)
    inner_lower = np.stack([inner[3:0:-1], np.full(3, mouth_y + 0.014)], axis=1)
    brows = brow, brow[::-1] * [-1, 1]
    mouth = upper, lower, inner_upper, inner_lower
    return np.concatenate([jaw, *brows, bridge, nostrils, left_eye, right_eye, *mouth])


def draw_face(generator: np.random.Generator, *, height: int, width: int) -> Face:
    """Draw a subject's neutral face.

    Args:
        generator: The subject's own; it decides everything.
        height: Picture height in pixels.
        width: Picture width in pixels.
    """
    unit = width / 640 * generator.uniform(98, 138)
    offset = generator.uniform(-1, 1, 2) * [0.085 * width, 0.05 * height]
    center = np.array([width / 2, height * 0.46]) + offset
    points = neutral_landmarks(generator) * unit * [1, generator.uniform(0.97, 1.12)] + center
    canvas = _Canvas(generator, height, width, unit)
    canvas.background()
    tone = generator.uniform(85, 215)
    tint = np.array([1.0, generator.uniform(0.78, 0.88), generator.uniform(0.62, 0.78)])
    hair_tone = generator.uniform(15, 120 if tone > 120 else 60)
    hair = hair_tone * np.array([1.0, 0.9, generator.uniform(0.7, 0.9)])
    _draw_head(canvas, points, tone * tint, hair)
    _draw_features(canvas, points, tone * tint, hair)
    return Face(image=canvas.finish(), landmarks=points, unit_px=float(unit))


class _Canvas:
    """A colour picture that takes soft-edged shapes."""

    def __init__(
        self, generator: np.random.Generator, height: int, width: int, unit: float
    ) -> None:
        self.generator, self.unit = generator, unit
        self.image = np.zeros((height, width, 3), np.float32)

    def background(self) -> None:
        height, width = self.image.shape[:2]
        level, slope = self.generator.uniform(40, 200), self.generator.uniform(-50, 50, 2)
        rows, columns = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
        plain = level + slope[0] * rows + slope[1] * columns + 22 * self.noise(0.05)
        self.image[:] = plain[..., None]

    def noise(self, scale: float) -> FloatImage:
        """Return smooth noise of unit deviation; ``scale`` is the grain's part of the width."""
        height, width = self.image.shape[:2]
        shape = max(2, round(height / (scale * width))), max(2, round(1 / scale))
        coarse = self.generator.standard_normal(shape).astype(np.float32)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        return smooth.astype(np.float32, copy=False)

    def blend(self, mask: FloatImage, color: npt.NDArray[np.float64] | FloatImage) -> None:
        self.image += mask[..., None] * (np.asarray(color, np.float32) - self.image)

    def polygon(
        self, outline: Points, color: npt.NDArray[np.float64], *, soft: float, opacity: float = 1.0
    ) -> FloatImage:
        mask = np.zeros(self.image.shape[:2], np.float32)
        cv2.fillPoly(mask, _sixteenths(outline), 1.0, cv2.LINE_AA, 4)
        mask = self.soften(mask, soft) * opacity
        self.blend(mask, color)
        return mask

    def line(
        self,
        path: Points,
        color: npt.NDArray[np.float64],
        *,
        thick: float,
        soft: float,
        opacity: float = 1.0,
    ) -> None:
        mask = np.zeros(self.image.shape[:2], np.float32)
        thickness = max(1, round(thick * self.unit))
        cv2.polylines(mask, _sixteenths(path), False, 1.0, thickness, cv2.LINE_AA, 4)
        self.blend(self.soften(mask, soft) * opacity, color)

    def soften(self, mask: FloatImage, soft: float) -> FloatImage:
        blurred = cv2.GaussianBlur(mask, (0, 0), max(0.4, soft * self.unit))
        return blurred.astype(np.float32, copy=False)

    def finish(self) -> FloatImage:
        """Add the light's direction and the camera's blur."""
        height, width = self.image.shape[:2]
        direction = self.generator.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        slope = np.cos(direction) * columns + 0.6 * np.sin(direction) * rows
        light = 1 + self.generator.uniform(0.05, 0.22) * slope
        lit = np.clip(self.image * light[..., None].astype(np.float32), 0, 255)
        return np.asarray(cv2.GaussianBlur(lit, (0, 0), max(0.5, 0.9 * width / 640)), np.float32)


def _sixteenths(path: Points) -> list[npt.NDArray[np.int32]]:
    """Return a path as OpenCV draws it with 4 fractional bits."""
    return [np.round(path * 16).astype(np.int32)]


def _ellipse(center: Points, radius_x: float, radius_y: float) -> Points:
    return _arc(center, radius_x, radius_y, np.linspace(0, 2 * np.pi, 48, endpoint=False))


def _arc(center: Points, radius_x: float, radius_y: float, angle: Points) -> Points:
    x, y = center[0] + radius_x * np.cos(angle), center[1] + radius_y * np.sin(angle)
    return np.stack([x, y], axis=1)


def _draw_head(
    canvas: _Canvas, points: Points, skin: npt.NDArray[np.float64], hair: npt.NDArray[np.float64]
) -> None:
    generator, unit = canvas.generator, canvas.unit
    center = (points[0] + points[16]) / 2
    hair_long = generator.random() < 0.45
    crown = _ellipse(center + [0, -0.25 * unit], 1.22 * unit, (1.65 if hair_long else 1.32) * unit)
    canvas.polygon(crown, hair, soft=0.05)
    neck = np.array([[-0.5, 0.6], [0.5, 0.6], [0.62, 2.6], [-0.62, 2.6]]) * unit + center
    canvas.polygon(neck, skin * 0.8, soft=0.06)
    clothes = np.array([[-2.2, 2.6], [-0.6, 1.72], [0.6, 1.72], [2.2, 2.6]]) * unit + center
    canvas.polygon(clothes, np.full(3, generator.uniform(20, 230)), soft=0.03)
    brow_angle = np.linspace(0, -np.pi, 24)[1:-1]
    forehead = _arc(center, unit, generator.uniform(0.95, 1.15) * unit, brow_angle)
    face = canvas.polygon(np.concatenate([points[:17], forehead]), skin, soft=0.025)
    texture = 9 * canvas.noise(0.014) + 8 * canvas.noise(0.04) + 3 * canvas.noise(0.007)
    canvas.image += (face * texture * generator.uniform(0.6, 1.3))[..., None]
    rim = 0.18 * canvas.soften(face, 0.02) * (1 - canvas.soften(face, 0.25))
    canvas.image *= (1 - rim)[..., None]
    for side in (-1, 1):
        cheek = _ellipse(center + np.array([side * 0.52, 0.38]) * unit, 0.24 * unit, 0.2 * unit)
        canvas.polygon(cheek, skin * generator.uniform(1.04, 1.16), soft=0.12, opacity=0.6)
    fringe = generator.uniform(-0.95, -0.72)
    parting = generator.uniform(-0.5, 0.5)
    outline = [[-1.1, -1.2], [1.1, -1.2], [1.05, fringe + 0.3], [parting, fringe]]
    outline.append([-1.05, fringe + 0.3])
    canvas.polygon(np.array(outline) * unit + center, hair, soft=0.05)
    if generator.random() < 0.25:
        beard = np.concatenate([points[3:14], points[[54, 57, 48]]])
        canvas.polygon(beard, hair, soft=0.09, opacity=generator.uniform(0.3, 0.7))


def _draw_features(
    canvas: _Canvas, points: Points, skin: npt.NDArray[np.float64], hair: npt.NDArray[np.float64]
) -> None:
    generator, unit = canvas.generator, canvas.unit
    brow_thick = generator.uniform(0.045, 0.09)
    for brow in (points[17:22], points[22:27]):
        canvas.line(brow, hair * 0.8, thick=brow_thick, soft=0.016, opacity=0.9)
    iris = np.full(3, generator.uniform(25, 105))
    for eye in (points[36:42], points[42:48]):
        center = eye.mean(axis=0)
        socket = _ellipse(center + [0, -0.02 * unit], 0.25 * unit, 0.14 * unit)
        canvas.polygon(socket, skin * 0.8, soft=0.05, opacity=0.55)
        canvas.polygon(eye, np.full(3, generator.uniform(195, 235)), soft=0.007)
        canvas.polygon(_ellipse(center, 0.062 * unit, 0.062 * unit), iris, soft=0.008)
        canvas.polygon(_ellipse(center, 0.026 * unit, 0.026 * unit), np.full(3, 8.0), soft=0.006)
        canvas.line(eye[:4], skin * 0.3, thick=0.028, soft=0.008)
        canvas.line(eye[[3, 4, 5, 0]], skin * 0.6, thick=0.015, soft=0.008, opacity=0.7)
    canvas.line(points[27:31] + [0.07 * unit, 0], skin * 0.78, thick=0.05, soft=0.03, opacity=0.7)
    canvas.line(points[27:31] - [0.02 * unit, 0], skin * 1.18, thick=0.05, soft=0.025, opacity=0.6)
    for nostril in (points[32], points[34]):
        hole = _ellipse(nostril, 0.045 * unit, 0.025 * unit)
        canvas.polygon(hole, skin * 0.35, soft=0.012, opacity=0.9)
    canvas.line(points[31:36], skin * 0.66, thick=0.02, soft=0.015, opacity=0.8)
    red, green, blue = (generator.uniform(*r) for r in ((0.78, 0.9), (0.58, 0.75), (0.6, 0.78)))
    canvas.polygon(points[48:60], skin * np.array([red, green, blue]), soft=0.014)
    canvas.line(points[60:65], np.full(3, 22.0), thick=0.034, soft=0.009)
    for side in (-1, 1):
        top = points[33] + [side * 0.24 * unit, 0]
        fold = np.array([top, points[51] + [side * 0.42 * unit, 0.02 * unit]])
        canvas.line(fold, skin * 0.75, thick=0.02, soft=0.025, opacity=generator.uniform(0.2, 0.8))
    if generator.random() < 0.2:
        for eye in (points[36:42], points[42:48]):
            ring = _ellipse(eye.mean(axis=0), 0.27 * unit, 0.2 * unit)
            canvas.line(np.concatenate([ring, ring[:1]]), np.full(3, 25.0), thick=0.025, soft=0.006)
        canvas.line(points[[39, 42]], np.full(3, 25.0), thick=0.025, soft=0.006)
