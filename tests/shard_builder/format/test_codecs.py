"""LZ4 blocks: bit-exact, bare, and nothing else is taken for one."""

from __future__ import annotations

import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_builder.format.codecs import decode_lz4, encode_lz4


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_every_plane_comes_back(height: int, width: int, seed: int, is_even: bool) -> None:
    plane = np.random.default_rng(seed).integers(
        0, 2 if is_even else 256, (height, width), dtype=np.uint8
    )
    data = encode_lz4(plane[:, ::-1])
    found = decode_lz4(data, np.zeros(plane.shape, np.uint8))
    assert np.array_equal(found, plane[:, ::-1])


def test_a_block_is_bare_and_the_same_every_time() -> None:
    plane = np.full((16, 340), 128, np.uint8)
    data = encode_lz4(plane)
    assert data == encode_lz4(plane.copy()) and len(data) < 100
    assert lz4.block.decompress(data, uncompressed_size=plane.size) == plane.tobytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-3],
        lambda data: data + b"xx",
        lambda data: b"",
        lambda data: b"\x00",
        lambda data: b"\xff" * len(data),
    ],
)
def test_what_is_no_block_of_that_size_is_refused(spoil: object) -> None:
    plane = np.random.default_rng(0).integers(0, 256, (16, 30), dtype=np.uint8)
    with pytest.raises(ValueError, match="cannot be decoded as an LZ4 block of 480 bytes"):
        decode_lz4(spoil(encode_lz4(plane)), np.empty_like(plane))  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(16, 31), (16, 29), (32, 30)])
def test_another_size_is_refused(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).integers(0, 256, (16, 30), dtype=np.uint8)
    with pytest.raises(ValueError, match="LZ4 block of"):
        decode_lz4(encode_lz4(plane), np.empty(shape, np.uint8))
