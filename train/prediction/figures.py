"""Pictures of a prediction: bars of a clip, a timeline over its frames, a label in a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib import colormaps

from models.fusion import Probs
from shard_builder.images import Image, resize_image
from shard_builder.untrusted.text import clean, plain_label
from train.figures import INK, make_figure, save_figure

STREAM_COLOURS = {"rgb": "#7fa8d1", "flow": "#e3a857", "fused": "#2f4b63"}
THUMBNAIL_HEIGHT_PX = 120
NUM_THUMBNAILS = 10
OVERLAY_MIN_HEIGHT_PX = 288
FACE_COLOUR = (102, 255, 102)


def class_colours(num_classes: int) -> list[tuple[float, float, float]]:
    """Return one colour per class, RGB 0..1, the same in every figure."""
    palette = colormaps["Set2"] if num_classes <= 8 else colormaps["turbo"]
    positions = range(num_classes) if num_classes <= 8 else np.linspace(0.05, 0.95, num_classes)
    return [tuple(palette(position)[:3]) for position in positions]


@dataclass(slots=True)
class FilmStrip:
    """A few frames, evenly spaced, of a video of unknown length; when full, every second goes."""

    frames: list[tuple[int, Image]] = field(default_factory=list)
    step: int = 1

    def offer(self, number: int, frame: Image) -> None:
        """Keep frame ``number`` (0-based; RGB ``uint8``) if it is one of those in the spacing."""
        if number % self.step:
            return
        height, width = frame.shape[:2]
        width = max(1, round(width * THUMBNAIL_HEIGHT_PX / height))
        self.frames.append((number, resize_image(frame, width=width, height=THUMBNAIL_HEIGHT_PX)))
        if len(self.frames) >= 4 * NUM_THUMBNAILS:
            self.frames = self.frames[::2]
            self.step *= 2

    def spread(self) -> list[tuple[int, Image]]:
        """Return at most ``NUM_THUMBNAILS`` frames, first and last included."""
        last = len(self.frames) - 1
        chosen = np.linspace(0, last, min(NUM_THUMBNAILS, last + 1)).round().astype(int)
        return [self.frames[n] for n in chosen]


def write_bar_chart(
    path: Path, probs: Mapping[str, Probs], *, class_names: Sequence[str], title: str
) -> None:
    """Draw the probabilities of a clip, a group of bars for each class, and write a PNG.

    Args:
        path: The PNG to write.
        probs: Probabilities (classes,) by stream: ``rgb``, ``flow``, ``fused``.
        class_names: Names in label order.
        title: Line above the chart.
    """
    figure = make_figure(7.2, 0.9 + 0.5 * len(class_names))
    axes = figure.add_subplot()
    height = 0.8 / len(probs)
    rows = np.arange(len(class_names))
    for n, (stream, values) in enumerate(probs.items()):
        offset = (n - (len(probs) - 1) / 2) * height
        color = STREAM_COLOURS[stream]
        bars = axes.barh(rows + offset, values, height * 0.92, color=color, label=stream)
        if n == len(probs) - 1:
            percent = [f"{value:.0%}" for value in values]
            axes.bar_label(bars, percent, padding=3, fontsize=8, color=INK)
    axes.set_yticks(rows, [plain_label(name) for name in class_names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xlabel("probability")
    axes.set_title(plain_label(title, most=90), loc="left", fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    if len(probs) > 1:
        figure.legend(frameon=False, loc="outside upper right", ncols=len(probs), fontsize=8)
    save_figure(figure, path)


def write_timeline(
    path: Path,
    *,
    times_s: npt.NDArray[np.float64],
    probs: Probs,
    class_names: Sequence[str],
    strip: FilmStrip,
    time_of: Callable[[int], float],
    title: str,
) -> None:
    """Draw the probabilities over time under the video's own frames, and write a PNG.

    Args:
        path: The PNG to write.
        times_s: Middle of each window, in seconds, (n,).
        probs: Probabilities of each window, (n, classes).
        class_names: Names in label order.
        strip: Frames of the video.
        time_of: Gives a frame's time in seconds.
        title: Line above the figure.
    """
    frames = strip.spread()
    figure = make_figure(11, 5.2)
    grid = figure.add_gridspec(2, len(frames), height_ratios=(1, 2.6))
    for column, (number, image) in enumerate(frames):
        cell = figure.add_subplot(grid[0, column])
        cell.imshow(image)
        cell.set_title(f"{time_of(number):.2f} s", fontsize=8, color=INK)
        cell.axis("off")
    axes = figure.add_subplot(grid[1, :])
    if len(times_s) == 1:  # a single window has no extent: draw it as a block
        times_s, probs = np.array([0.0, 2 * times_s[0] or 1.0]), np.repeat(probs, 2, axis=0)
    style: dict[str, Any] = {
        "colors": class_colours(len(class_names)),
        "edgecolor": "white",
        "linewidth": 0.4,
    }
    axes.stackplot(times_s, probs.T, labels=[plain_label(name) for name in class_names], **style)
    for number, _ in frames:
        axes.axvline(time_of(number), color="white", linewidth=0.8, linestyle=":")
    axes.set_xlim(float(times_s[0]), float(times_s[-1]))
    axes.set_ylim(0, 1)
    axes.set_xlabel("time (s)")
    axes.set_ylabel("probability")
    axes.spines[["top", "right"]].set_visible(False)
    # From the top as in the stack.
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, reverse=True)
    figure.suptitle(plain_label(title, most=90), fontsize=11, x=0.01, ha="left", color=INK)
    save_figure(figure, path)


def draw_label(
    frame: Image, probs: Probs | None, *, class_names: Sequence[str], face: Probs | None = None
) -> Image:
    """Draw the three likeliest classes as bars into the lower left of an enlarged frame.

    Args:
        frame: RGB ``uint8`` (H, W, 3).
        probs: Probabilities (classes,); None draws no bars.
        class_names: Names in label order.
        face: Box to draw: left, top, right, bottom in the frame's pixels.

    Returns:
        RGB ``uint8``; even width and height, as video codecs want them, at least
        ``OVERLAY_MIN_HEIGHT_PX`` high.
    """
    scale = max(1.0, OVERLAY_MIN_HEIGHT_PX / frame.shape[0])
    height, width = (round(side * scale / 2) * 2 for side in frame.shape[:2])
    canvas = resize_image(frame, width=width, height=height)
    if face is not None:
        left, top, right, bottom = (round(float(edge) * scale) for edge in face)
        thickness = max(1, height // 200)
        cv2.rectangle(canvas, (left, top), (right, bottom), FACE_COLOUR, thickness)
    if probs is None:
        return canvas
    line = max(18, height // 14)
    best = np.argsort(probs)[::-1][:3]
    top = height - line * len(best) - line // 2
    canvas[top:] = canvas[top:] // 3
    bar_left, bar_width = width // 2, width // 2 - line // 2
    for n, label in enumerate(best):
        base = top + line * (n + 1)
        colour = tuple(int(255 * part) for part in class_colours(len(class_names))[label])
        bar_right = bar_left + int(bar_width * probs[label])
        cv2.rectangle(canvas, (bar_left, base - line // 2), (bar_right, base), colour, cv2.FILLED)
        text = f"{clean(class_names[label], most=40)} {probs[label]:.0%}"
        style = (cv2.FONT_HERSHEY_SIMPLEX, line / 38, (255, 255, 255), 1, cv2.LINE_AA)
        cv2.putText(canvas, text, (line // 2, base), *style)
    return canvas
