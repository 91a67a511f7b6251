"""What the pretended devices have done: kernels launched, waits, and memory that is in use."""

from __future__ import annotations

import math
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

OWN = tuple(str(Path(__file__).with_name(name)) for name in ("ledger.py", "pretend.py"))


@dataclass
class Seen:
    """What ran on the devices.

    Attributes
    ----------
    kernels : launches by operation; views and allocations launch nothing.
    waits : of the program for a device, by (direction, place in the program): "to host" for copies, numbers and
        shapes that the host reads; "to device" for copies out of memory that is not pinned, unless `non_blocking`.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def launched(self) -> int:
        return self.kernels.total()

    @property
    def waited(self) -> int:
        return self.waits.total()


class _Ledger:
    def __init__(self) -> None:
        self.watching: tuple[Seen, ...] = ()
        self.limit: float = math.inf
        self.live = self.peak = 0  # bytes
        self.blocks: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()  # by storage


_l = _Ledger()


@contextmanager
def counting() -> Iterator[Seen]:
    """What runs on the devices in the `with` block."""
    seen = Seen()
    _l.watching += (seen,)
    try:
        yield seen
    finally:
        _l.watching = tuple(s for s in _l.watching if s is not seen)


@contextmanager
def limit(more: float) -> Iterator[None]:
    """In the `with` block the devices have `more` bytes beside those that are in use when it begins."""
    before, _l.limit = _l.limit, _l.live + more
    try:
        yield
    finally:
        _l.limit = before


def allocated() -> int:
    """Bytes of all tensors that live on the devices."""
    return _l.live


def peak(again: bool = False) -> int:
    """The most bytes that lived at once; with `again`, the next call tells those from now on."""
    found = _l.peak
    if again:
        _l.peak = _l.live
    return found


class Block:
    """Memory of one storage, which ends with the last tensor in it."""

    def __init__(self, size: int, refuse: bool) -> None:
        if refuse and _l.live + size > _l.limit:
            raise torch.OutOfMemoryError(f"out of memory: {size:,} bytes were asked for, {_l.live:,} are in use.")
        self.size = size
        _l.live += size
        _l.peak = max(_l.peak, _l.live)

    def __del__(self) -> None:
        _l.live -= getattr(self, "size", 0)  # none where it was refused

    @classmethod
    def of(cls, numbers: torch.Tensor, refuse: bool) -> Block:
        """That of a tensor's storage."""
        storage = numbers.untyped_storage()
        block = _l.blocks.get(storage._cdata)
        if block is None:
            block = _l.blocks[storage._cdata] = cls(storage.nbytes(), refuse)
        return block


def launch(name: str, kernels: int = 1) -> None:
    for seen in _l.watching:
        seen.kernels[name] += kernels


def wait(direction: str) -> None:
    if not _l.watching:
        return
    frame: Any = sys._getframe(1)
    while frame is not None and _elsewhere(frame.f_code.co_filename):
        frame = frame.f_back
    place = "?" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    for seen in _l.watching:
        seen.waits[direction, place] += 1


def _elsewhere(file: str) -> bool:
    return file in OWN or file.startswith("<") or "site-packages" in file
