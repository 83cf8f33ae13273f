"""Pictures of a prediction: few thumbnails of any video, a label that fits into a frame."""

from __future__ import annotations

import numpy as np

from train.prediction.figures import NUM_THUMBNAILS, FilmStrip, class_colours, draw_label


def test_film_strip_stays_small_and_spreads_over_any_length() -> None:
    for length in (1, 7, 120, 5000):
        strip = FilmStrip()
        for number in range(length):
            strip.offer(number, np.zeros((48, 64, 3), np.uint8))
        assert len(strip.frames) < 4 * NUM_THUMBNAILS
        numbers = [number for number, _ in strip.spread()]
        assert len(numbers) == min(length, NUM_THUMBNAILS)
        assert numbers[0] == 0 and numbers[-1] >= length * 0.9 - 1
        assert strip.frames[0][1].shape == (120, 160, 3)


def test_overlay_is_even_sized_and_shows_the_likeliest_class() -> None:
    frame = np.full((145, 177, 3), 200, np.uint8)
    probs = np.array([0.05, 0.9, 0.05])
    drawn = draw_label(frame, probs, class_names=["anger", "happy", "sadness"])
    assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0 and drawn.shape[0] >= 288
    colour = np.array([int(255 * part) for part in class_colours(3)[1]])
    others = np.array([int(255 * part) for part in class_colours(3)[0]])
    count = (drawn == colour).all(-1).sum()
    assert count > 10 * (drawn == others).all(-1).sum()
    assert (frame == 200).all(), "the input frame is not drawn into"
