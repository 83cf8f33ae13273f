"""Arithmetic randomness, no order stored: keyed permutations of 0..n-1, counter-based draws.

The permutation is a balanced Feistel network over the next even power of two, with cycle walking
(Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The mixing function is the
finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

NUM_ROUNDS = 6
CHUNK = 1 << 16
"""Positions that are permuted at once: their temporaries stay in the processor's cache."""
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix64(values: UInt64) -> UInt64:
    """Scramble 64-bit integers; a bijection, element by element."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def derive_key(*words: int) -> int:
    """Fold integers into one 64-bit key; the order of the words matters."""
    key = 0
    for word in words:
        key = _mix_integer((key + ((word & _MASK) * 2 + 1) * _GOLDEN) & _MASK)
    return key


def _mix_integer(value: int) -> int:
    """Return :func:`mix64` of one integer; twenty times faster than an array of one."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


def permute(positions: Int64, *, num: int, key: int) -> Int64:
    """Map positions to their places under the keyed permutation of ``0..num - 1``.

    Args:
        positions: Any integers in ``0..num - 1``, any order, shape (k,).
        num: Size of the permutation, >= 1.
        key: 64-bit key.

    Returns:
        ``int64`` array of the same shape; for ``arange(num)`` each of ``0..num - 1`` once.
    """
    half_bits = np.uint64(max(1, ((num - 1).bit_length() + 1) // 2))
    half_mask = (np.uint64(1) << half_bits) - np.uint64(1)
    keys = [np.uint64(derive_key(key, number)) for number in range(NUM_ROUNDS)]
    values = positions.astype(np.uint64)
    for begin in range(0, len(values), CHUNK):
        _permute_chunk(values[begin : begin + CHUNK], num, keys, half_bits, half_mask)
    return values.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ClassIndex:
    """The members of each class.

    Args:
        members: Those of the first class, then those of the second and so on, ``int64`` (n,).
        sizes: How many each class has, >= 1, ``int64`` (classes,).
    """

    members: Int64
    sizes: Int64


def index_classes(labels: Int64) -> ClassIndex:
    """Return which of ``0..n - 1`` have each label that occurs, from labels ``int64`` (n,)."""
    _, sizes = np.unique(labels, return_counts=True)
    return ClassIndex(np.argsort(labels, kind="stable"), sizes)


def permute_balanced(positions: Int64, classes: ClassIndex, *, key: int) -> Int64:
    """Map positions to members so that each class comes equally often, and so its members.

    Among all ``n`` positions the counts of any two classes differ by one at most, and so do those
    of two members of one class. Which members of a large class come is another choice for every
    key.

    Args:
        positions: Any integers in ``0..n - 1``, any order, shape (k,).
        classes: Of ``n`` members.
        key: 64-bit key.

    Returns:
        Members, ``int64`` (k,).
    """
    sizes, num_classes = classes.sizes, len(classes.sizes)
    slots = permute(positions, num=len(classes.members), key=key)
    # Slots go round the classes; where they do not come out even, the key says who comes first.
    numbers = (slots + key % num_classes) % num_classes
    passes, places = np.divmod(slots // num_classes, sizes[numbers])
    begins = np.cumsum(sizes) - sizes
    chosen = np.empty_like(slots)
    for number, turn in np.unique(np.stack([numbers, passes], axis=1), axis=0).tolist():
        here = (numbers == number) & (passes == turn)
        size, own_key = int(sizes[number]), derive_key(key, number, turn)
        chosen[here] = begins[number] + permute(places[here], num=size, key=own_key)
    return classes.members[chosen]


def _permute_chunk(
    values: UInt64, num: int, keys: list[np.uint64], half_bits: np.uint64, half_mask: np.uint64
) -> None:
    """Encrypt values in place, again and again those that fall out of ``0..num - 1``."""
    walking = np.arange(len(values))
    while walking.size:
        current = values[walking]
        left, right = current >> half_bits, current & half_mask
        for round_key in keys:
            left, right = right, left ^ (mix64(right ^ round_key) & half_mask)
        values[walking] = (left << half_bits) | right
        walking = walking[values[walking] >= num]


def draw_below(positions: Int64, bounds: Int64 | int, *, key: int) -> Int64:
    """Draw one integer in ``0..bound - 1`` for each position.

    Args:
        positions: Counters, shape (k,).
        bounds: Exclusive upper bounds, 1..2**31, scalar or shape (k,).
        key: 64-bit key; another key is another, independent draw.

    Returns:
        ``int64`` array of shape (k,). The bias is below ``bound / 2**32``.
    """
    bits = mix64(
        mix64(positions.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)) ^ np.uint64(key)
    )
    return ((bits >> np.uint64(32)) * np.asarray(bounds, np.uint64) >> np.uint64(32)).astype(
        np.int64
    )
