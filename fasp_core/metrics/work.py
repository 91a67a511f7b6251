"""What workers do: heads ablated in turn from text or prompts, gradients, continuations, sets measured."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.compute.shards import CUTS, StopCheck, Workers, cut, results
from fasp_core.data.text import TokenWindows
from fasp_core.forward.ablation import masked
from fasp_core.forward.gate_gradients import functional_gradients
from fasp_core.forward.sampling import GenerationConfig, sample
from fasp_core.forward.sweep import Read, sweep_heads
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import torch
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.expected import Reader, read_expected
from fasp_core.metrics.perplexity import ending_nll, nll_sums
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, halves, pack_rows
from fasp_core.model.passes import in_halves
from fasp_core.storage.parts import Parts

if TYPE_CHECKING:
    from torch import Tensor

SHARD = "shard-"  # names of what is kept of unfinished work


@dataclass(frozen=True, eq=False)
class Windows:
    """Rows of text of one length, read as NLL: [blocks] sums of nats.

    Attributes
    ----------
    ids : [rows, T].
    first : [rows] first target position that is scored.
    """

    ids: Tensor
    first: np.ndarray

    @property
    def digest(self) -> str:
        return _digest(self.ids, self.first)

    def on(self, _device: torch.device | str) -> Windows:
        return self

    @staticmethod
    def packs(lm: LanguageModel, batches: Sequence[Windows]) -> tuple[list[Pack], Read]:
        """What is run, and how it is read."""
        ends = np.cumsum([0, *(len(b.ids) for b in batches)])
        first = np.concatenate([b.first for b in batches])
        packs = [pack_rows(b.ids, np.arange(*span)) for b, span in zip(batches, pairwise(ends), strict=True)]
        return packs, lambda part, hidden: nll_sums(lm, part, hidden, first)[0]


@dataclass(frozen=True, eq=False)
class Prompts:
    """A pack of prompts, read as expected toxicity: [m, R]."""

    pack: Pack
    worth: Reader

    @property
    def digest(self) -> str:
        parents = np.zeros(0) if self.pack.parents is None else self.pack.parents
        return _digest(self.pack.ids, self.pack.reads, parents)

    def on(self, device: torch.device | str) -> Prompts:
        return replace(self, worth=self.worth.on(device))

    @staticmethod
    def packs(lm: LanguageModel, batches: Sequence[Prompts]) -> tuple[list[Pack], Read]:
        """What is run, and how it is read: with the values of words that all of them share."""
        worth = batches[0].worth.on(lm.device)
        return [b.pack for b in batches], lambda part, hidden: read_expected(lm, hidden, part, worth)


@dataclass(frozen=True, eq=False)
class Endings(Windows):
    """Rows of text of one length, of which only what stands from `first` on is read: [rows] sums of nats."""

    @staticmethod
    def packs(lm: LanguageModel, batches: Sequence[Windows]) -> tuple[list[Pack], Read]:
        """What is run, without each row's last token, and how it is read."""
        whole = [row for b in batches for row in b.ids]
        first = np.concatenate([b.first for b in batches])
        ends = np.cumsum([0, *(len(b.ids) for b in batches)])
        packs = [pack_rows(b.ids[:, :-1], np.arange(*span)) for b, span in zip(batches, pairwise(ends), strict=True)]
        return packs, lambda part, hidden: ending_nll(lm, part, hidden, whole, first)


Batch = Windows | Prompts


@dataclass(frozen=True, eq=False)
class Sweep:
    """Heads (flat ids, ascending; -1 first: the whole model) removed in turn: gives (head, readings of all batches)."""

    heads: tuple[int, ...]
    batches: tuple[Batch, ...]  # all of one kind

    def run(self, lm: LanguageModel) -> Iterator[tuple[int, list[np.ndarray]]]:
        kind: Any = type(self.batches[0])
        packs, read = kind.packs(lm, self.batches)
        yield from sweep_heads(lm, packs, read, set(range(-1, lm.size)) - set(self.heads))


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """One backward pass a reading: gives values [m, R] and effects [N, R, m] of one pack of prompts of equal length."""

    batch: Prompts

    def run(self, lm: LanguageModel) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        worth = self.batch.worth.on(lm.device)

        def run(pack: Pack) -> tuple[np.ndarray, np.ndarray]:
            def read(hidden: Tensor) -> Tensor:
                each = worth.columns(lm, hidden, pack)
                return each.mean(1) if worth.spread else each.sum(1)

            return functional_gradients(lm, pack.ids, read)

        found = in_halves(lm, run, self.batch.pack, halves, "a single prompt")
        yield np.concatenate([values for values, _ in found]), np.concatenate([effects for _, effects in found], axis=2)


@dataclass(frozen=True, eq=False)
class Written:
    """Continuations of the same prompts with heads ablated in turn: gives (head, texts by prompt)."""

    heads: tuple[int, ...]
    texts: tuple[str, ...]
    drawn: GenerationConfig

    def run(self, lm: LanguageModel) -> Iterator[tuple[int, list[list[str]]]]:
        for flat in self.heads:
            with masked(lm, PruneSet() if flat < 0 else PruneSet.from_flat([flat], lm.n_heads)):
                found = sample(lm, self.texts, self.drawn)
            yield flat, found


@dataclass(frozen=True, eq=False)
class Sets:
    """Sets of heads measured on a text and on prompts: gives (set, NLL, toxicity [R, n], seconds of both)."""

    sets: tuple[tuple[int, ...], ...]
    windows: TokenWindows
    packs: tuple[Pack, ...]
    worth: Reader

    def run(self, lm: LanguageModel) -> Iterator[tuple[tuple[int, ...], Any, np.ndarray, tuple[float, float]]]:
        runner, worth = CachedRunner(lm), self.worth.on(lm.device)
        for heads in self.sets:
            subject, began = PruneSet.from_flat(heads, lm.n_heads), time.monotonic()
            nll, half = runner.nll(self.windows, subject), time.monotonic()
            values = runner.expected(self.packs, worth, subject)
            yield heads, nll, values, (half - began, time.monotonic() - half)


def _digest(*arrays: Tensor | np.ndarray) -> str:
    found = hashlib.sha256()
    for array in map(np.asarray, arrays):
        found.update(f"{array.shape} {array.dtype} ".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def swept(
    lm: LanguageModel,
    batches: Sequence[Batch],
    heads: Sequence[int],
    workers: Workers | None,
    parts: Parts,
    tell: StopCheck,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """(head, readings of all batches) of `heads` (flat ids, -1 for the whole model), in the order they are found.

    Parameters
    ----------
    parts : shards of an earlier run are taken from there, and new ones put there. Without workers a head is whole
        once it is found, and who asked keeps it.
    """
    names = [batch.digest for batch in batches]
    known = _kept(parts)
    lacking: dict[tuple[int, ...], list[int]] = {}
    for flat in sorted(heads):
        lack = tuple(b for b, name in enumerate(names) if (flat, name) not in known)
        lacking.setdefault(lack, []).append(flat)
    cuts: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for lack, flats in lacking.items():
        if not lack:
            for flat in flats:
                yield flat, [known[flat, name] for name in names]
        elif workers is None:
            cuts.append((tuple(flats), lack))
        else:
            cuts += cut(flats, lack, lm.n_layers, lm.n_heads, CUTS * workers.width(), lm.device.type != "cpu")
    away = batches if workers is None else [batch.on("cpu") for batch in batches]
    shards = [Sweep(flats, tuple(away[b] for b in those)) for flats, those in cuts]
    if workers is None:
        for i, (flat, readings) in results(lm, shards, None, tell):
            known.update(((flat, names[b]), values) for b, values in zip(cuts[i][1], readings, strict=True))
            yield flat, [known[flat, name] for name in names]
        return
    for i, many in workers.run(shards, tell):
        those = [names[b] for b in cuts[i][1]]
        removed = np.array(cuts[i][0])
        stacked = {name: np.stack([readings[k] for _, readings in many]) for k, name in enumerate(those)}
        parts.save(f"{SHARD}{_digest(removed, np.array(those))}", {"heads": removed, **stacked})
        for flat, readings in many:
            known.update(((flat, name), values) for name, values in zip(those, readings, strict=True))
            if all((flat, name) in known for name in names):
                yield flat, [known[flat, name] for name in names]


def _kept(parts: Parts) -> dict[tuple[int, str], np.ndarray]:
    """Readings of earlier shards by head and batch."""
    known: dict[tuple[int, str], np.ndarray] = {}
    for name in parts.names():
        if name.startswith(SHARD) and (part := parts.load(name)) is not None:
            flats = part.pop("heads").tolist()
            for batch, rows in part.items():
                known.update(((flat, batch), row) for flat, row in zip(flats, rows, strict=True))
    return known
