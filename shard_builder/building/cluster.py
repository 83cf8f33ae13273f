"""Build on a Dask cluster: the same tasks, through its executor."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from shard_builder.errors import BuildError, InputError

TIMEOUT_S = 15
RETRIES = 3
"""How often a task is tried again when its worker is lost; a shard appears whole or not at all, so
trying again is safe."""


@contextmanager
def cluster_executor(address: str) -> Iterator[Executor]:
    """Connect to a scheduler and hand out its executor. Its workers must see the source and the
    dataset folder by the same paths.

    Args:
        address: ``tcp://host:port``.

    Raises:
        InputError: If Dask is not installed or no scheduler answers.
        BuildError: If the cluster loses a task for good.
    """
    try:
        from distributed import Client
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise InputError(
            "--scheduler needs Dask\n  Install it: pip install 'ckshard[dask]'"
        ) from None
    try:
        client = Client(address, timeout=TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler {address!r}: no scheduler answers ({error}), expected an address such as"
            " tcp://host:8786\n  Start one: dask scheduler; and workers: dask worker"
            " tcp://host:8786"
        ) from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise InputError(
                f"--scheduler {address}: has no workers\n  Start some: dask worker {address}"
            )
        try:
            yield client.get_executor(retries=RETRIES, pure=False)
        except (KilledWorker, FutureCancelledError) as error:
            raise BuildError(
                f"the cluster lost a task for good ({error})\n"
                "  Finished shards are kept. Run the same command again when its workers are back."
            ) from None
