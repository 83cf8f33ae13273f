"""Build on a Dask cluster: the same tasks, through its executor."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from shard_builder.errors import BuildError, InputError

TIMEOUT_S = 15
RETRIES = 3
"""How often a task whose worker is lost is tried again; safe, as a shard appears whole or never."""


@contextmanager
def cluster_executor(scheduler: str) -> Iterator[Executor]:
    """Connect to a scheduler and hand out its executor.

    Its workers must see the source and the dataset folder by the same paths.

    Args:
        scheduler: Address, ``tcp://host:port``.

    Raises:
        InputError: If Dask is not installed or no scheduler answers.
        BuildError: If the cluster loses a task for good.
    """
    what = f"scheduler={scheduler!r}"
    try:
        from distributed import Client
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise InputError(f"{what} needs Dask\n  Install it: pip install 'ckshard[dask]'") from None
    try:
        client = Client(scheduler, timeout=TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{what}: no scheduler answers ({error}), expected an address such as"
            " tcp://host:8786\n"
            "  Start one: dask scheduler; and workers: dask worker tcp://host:8786"
        ) from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise InputError(f"{what} has no workers\n  Start some: dask worker {scheduler}")
        try:
            yield client.get_executor(retries=RETRIES, pure=False)
        except (KilledWorker, FutureCancelledError) as error:
            raise BuildError(
                f"the cluster lost a task for good ({error})\n"
                "  Finished shards are kept. Run the same again when its workers are back."
            ) from None
