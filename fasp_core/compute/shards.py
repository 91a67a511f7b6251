"""Work cut into shards: functions of the model alone, which run here, or on whatever has an `Executor`'s form.

A shard holds token ids, what is read of them and which heads are off, so a worker needs the program and the model, and
neither prompts nor scorer nor cache. Here one shard is all the work, and gives its results one by one. For `Workers`
the work is cut by heads and by batches. A batch is never cut: whoever runs it runs the same numbers in the same shapes,
with as many threads, so the results are those of one machine bit for bit (on processors of one kind). A shard that is
back is on disk, and one that is lost is run again, alone.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fasp_core.errors import InputError
from fasp_core.lazy import torch
from fasp_core.model import loading
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.provenance import VERSION
from fasp_core.model.spec import ModelSpec

StopCheck = Callable[[], None]  # called while work goes on; raises to stop it
AHEAD = 2  # shards a worker that are handed out before they can begin
CUTS = 16  # shards a worker, about: what a lost one costs, and how evenly the last ones end
RUN = 20  # heads of a shard, at least on average: each shard begins with a pass of its own
TICK = 0.5  # seconds


class Shard(Protocol):
    """What can run anywhere: it can be pickled, and needs the model alone."""

    def run(self, lm: LanguageModel) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Order:
    """What a worker has to be and to have: the same program, and the same weights."""

    spec: ModelSpec
    weights_id: str
    threads: int
    versions: dict[str, str]
    device: str = ""  # kind, where numbers depend on it: see `ModelId`


@dataclass(eq=False)
class Workers:
    """An executor whose workers hold the model.

    Attributes
    ----------
    executor : of `concurrent.futures`, or in its form; what it runs may be pickled.
    width : how many workers there are now.
    explain : an `InputError` for what the executor's own machinery raises, None for other errors.
    """

    executor: Executor
    order: Order
    width: Callable[[], int]
    explain: Callable[[BaseException], InputError | None] = lambda error: None

    @classmethod
    def of(cls, executor: Executor, lm: LanguageModel, width: int) -> Workers:
        """Of any executor. Its workers in this process share `lm`, others load the model by themselves."""
        register(lm)
        return cls(executor, order_of(lm), lambda: width)

    def run(self, shards: Sequence[Shard], tell: StopCheck) -> Iterator[tuple[int, list[Any]]]:
        """(number, all results) of each shard as they come. Those that have not begun are withdrawn at the end.

        Raises
        ------
        InputError
            A worker of another version or without the model, or none at all; and what `tell` raises.
        """
        waiting = deque(enumerate(shards))
        running: dict[Future[list[Any]], int] = {}
        try:
            while waiting or running:
                room = AHEAD * max(1, self.width()) - len(running)
                for i, shard in [waiting.popleft() for _ in range(min(room, len(waiting)))]:
                    running[self.executor.submit(work, self.order, shard)] = i
                done, _ = wait(running, timeout=TICK, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), self._result(future)
                tell()
        finally:
            for future in running:
                future.cancel()

    def _result(self, future: Future[list[Any]]) -> list[Any]:
        try:
            return future.result()
        except Exception as error:
            if (why := self.explain(error)) is not None:
                raise why from error
            raise


def order_of(lm: LanguageModel) -> Order:
    """What workers must be to stand in for this process and its model."""
    return Order(lm.spec, lm.weights_id, torch.get_num_threads(), versions(), lm.id.device)


@cache
def versions() -> dict[str, str]:
    """What shapes numbers beside the model and the processor: equal on all workers."""
    import transformers

    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        code.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return {
        "fasp-studio": f"{VERSION} (code {code.hexdigest()[:8]})",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def other_versions(wanted: dict[str, str], found: dict[str, str], who: str) -> InputError | None:
    """The sentence about the first package of another version; None if all are the same."""
    for name, version in wanted.items():
        if found.get(name) != version:
            return InputError(
                f"The worker {who} has {name} {found.get(name, 'in no version')}, and {version} is here: install the "
                "same versions there, and start the worker again."
            )
    return None


_shared: OrderedDict[tuple[ModelSpec, str], LanguageModel] = OrderedDict()
_shared_lock = threading.Lock()


def register(lm: LanguageModel) -> None:
    """Workers in this process use this very model."""
    with _shared_lock:
        _shared.clear()  # one at a time: it may fill the machine
        _shared[lm.spec, lm.weights_id] = lm


def shared_model(spec: ModelSpec, weights_id: str) -> LanguageModel:
    """The model, loaded once a process. Raises InputError where it cannot be had, or has other weights."""
    with _shared_lock:
        if (spec, weights_id) in _shared:
            return _shared[spec, weights_id]
        _shared.clear()
        try:
            lm = loading.load(spec)
        except InputError as error:
            raise InputError(f"The worker on {socket.gethostname()} has no such model. {error}") from error
        if lm.weights_id != weights_id:
            raise InputError(
                f"'{spec.source}' on {socket.gethostname()} has other weights than here: copy the same files there."
            )
        _shared[spec, weights_id] = lm
        return lm


def work(order: Order, shard: Shard) -> list[Any]:
    """What a worker does with a shard."""
    if (wrong := other_versions(order.versions, versions(), f"on {socket.gethostname()}")) is not None:
        raise wrong
    torch.set_num_threads(order.threads)  # another number may add up in another order
    lm = shared_model(order.spec, order.weights_id)
    if lm.id.device != order.device:
        raise InputError(
            f"The worker on {socket.gethostname()} computes in {lm.spec.dtype} on {lm.device.type}, and {order.device} "
            "is here, which rounds otherwise: choose float32, or the same kind of device."
        )
    return list(shard.run(lm))


def results(
    lm: LanguageModel, shards: Sequence[Shard], workers: Workers | None, tell: StopCheck
) -> Iterator[tuple[int, Any]]:
    """(number of the shard, one of its results): here one after the other, or as the workers bring them."""
    if workers is None:
        for i, shard in enumerate(shards):
            for found in shard.run(lm):
                yield i, found
    else:
        for i, many in workers.run(shards, tell):
            for found in many:
                yield i, found


def cut(
    heads: Sequence[int], batches: Sequence[int], n_layers: int, n_heads: int, pieces: int, layers: bool = False
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """About so many rectangles of heads and batches, of about the same work; a run of heads keeps its order.

    First the batches are dealt out, which costs nothing. A cut between heads costs a pass for every batch, so runs
    hold `RUN` heads or more on average. The lowest heads, which take longest, come first. With `layers`, heads of a
    layer stay together: on an accelerator they run in one pass, whose shapes are then the same on any worker.
    """
    groups = [tuple(batches[i :: min(len(batches), pieces)]) for i in range(min(len(batches), pieces))]
    n_runs = max(1, min(-(-pieces // len(groups)), len(heads) // RUN))
    cost = np.cumsum([n_layers + 1 if flat < 0 else n_layers - flat // n_heads + 1 for flat in heads])
    edges = np.searchsorted(cost, np.linspace(0, cost[-1], n_runs + 1)[1:-1], side="left") + 1
    if layers:
        begins = [i for i in range(1, len(heads)) if heads[i] // n_heads != heads[i - 1] // n_heads]
        edges = np.array(sorted({next((b for b in begins if b >= edge), len(heads)) for edge in edges}), dtype=int)
    runs = [run for run in np.split(np.array(heads), edges) if len(run)]
    return [(tuple(run.tolist()), group) for run in runs for group in groups]
