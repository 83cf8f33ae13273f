"""A dataset from a folder to a store and back: parallel, checked, the manifest last."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from shard_builder.cloud.store import Store
from shard_builder.errors import DatasetError, InputError
from shard_builder.files import (
    FileDigest,
    atomic_writer,
    digest_file,
    is_regular,
    read_regular,
    remove_temporaries,
    write_atomically,
)
from shard_builder.format.manifest import (
    MANIFEST_NAME,
    MOST_BYTES,
    Manifest,
    manifest_sha256,
    parse_manifest,
    read_manifest,
)
from shard_builder.lock import locked
from shard_builder.machine import run_on

NUM_FILES = 4
"""At once: each that is pushed is held in memory."""
BLOCK_BYTES = 8 << 20
MOST_OBJECT_BYTES = 5_000_000_000
"""Of one request, as S3 has it."""
PUSH_TIMEOUT_S = 3600
MD5 = re.compile(r'"?([0-9a-f]{32})"?')
Progress = Callable[[int, int], None]


def push_dataset(folder: Path, address: str, *, on_progress: Progress = lambda *_: None) -> int:
    """Copy a dataset to a store; what is there already, by size and checksum, stays.

    Args:
        folder: The dataset.
        address: Where to.
        on_progress: Told how many files are done, and of how many.

    Returns:
        How many files were sent.

    Raises:
        InputError: If the store holds another dataset at that address.
        DatasetError: If a file is not what the manifest says.
        StoreError: If the store refuses, or keeps other bytes than it was sent.
    """
    manifest = read_manifest(folder)
    data = read_regular(folder / MANIFEST_NAME, most_bytes=MOST_BYTES, error=DatasetError)
    store = Store(address, timeout_s=PUSH_TIMEOUT_S)
    try:
        if store.head(MANIFEST_NAME) and store.get(MANIFEST_NAME, most_bytes=MOST_BYTES) != data:
            raise InputError(
                f"{address}: holds another dataset, which may be in use\n"
                "  Push to another prefix, or remove that one."
            )
        num_sent = _copy_files(partial(_push_file, store, folder), manifest, on_progress)
        digest = FileDigest(num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        num_sent += _push_file(store, folder, (MANIFEST_NAME, digest))
        on_progress(len(manifest.files) + 1, len(manifest.files) + 1)
        return num_sent
    finally:
        store.close()


def pull_dataset(address: str, folder: Path, *, on_progress: Progress = lambda *_: None) -> int:
    """Copy a store's dataset to a folder; what is there already, by size and checksum, stays.

    Args:
        address: The dataset.
        folder: Where to: a new folder, or one that was begun.
        on_progress: Told how many files are done, and of how many.

    Returns:
        How many files were fetched.

    Raises:
        InputError: If the folder holds another dataset, or other files.
        DatasetError: If there is no dataset, or a file has other bytes than its manifest says.
        StoreError: If the store cannot be reached.
    """
    store = Store(address)
    try:
        with locked(folder):
            data = store.get(MANIFEST_NAME, most_bytes=MOST_BYTES)
            manifest = parse_manifest(data, place=f"{address}/{MANIFEST_NAME}")
            _check_target(folder, {*manifest.files, MANIFEST_NAME}, data)
            num_fetched = _copy_files(partial(_pull_file, store, folder), manifest, on_progress)
            if not is_regular(folder / MANIFEST_NAME):
                write_atomically(folder / MANIFEST_NAME, data)
                num_fetched += 1
            on_progress(len(manifest.files) + 1, len(manifest.files) + 1)
            return num_fetched
    finally:
        store.close()


def _copy_files(
    copy: Callable[[tuple[str, FileDigest]], bool], manifest: Manifest, on_progress: Progress
) -> int:
    """Copy all files but the manifest, some at once; return how many had to be."""
    files, num_copied = list(manifest.files.items()), 0
    on_progress(0, len(files) + 1)
    with ThreadPoolExecutor(NUM_FILES, thread_name_prefix="ckshard-transfer") as pool:
        for number, is_copied in enumerate(run_on(pool, copy, files), start=1):
            num_copied += is_copied
            on_progress(number, len(files) + 1)
    return num_copied


def _check_target(folder: Path, names: set[str], manifest: bytes) -> None:
    """Make a folder ready for a dataset's files.

    Raises:
        InputError: If it holds another dataset, or files that are none of this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in names)
    if others:
        raise InputError(f"{folder}: holds other files ({others[0]}), expected a new folder")
    sha256 = hashlib.sha256(manifest).hexdigest()
    if (folder / MANIFEST_NAME).exists() and manifest_sha256(folder) != sha256:
        raise InputError(f"{folder}: holds another dataset, expected a new folder")


def _push_file(store: Store, folder: Path, file: tuple[str, FileDigest]) -> bool:
    """Send one file unless the store has it; tell whether it was sent."""
    name, expected = file
    if expected.num_bytes > MOST_OBJECT_BYTES:
        raise DatasetError(
            f"{folder / name}: {expected.num_bytes} bytes, expected at most {MOST_OBJECT_BYTES}\n"
            "  Build the dataset with smaller shard_bytes."
        )
    data = read_regular(folder / name, most_bytes=expected.num_bytes, error=DatasetError)
    if len(data) != expected.num_bytes or hashlib.sha256(data).hexdigest() != expected.sha256:
        raise DatasetError(
            f"{folder / name}: other bytes than the manifest says\n  Run: ckshard verify {folder}"
        )
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if _is_there(store, name, expected, md5):
        return False
    store.put(name, data)
    if not _is_there(store, name, expected, md5):
        raise DatasetError(f"{store.address}/{name}: holds other bytes than were sent")
    return True


def _is_there(store: Store, name: str, expected: FileDigest, md5: str) -> bool:
    """Tell whether an object has a file's bytes: by the store's MD5, else by reading them."""
    found = store.head(name)
    if found is None or found[0] != expected.num_bytes:
        return False
    if match := MD5.fullmatch(found[1] or ""):
        return match[1] == md5
    digest = hashlib.sha256()
    for begin in range(0, expected.num_bytes, BLOCK_BYTES):
        digest.update(store.get_range(name, begin, min(begin + BLOCK_BYTES, expected.num_bytes)))
    return digest.hexdigest() == expected.sha256


def _pull_file(store: Store, folder: Path, file: tuple[str, FileDigest]) -> bool:
    """Fetch one file unless the folder has it; tell whether it was fetched."""
    name, expected = file
    if is_regular(folder / name) and digest_file(folder / name) == expected:
        return False
    digest = hashlib.sha256()
    with atomic_writer(folder / name) as target:
        for begin in range(0, expected.num_bytes, BLOCK_BYTES):
            end = min(begin + BLOCK_BYTES, expected.num_bytes)
            block = store.get_range(name, begin, end)
            digest.update(block)
            target.write(block)
        if digest.hexdigest() != expected.sha256:
            raise DatasetError(
                f"{store.address}/{name}: SHA-256 {digest.hexdigest()[:12]} of {expected.num_bytes}"
                f" bytes, expected {expected.sha256[:12]} as in {MANIFEST_NAME}\n"
                "  Push the dataset again."
            )
    return True
