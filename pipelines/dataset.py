"""A dataset, opened: the index mapped into memory, tars mapped when first read, or in a store."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.index_columns import IndexColumns
from pipelines.members import StreamMembers
from pipelines.plan.permutation import Int64
from pipelines.remote_members import RemoteMembers
from pipelines.streams import UInt8, kind_of
from shard_builder.cloud.address import address_of, folder_of
from shard_builder.cloud.metadata import fetch_metadata
from shard_builder.cloud.store import Store
from shard_builder.errors import DatasetError, InputError, counted
from shard_builder.format.index import INDEX_NAME, checked_key, read_index
from shard_builder.format.manifest import Stream, manifest_sha256, read_manifest
from shard_builder.format.streams import NUM_LAST_FRAMES

if TYPE_CHECKING:
    from webdataset import WebDataset


def open_dataset(path: Path | str) -> Dataset:
    """Open a dataset: a folder, or an address such as ``s3://bucket/prefix``.

    Of a folder nothing but the manifest and the index's schema is read. Of a store both files are
    fetched, once for a machine.

    Raises:
        DatasetError: If it is missing, unfinished, damaged or of another version.
        StoreError: If a store cannot be reached.
    """
    address = address_of(path)
    if address is None:
        return Dataset(folder_of(path))
    store = Store(address)
    try:
        folder, notice = fetch_metadata(store)
        return Dataset(folder, store=store, notice=notice)
    except BaseException:
        store.close()
        raise


def _reopen(path: Path | str, sha256: str) -> Dataset:
    dataset = open_dataset(path)
    if dataset.sha256 != sha256:
        raise DatasetError(
            f"{path}: manifest.json has SHA-256 {dataset.sha256[:12]}, expected {sha256[:12]}:"
            " the dataset was replaced since it was pickled"
        )
    return dataset


class Dataset(IndexColumns):
    """An open dataset; also a context manager.

    Args:
        path: The folder; of a store's dataset the one that keeps its manifest and index.
        store: Where the tars are, if not in the folder.
        notice: What is odd about how it was opened, for ``notices``.

    Attributes:
        path: As given.
        address: The folder or the store's address, as people name the dataset.
        manifest: Its manifest.
        labels: Class index of each row, ``int64`` (n,).
    """

    def __init__(self, path: Path, *, store: Store | None = None, notice: str = "") -> None:
        self.store, self.manifest = store, read_manifest(path)
        self.notices = (notice,) if notice else ()
        batch = read_index(
            path / INDEX_NAME, streams=self.manifest.streams, version=self.manifest.version
        )
        super().__init__(path, str(path) if store is None else store.address, batch)
        if len(self) != self.manifest.num_sequences:
            raise DatasetError(
                f"{path / INDEX_NAME}: {counted(len(self), 'row')}, expected"
                f" {self.manifest.num_sequences} as in manifest.json\n"
                f"  Run: ckshard verify {path}, then build the dataset again."
            )
        self.labels = self._integers("label", low=0, high=len(self.manifest.classes) - 1)
        self._members: dict[str, StreamMembers] = {}

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by path and hash: the other process opens the folder itself."""
        return (_reopen, (self.place, self.sha256))

    @property
    def place(self) -> str:
        """Where another process, also one in another folder, opens it."""
        return str(self.path.absolute()) if self.store is None else self.address

    def close(self) -> None:
        """Let go of the mapped tars; a map is closed when the last array on it is gone."""
        for members in self._members.values():
            members.close()
        self._members.clear()
        if self.store is not None:
            self.store.close()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return self.manifest.class_names

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of ``manifest.json``; through its checksums it stands for the whole dataset."""
        return manifest_sha256(self.path)

    def stream(self, name: str) -> Stream:
        """Return the manifest's entry of a stream.

        Raises:
            InputError: If there is no such stream, or the dataset was built without it.
        """
        kind_of(name)
        if name not in self.manifest.streams:
            is_of_stills = kind_of(name).has_pairs and self.num_frames.max() == 1
            advice = (
                "These are stills, which have no motion, so no flow: take rgb, as cktrain rgb does."
                if is_of_stills
                else "Build it: ckshard build SRC DATASET --streams rgb,flow"
            )
            raise InputError(
                f"{self.address}: has no {name} stream, expected one of"
                f" {', '.join(self.manifest.streams)}\n  {advice}"
            )
        return self.manifest.streams[name]

    def num_stored(self, stream: str) -> Int64:
        """Return how many frames (rgb) or pairs (flow) are stored of each row, ``int64`` (n,)."""
        if kind_of(stream).has_pairs:
            return self.num_pairs
        keep = self._num_kept
        return self.num_frames if keep is None else np.minimum(self.apex + 1, keep)

    def num_usable(self, stream: str) -> Int64:
        """Return how many stored pairs (flow) or stored frames up to the apex (rgb) each row has,
        ``int64`` (n,): the last of these frames is the apex.
        """
        if kind_of(stream).has_pairs or self._num_kept is not None:
            return self.num_stored(stream)
        return self.apex + 1

    @property
    def _num_kept(self) -> int | None:
        """How many frames up to the apex the rgb stream keeps; None if it keeps all."""
        return NUM_LAST_FRAMES.get(self.stream("rgb").frames or "all")

    def members(self, stream: str) -> StreamMembers:
        """Return the members of a stream, by row."""
        if stream not in self._members:
            entry, num_stored = self.stream(stream), self.num_stored(stream)
            keeps_all = kind_of(stream).has_pairs or self._num_kept is None
            first_stored = np.zeros_like(num_stored) if keeps_all else self.apex + 1 - num_stored
            make: Callable[..., StreamMembers] = StreamMembers
            if self.store is not None:
                make = partial(
                    RemoteMembers,
                    store=self.store,
                    manifest_sha256=self.sha256,
                    sha256_of={name: file.sha256 for name, file in self.manifest.files.items()},
                )
            members = make(
                self.path,
                stream,
                entry,
                {name: self._column(name) for name in StreamMembers.columns(stream)},
                geometry=self.manifest.geometry,
                num_stored=num_stored,
                first_stored=first_stored,
                num_bytes={name: file.num_bytes for name, file in self.manifest.files.items()},
                key_of=partial(checked_key, self.path / INDEX_NAME, self._batch),
            )
            self._members.setdefault(stream, members)
        return self._members[stream]

    def check_sizes(self) -> None:
        """Compare the sizes of all tars with the manifest's.

        Raises:
            DatasetError: If a tar is missing or has another size.
        """
        for stream in self.manifest.streams:
            self.members(stream).check_sizes()

    def read_member(self, stream: str, row: int, number: int) -> UInt8:
        """Return the bytes of a member; see :meth:`pipelines.members.StreamMembers.read`."""
        return self.members(stream).read(row, number)

    def as_webdataset(self, stream: str) -> WebDataset:
        """Return a plain ``webdataset`` pipeline over the shards of a stream, decoded.

        Its samples are dicts: ``__key__``, ``label`` (class index), and ``planes`` ``uint8``: flow
        (2n, H, W) as x1 y1 x2 y2 ..., rgb (k, H, W, 3); of rgb also ``apex``, the place of the apex
        among the k frames. They come in stored order, which is a
        random one; add ``.shuffle()``, ``.split_by_worker`` and so on as the library has them.

        Raises:
            InputError: If the dataset has no such stream, or is in a store.
        """
        if self.store is not None:
            raise InputError(
                f"{self.address}: webdataset reads folders only\n  Run: ckshard pull, then open it."
            )
        from pipelines.web_pipeline import make_web_pipeline

        geometry = self.manifest.geometry
        return make_web_pipeline(self.path, kind_of(stream), self.stream(stream), geometry)
