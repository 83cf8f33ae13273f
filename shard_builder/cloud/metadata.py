"""``manifest.json`` and ``index.arrow`` of a dataset in a store: fetched once, kept by hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from shard_builder.cloud.store import Store
from shard_builder.errors import DatasetError, InputError, StoreError
from shard_builder.files import digest_file, folder_inside, read_regular, write_atomically
from shard_builder.format.index import INDEX_NAME
from shard_builder.format.manifest import MANIFEST_NAME, MOST_BYTES, Manifest, parse_manifest

MOST_INDEX_BYTES = 1 << 32


def fetch_metadata(store: Store) -> tuple[Path, str]:
    """Return the folder of this machine that holds manifest and index of a store's dataset.

    It is named by the manifest's SHA-256; processes may fetch the same at once. Where the store
    cannot be reached, what was there last time is opened.

    Returns:
        The folder, and a notice if the store could not be reached.

    Raises:
        DatasetError: If there is no dataset, or one that is damaged.
        StoreError: If the store cannot be reached and this machine knows nothing of the dataset.
    """
    base = cache_folder()
    known = base / f"{hashlib.sha256(store.address.encode()).hexdigest()}.address"
    try:
        data = store.get(MANIFEST_NAME, most_bytes=MOST_BYTES)
    except StoreError as error:
        folder = _known_folder(base, known)
        if folder is None:
            raise
        return folder, f"notice: {error}; resumed from what this machine keeps of the dataset"
    except DatasetError as error:
        raise DatasetError(
            f"{error}\n  Is it the address of a dataset? ckshard push writes {MANIFEST_NAME} last."
        ) from None
    sha256 = hashlib.sha256(data).hexdigest()
    manifest = parse_manifest(data, place=f"{store.address}/{MANIFEST_NAME}")
    folder = folder_inside(base, sha256, make=True)
    if not _is_whole(folder, sha256, manifest):
        write_atomically(folder / INDEX_NAME, _fetch_index(store, manifest))
        write_atomically(folder / MANIFEST_NAME, data)
    write_atomically(known, sha256.encode())
    return folder, ""


def cache_folder() -> Path:
    """Return the folder in the user's cache that keeps manifests and indexes."""
    import pooch

    folder = Path(pooch.os_cache("ckshard")) / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_unchanged(store: Store, sha256: str) -> None:
    """Make sure that a store still holds the dataset that was opened.

    Raises:
        DatasetError: If its manifest is another one, or gone.
    """
    begin = f"{store.address}: was replaced while it was read: {MANIFEST_NAME}"
    try:
        found = hashlib.sha256(store.get(MANIFEST_NAME, most_bytes=MOST_BYTES)).hexdigest()
    except StoreError:
        raise
    except DatasetError:
        raise DatasetError(f"{begin} is gone\n  Push the dataset again.") from None
    if found != sha256:
        raise DatasetError(
            f"{begin} has SHA-256 {found[:12]}, expected {sha256[:12]}\n  Start again."
        )


def _fetch_index(store: Store, manifest: Manifest) -> bytes:
    expected = manifest.files.get(INDEX_NAME)
    if expected is None or expected.num_bytes > MOST_INDEX_BYTES:
        raise DatasetError(f"{store.address}/{MANIFEST_NAME}: lists no {INDEX_NAME} of usual size")
    data = store.get(INDEX_NAME, most_bytes=expected.num_bytes)
    found = hashlib.sha256(data).hexdigest()
    if found != expected.sha256:
        raise DatasetError(
            f"{store.address}/{INDEX_NAME}: SHA-256 {found[:12]} of {len(data)} bytes, expected"
            f" {expected.sha256[:12]} of {expected.num_bytes} as in {MANIFEST_NAME}\n"
            "  Push the dataset again."
        )
    return data


def _is_whole(folder: Path, sha256: str, manifest: Manifest) -> bool:
    """Tell whether a folder's files have the hashes they must have."""
    try:
        return digest_file(folder / MANIFEST_NAME).sha256 == sha256 and digest_file(
            folder / INDEX_NAME
        ) == manifest.files.get(INDEX_NAME)
    except InputError:
        return False


def _known_folder(base: Path, known: Path) -> Path | None:
    """Return the folder of what an address held last time; None if that is not here, or damaged."""
    try:
        sha256 = read_regular(known, most_bytes=64).decode("ascii", "replace")
        folder = folder_inside(base, sha256)
        data = read_regular(folder / MANIFEST_NAME, most_bytes=MOST_BYTES)
        manifest = parse_manifest(data, place=str(folder / MANIFEST_NAME))
    except InputError:
        return None
    return folder if _is_whole(folder, sha256, manifest) else None
