"""Which frames of a clip are taken, by a step or by a rate."""

from __future__ import annotations

import numpy as np
import pytest

from shard_builder.errors import SourceError
from shard_builder.faces.sampler import FrameSampler

FRAME = np.zeros((2, 2, 3), np.uint8)


def sample(times: list[float], sampler: FrameSampler) -> list[int]:
    assert len(list(sampler.choose((FRAME, time) for time in times))) == len(sampler.positions)
    assert sampler.num_seen == len(times)
    return sampler.positions


@pytest.mark.parametrize(
    ("rate", "fps", "positions"),
    [
        (25, 25, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (29.97, 30, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (25, 12.5, [0, 2, 4, 6, 8, 10]),
        (30, 10, [0, 3, 6, 9]),
        (30, 25, [0, 2, 3, 4, 5, 6, 8, 9, 10, 11]),
        (200, 50, [0, 4, 8]),
    ],
)
@pytest.mark.parametrize("digits", [3, 9])
def test_frames_are_taken_at_a_rate_whatever_their_times_are_rounded_to(
    rate: float, fps: float, positions: list[int], digits: int
) -> None:
    times = [round(1.4 + number / rate, digits) for number in range(12)]
    assert sample(times, FrameSampler(fps=fps)) == positions


def test_a_long_clip_gives_as_many_frames_as_its_seconds() -> None:
    times = [round(number / 29.97, 3) for number in range(3000)]
    taken = sample(times, FrameSampler(fps=12))
    assert len(taken) == pytest.approx(12 * times[-1], abs=1)
    assert set(np.diff(taken)) == {2, 3}


def test_where_the_rate_varies_times_count_and_a_gap_is_not_made_up_for() -> None:
    assert sample([0, 0.1, 0.15, 0.2, 0.9, 0.95, 1.0], FrameSampler(fps=10)) == [0, 1, 3, 4, 6]


def test_a_step_counts_frames_and_the_nearest_one_taken_is_found() -> None:
    sampler = FrameSampler(frame_step=3)
    assert sample([0.0] * 11, sampler) == [0, 3, 6, 9]
    assert [sampler.nearest(position) for position in (0, 1, 2, 4, 10)] == [0, 0, 1, 1, 3]
    sampler = FrameSampler(frame_step=2)
    sample([0.0] * 5, sampler)
    assert sampler.nearest(3) == 2  # of two as near the later


def test_what_has_no_times_or_too_few_frames_is_said() -> None:
    with pytest.raises(
        SourceError, match=r"fps=25, but images have no frame rate(.|\n)*frame_step"
    ):
        list(FrameSampler(fps=25).choose([(FRAME, None)]))
    with pytest.raises(SourceError, match="times of frames 1 and 2 do not rise"):
        sample([0, 0.04, 0.04], FrameSampler(fps=25))
    slow = FrameSampler(fps=25)
    assert sample([0, 0.1, 0.2], slow) == [0, 1, 2]
    assert slow.slow_rate == pytest.approx(10)
    film = FrameSampler(fps=25)
    sample([number / 24 for number in range(10)], film)
    assert film.slow_rate is None
