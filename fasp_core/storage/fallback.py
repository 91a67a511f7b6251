"""Results that could not be written: kept in memory while the process runs, and written once there is room again.

A disk may be full or read-only, and hours of work must not end with that. Every folder of results has one `Shelf` in a
process, so that all who ask for a result find it there.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fasp_core.storage.entry import Entry

MAX_BYTES = 512 * 2**20  # of results in memory; the oldest go first
Files = dict[str, bytes]
logger = logging.getLogger("fasp_core.storage.store")


class Shelf:
    """Entries of one folder that are in memory alone. Safe to use from any thread.

    Attributes
    ----------
    trouble : why something could not be written, in a sentence; None when all is written.
    """

    def __init__(self) -> None:
        self.trouble: str | None = None
        self._lock = threading.Lock()
        self._kept: OrderedDict[Path, tuple[Entry, Files]] = OrderedDict()

    def note(self, error: Exception) -> None:
        """Remember why something was not written; said once until it could be again."""
        if self.trouble != str(error):
            self.trouble = str(error)
            logger.warning("Results stay in memory until this program ends. %s", error)

    def put(self, entry: Entry, files: Files) -> None:
        """Keep an entry and the bytes of its files."""
        with self._lock:
            self._kept[entry.path] = entry, files
            while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > MAX_BYTES:
                path, _ = self._kept.popitem(last=False)
                logger.warning("There is no room in memory for %s: it will have to be computed again.", path)

    def get(self, path: Path) -> Entry | None:
        """The entry that belongs at `path`, whatever its label."""
        with self._lock:
            return next((e for at, (e, _) in self._kept.items() if _same(at, path)), None)

    def drop(self, path: Path) -> None:
        """Forget the entry that belongs at `path`."""
        with self._lock:
            for at in [at for at in self._kept if _same(at, path)]:
                del self._kept[at]

    def all(self) -> list[tuple[Entry, Files]]:
        """What is kept, the oldest first."""
        with self._lock:
            return list(self._kept.values())


_shelves: dict[Path, Shelf] = {}


def shelf(root: Path) -> Shelf:
    """The one of a folder of results."""
    return _shelves.setdefault(root, Shelf())


def _same(one: Path, other: Path) -> bool:
    """Whether two folders are of one kind and digest."""
    return one.parent == other.parent and one.name[-16:] == other.name[-16:]


def _size(kept: tuple[Entry, Files]) -> int:
    return sum(map(len, kept[1].values()))
