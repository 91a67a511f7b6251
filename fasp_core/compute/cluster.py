"""A Dask cluster as `Workers`: how it is reached, what its workers must have, and what its troubles are called.

Dask is not among the program's requirements: `pip install -r requirements-cluster.txt`. See docs/cluster.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fasp_core.compute.shards import Workers, order_of, other_versions, register, versions
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.model.language_model import LanguageModel

PATIENCE = 60.0  # seconds without any worker
AGAIN = "What was finished is kept: the same command goes on from there."


class Cluster:
    """A connection to a scheduler whose workers have the program in the same versions.

    Parameters
    ----------
    address : such as "tcp://10.0.0.5:8786".
    wait : seconds to wait for the scheduler, and for a first worker.

    Raises
    ------
    InputError
        Dask is not installed, nobody answers, there is no worker, or one has other versions.
    """

    def __init__(self, address: str, wait: float = 10.0) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise InputError(
                "Other machines are reached through Dask, which is not installed: run 'pip install -r "
                "requirements-cluster.txt'."
            ) from error
        self.address = address
        try:
            self._client = Client(address, timeout=wait, set_as_default=False, name="fasp-studio")
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise InputError(
                f"No scheduler answers at '{address}': start one with 'dask scheduler', and give the address that it "
                "prints, such as tcp://10.0.0.5:8786."
            ) from error
        self._without_since: float | None = None
        try:
            self._check(wait)
        except BaseException:
            self.close()
            raise

    def workers(self, lm: LanguageModel) -> Workers:
        """Its workers, for one model, which each of them loads once and keeps."""
        register(lm)  # for workers inside this process
        return Workers(self._client.get_executor(pure=False), order_of(lm), self.width, self._explain)

    def width(self) -> int:
        """How many workers there are now. Raises InputError if there has been none for a minute, or no scheduler."""
        try:
            found = len(self._client.scheduler_info(n_workers=-1)["workers"])
        except Exception as error:  # whatever a closed connection raises
            raise self._lost() from error
        if found:
            self._without_since = None
            return found
        if self._client.status != "running":
            raise self._lost()
        now = time.monotonic()
        self._without_since = self._without_since or now
        if now - self._without_since > PATIENCE:
            raise InputError(
                f"No worker is left at {self.address}: start one with 'dask worker {self.address}'. {AGAIN}"
            )
        return 0

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        self._client.close(timeout=5)

    def _check(self, wait: float) -> None:
        try:
            self._client.wait_for_workers(1, timeout=wait)
        except TimeoutError as error:
            raise InputError(
                f"The scheduler at {self.address} has no workers: start one with 'dask worker {self.address}'."
            ) from error
        for who, found in self._client.run(versions, on_error="return").items():
            if isinstance(found, BaseException):
                raise self._explain(found, who) or found
            if (wrong := other_versions(versions(), found, who)) is not None:
                raise wrong

    def _explain(self, error: BaseException, who: str = "of the cluster") -> InputError | None:
        from concurrent.futures import CancelledError

        from distributed.scheduler import KilledWorker

        if isinstance(error, ImportError | AttributeError) and "fasp_core" in str(error):
            return InputError(f"A worker {who} has no such program: install the same version of FASP Studio there.")
        if isinstance(error, KilledWorker):
            return InputError(
                f"{error.allowed_failures + 1} workers died on the same piece of work, most likely for lack of memory: "
                f"give each worker more memory, or start fewer on a machine. {AGAIN}"
            )
        if isinstance(error, CancelledError):
            return self._lost()
        return None

    def _lost(self) -> InputError:
        return InputError(f"The scheduler at {self.address} is gone: start it and its workers again. {AGAIN}")


@contextmanager
def connected(address: str | None) -> Iterator[Cluster | None]:
    """The cluster at an address for the time of the `with` block; None without an address. Raises as `Cluster`."""
    cluster = Cluster(address) if address else None
    try:
        yield cluster
    finally:
        if cluster is not None:
            cluster.close()


def workers_of(cluster: Cluster | None, lm: LanguageModel) -> Any:
    """Its workers for a model; None without a cluster. Raises InputError where heads are taken out by constants."""
    if cluster is not None and lm.constants is not None:
        raise InputError(
            "Workers of a cluster take heads out by zero: leave --ablation or --scheduler out, in the app choose zero."
        )
    return None if cluster is None else cluster.workers(lm)
