"""Locks between processes and between threads; who waits for one can be told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import filelock

LOOK = 0.5  # seconds between two looks at whether to stop

_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def stoppable(check: Callable[[], None]) -> Iterator[None]:
    """In the `with` block who waits for a lock in this thread asks `check`, which raises where it is to stop."""
    before = _check.set(check)
    try:
        yield
    finally:
        _check.reset(before)


@contextmanager
def held(lock: filelock.BaseFileLock) -> Iterator[None]:
    """The lock, held in the `with` block. Raises OSError where it cannot be made, and what `stoppable` was given."""
    acquire(lock)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def turn(lock: threading.Lock | threading.RLock) -> Iterator[None]:
    """As `held`, of a lock that another thread may hold for long."""
    check()
    while not lock.acquire(timeout=LOOK):
        check()
    try:
        yield
    finally:
        lock.release()


def check() -> None:
    """Raise what `stoppable` was given, where work of this thread is to stop."""
    if (asked := _check.get()) is not None:
        asked()


def acquire(lock: filelock.BaseFileLock) -> None:
    """Take a lock, however long another process holds it. Raises as `held`."""
    while True:
        check()
        try:
            lock.acquire(timeout=LOOK)
        except filelock.Timeout:
            continue
        return
