"""Keys in any script differ, stay ASCII, and do not depend on the order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_builder.keys import KEY_PATTERN, make_keys, readable_name

NAMES = st.lists(st.text(min_size=1, max_size=120), unique=True, max_size=20)


@given(NAMES)
def test_keys_of_any_names_differ_and_are_ascii(names: list[str]) -> None:
    names = [name.encode("utf-8", "replace").decode() for name in names]
    names = list(dict.fromkeys(names))
    keys = make_keys(names, names)
    assert len(set(keys)) == len(names) and all(KEY_PATTERN.fullmatch(key) for key in keys)
    backwards = make_keys(names[::-1], names[::-1])
    assert backwards[::-1] == keys


def test_plain_names_are_their_own_keys_and_lossy_ones_keep_apart() -> None:
    names = ["happy/S010_004", "李/快乐", "王/快乐", "a b", "a-b", "x/y_z", "x_y/z"]
    keys = make_keys(names, names)
    assert keys[0] == "happy_S010_004" and keys[4] == "a-b"
    assert keys[3].startswith("a-b-") and len(set(keys)) == len(names)
    assert keys[5].startswith("x_y_z-") and keys[6].startswith("x_y_z-")


def test_one_name_of_two_files_is_told_apart_by_what_they_are() -> None:
    keys = make_keys(["a", "a", "b"], ["a.mp4", "a.avi", "b.avi"])
    assert keys[2] == "b" and keys[0] != keys[1] and all(key.startswith("a-") for key in keys[:2])
    with pytest.raises(ValueError, match=r"'a\.mp4' is there twice"):
        make_keys(["a", "b"], ["a.mp4", "a.mp4"])


def test_a_name_that_is_not_utf8_becomes_readable() -> None:
    assert readable_name("caf\udce9") == r"caf\xe9" and readable_name("café") == "café"
