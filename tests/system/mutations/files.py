"""Mutations of one file, whatever is in it: flips, cuts, links, special files, hostile JSON."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.system.mutations.box import Victims

HOSTILE_TEXT = (
    "a\x1b[2Jb",
    "a\nno fault found",
    "$x^$",
    "[/red]",
    "x" * 100_000,
    "../../etc/passwd",
    "\u202egpj",
    "",
    "a\x00b",
    "<script>alert(1)</script>",
)
EXTREMES = (-1, 0, 1, -(2**31), 2**31, 2**40, 2**63, 10**30, 1e308, -0.5, 100_000, 16_777_225)
OTHER_TYPES = (None, True, False, [], {}, [[[]]], "1", "NaN", {"a": 1}, [1, "x", None])


def mutate_file(draw: random.Random, path: Path, victims: Victims) -> str:
    """Change one file of a folder in some way; returns the class of the change."""
    kinds = [*BYTES, *SPECIAL] + [name for name in JSON_TEXT if path.suffix in (".json", ".jsonl")]
    kind = draw.choice(kinds)
    if kind in SPECIAL:
        SPECIAL[kind](draw, path, victims)
    elif kind in BYTES:
        path.write_bytes(BYTES[kind](draw, path.read_bytes()))
    else:
        text = path.read_text(encoding="utf-8")
        path.write_bytes(JSON_TEXT[kind](draw, text).encode("utf-8", "surrogatepass"))
    return kind


def _flip(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(draw.choice((1, 1, 1, 4, 64))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwrite(draw: random.Random, data: bytes) -> bytes:
    changed, begin = bytearray(data), draw.randrange(max(1, len(data)))
    length = draw.choice((4, 8, 8, 512, 4096))
    pattern = draw.choice((b"\0", b"\xff", b"\x7f", draw.randbytes(8)))
    changed[begin : begin + length] = (pattern * length)[: max(0, len(data) - begin)][:length]
    return bytes(changed)


def _cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.choice((0, 1, len(data) // 2, max(0, len(data) - 1), len(data) - 512))]


def _extend(draw: random.Random, data: bytes) -> bytes:
    return data + draw.choice((b"\0", b"\n", b"{}\n", draw.randbytes(10_240), data))


def _swap(draw: random.Random, data: bytes) -> bytes:
    if len(data) < 64:
        return data[::-1]
    size = draw.choice((8, 16, len(data) // 8))
    one, other = (draw.randrange(len(data) - size) for _ in range(2))
    changed = bytearray(data)
    changed[one : one + size], changed[other : other + size] = (
        data[other : other + size],
        data[one : one + size],
    )
    return bytes(changed)


BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "flip": _flip,
    "overwrite": _overwrite,
    "cut": _cut,
    "extend": _extend,
    "swap": _swap,
}


def _link_out(draw: random.Random, path: Path, victims: Victims) -> None:
    """A link to an equal file outside: all would go well if it were followed."""
    target = victims.add(f"copies/{path.name}", path.read_bytes())
    path.unlink()
    path.symlink_to(target)


def _link_secret(draw: random.Random, path: Path, victims: Victims) -> None:
    path.unlink()
    path.symlink_to(victims.text)


def _link_folder(draw: random.Random, path: Path, victims: Victims) -> None:
    path.unlink()
    path.symlink_to(victims.folder)


def _link_loop(draw: random.Random, path: Path, victims: Victims) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _link_nowhere(draw: random.Random, path: Path, victims: Victims) -> None:
    path.unlink()
    path.symlink_to(victims.folder / "new-file")


def _hard_link(draw: random.Random, path: Path, victims: Victims) -> None:
    target = victims.add(f"copies/{path.name}", path.read_bytes(), may_be_read=True)
    path.unlink()
    os.link(target, path)


def _fifo(draw: random.Random, path: Path, victims: Victims) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(draw: random.Random, path: Path, victims: Victims) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # an address may have 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def _device(draw: random.Random, path: Path, victims: Victims) -> None:
    path.unlink()
    path.symlink_to(draw.choice(("/dev/zero", "/dev/random", "/dev/stdin")))


def _sparse(draw: random.Random, path: Path, victims: Victims) -> None:
    os.truncate(path, draw.choice((1 << 33, 1 << 40)))


def _folder(draw: random.Random, path: Path, victims: Victims) -> None:
    path.unlink()
    path.mkdir()


def _gone(draw: random.Random, path: Path, victims: Victims) -> None:
    path.unlink()


def _other(draw: random.Random, path: Path, victims: Victims) -> None:
    """Another file of the folder in its place."""
    others = sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
    if others:
        shutil.copyfile(draw.choice(others), path)


def _planted_names(draw: random.Random, path: Path, victims: Victims) -> None:
    """Links under the names that a writer might use until a file is whole."""
    for name in (f"{path.name}.tmp", f".{path.name}.tmp", f".{path.stem}.partial{path.suffix}"):
        target = victims.add(f"planted/{name}", b"keep me")
        (path.parent / name).symlink_to(target)


SPECIAL: dict[str, Callable[[random.Random, Path, Victims], None]] = {
    "link-out": _link_out,
    "link-secret": _link_secret,
    "link-folder": _link_folder,
    "link-loop": _link_loop,
    "link-nowhere": _link_nowhere,
    "hard-link": _hard_link,
    "fifo": _fifo,
    "socket": _socket,
    "device": _device,
    "sparse": _sparse,
    "folder": _folder,
    "gone": _gone,
    "other": _other,
    "planted-names": _planted_names,
}


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key or index) of every value in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(items):
        yield value, key
        if isinstance(child, dict | list):
            yield from places_in(child)


def _edit(draw: random.Random, text: str, change: Callable[[Any, Any], None]) -> str:
    """Edit a value of a document, or of one line of JSON lines."""
    lines = text.splitlines() if "\n{" in text.strip() else [text]
    number = draw.randrange(len(lines))
    document = json.loads(lines[number])
    change(*draw.choice(list(places_in(document))))
    lines[number] = json.dumps(document)
    return "\n".join(lines) + "\n"


def _set_from(values: tuple[Any, ...]) -> Callable[[random.Random, str], str]:
    def change_text(draw: random.Random, text: str) -> str:
        return _edit(draw, text, lambda where, key: where.__setitem__(key, draw.choice(values)))

    return change_text


def _remove(draw: random.Random, text: str) -> str:
    return _edit(draw, text, lambda where, key: where.__delitem__(key))


def _raw(draw: random.Random, text: str) -> str:
    """Put something into a document that ``json.dumps`` does not write."""
    mark = "MARK-5d3a"
    edited = _edit(draw, text, lambda where, key: where.__setitem__(key, mark))
    values = ("1e400", "-1e400", "NaN", "Infinity", "\ud800", "9" * 5000, "01", "'a'", "{,}")
    nested = "[" * 100_000 + "]" * 100_000
    return edited.replace(f'"{mark}"', draw.choice((*values, '"\ud83d"', '"\\ud800"', nested)))


def _repeat_key(draw: random.Random, text: str) -> str:
    """Give an object a key twice."""
    begins = [n for n, char in enumerate(text) if char == "{"]
    begin = draw.choice(begins)
    end = text.find(":", begin)
    key = text[begin + 1 : end].strip()
    value = draw.choice(("0", '"x"', "null", "{}", "99"))
    return f"{text[: begin + 1]}{key}: {value}, {text[begin + 1 :]}" if end > 0 else text


JSON_TEXT: dict[str, Callable[[random.Random, str], str]] = {
    "json-number": _set_from(EXTREMES),
    "json-type": _set_from(OTHER_TYPES),
    "json-text": _set_from(HOSTILE_TEXT),
    "json-remove": _remove,
    "json-raw": _raw,
    "json-repeat": _repeat_key,
}
