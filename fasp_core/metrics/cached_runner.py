"""Measurements that follow a toggle: only the blocks from the lowest changed layer on are run again.

A prune set decides the input of block l by its parts below l alone. So a `CachedRunner` keeps, for the inputs that it
was asked about, the input of every block with the parts that were off below it, and a new set resumes from the highest
block whose note says what the new set says. This is exact (the same modules see the same numbers), and nothing has
to be taken back when a measurement stops half-way: each note still tells the truth.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fasp_core.data.text import TokenWindows
from fasp_core.forward.ablation import masked
from fasp_core.forward.recorded_pass import RecordedPass, final_hidden
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import no_grad
from fasp_core.metrics.expected import Reader, read_expected, scatter
from fasp_core.metrics.perplexity import BLOCK, Nll, nll_sums, window_packs
from fasp_core.model.devices import sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import free, is_out_of_memory
from fasp_core.model.packing import Pack, halves, pack_rows
from fasp_core.model.passes import in_halves
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
BUDGET = 512 * 2**20  # bytes
BEGIN = 4  # blocks of a window of text that are told first
Seen = Callable[[np.ndarray, np.ndarray], None]  # places of blocks of text [k], and their summed nats [k]


@dataclass(eq=False)
class _Kept:
    """Of one batch: its way through the blocks, and by layer the parts off below it and the input of its block."""

    course: RecordedPass | None = None
    states: dict[int, tuple[PruneSet, Tensor]] = field(default_factory=dict)

    def start(self, prune_set: PruneSet) -> int:
        """The highest layer whose input is there for this set; 0 if a whole pass is needed."""
        if self.course is None:  # its pass was stopped, or nothing is kept
            return 0
        return max(layer for layer, (below, _) in self.states.items() if below == prune_set.below(layer))


@dataclass(eq=False)
class _Group:
    """Batches that are measured together, with every `stride`-th layer kept; 0 keeps none."""

    stride: int
    size: int  # bytes, at most
    batches: list[_Kept]


class CachedRunner:
    """A model, and what is kept of the latest measurements of it. The model's lock guards both.

    Parameters
    ----------
    budget : bytes that may be kept. A group of inputs gets half of it at most, as text and prompts are measured in
        turn; where its layers do not all fit, every k-th is kept. The least recently used group goes first.
    """

    def __init__(self, lm: LanguageModel, budget: int = BUDGET) -> None:
        self.lm = lm
        self.budget = budget
        self._groups: OrderedDict[bytes, _Group] = OrderedDict()
        self.meter: tuple[str, Any] = ("", None)  # the last one that measured here, and of what

    @no_grad
    def measure(
        self,
        inputs: Sequence[Tensor | Pack],
        prune_set: PruneSet,
        read: Callable[[Any, Tensor], T],
        progress: Report | None = None,
        seen: Callable[[int, list[T]], None] | None = None,
    ) -> list[T]:
        """`read(batch, final hidden states [rows, T, D])` of every batch with a set of heads pruned.

        `progress` is called between blocks; what it raises stops the measurement. `seen` is told the place and the
        results of each batch that is done; the batches are then run in a random order, the same each time. Where memory
        does not suffice, what was kept is given up, and then a batch is read in parts, one result each.

        Raises
        ------
        InputError
            A head is not in the model.
        OutOfMemory
            A single row does not fit into memory.
        """
        out: list[list[T]] = [[] for _ in inputs]
        order = range(len(inputs)) if seen is None else _order(len(inputs)).tolist()
        with masked(self.lm, prune_set):
            group = self._group(inputs)
            starts = [kept.start(prune_set) for kept in group.batches]
            done, total = 0, sum(self.lm.n_layers + 1 - start for start in starts)
            hidden: Tensor
            for place, i in enumerate(order):
                batch, kept, start = inputs[i], group.batches[i], starts[i]

                def visit(layer: int, state: Tensor, i: int = place, kept: _Kept = kept, start: int = start) -> None:
                    nonlocal done, hidden
                    hidden = state
                    if group.stride and layer < self.lm.n_layers and layer % group.stride == 0:
                        kept.states[layer] = prune_set.below(layer), state
                    if progress is not None:
                        progress(done, total, f"part {i + 1} of {len(inputs)}, from layer {start} on")
                    done += 1

                def run(part: Tensor | Pack, batch: Any = batch, kept: _Kept = kept, start: int = start) -> T:
                    if part is not batch:
                        return read(part, final_hidden(self.lm, part))
                    if kept.course is not None:
                        kept.course.resume(start, kept.states[start][1], visit)
                    else:
                        course = RecordedPass(self.lm, batch, visit)
                        kept.course = course if group.stride else None
                    return read(batch, hidden)

                try:
                    out[i].append(run(batch))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                if not out[i]:
                    self._give_up(group)
                    out[i] += in_halves(self.lm, run, batch, halves, "a single prompt or window of text")
                if seen is not None:
                    seen(i, out[i])
            if progress is not None:
                progress(total, total, "done")
        return [result for results in out for result in results]

    def _give_up(self, group: _Group) -> None:
        """Free what is kept, and keep half as much from now on; nothing of the group that is being measured."""
        self._groups.clear()
        self.budget //= 2
        group.stride = 0
        for kept in group.batches:
            kept.course = None
            kept.states.clear()
        free()

    def nll(
        self, windows: TokenWindows, prune_set: PruneSet, progress: Report | None = None, seen: Seen | None = None
    ) -> Nll:
        """NLL of a text with a set of heads pruned.

        Parameters
        ----------
        seen : told the places of the blocks of each pack of windows that is done, and their sums; see `measure`. Where
            a window holds twice `BEGIN` blocks, its first ones are run and told before all else: that takes half of
            its time.
        """
        packs, first = window_packs(windows, sizes(self.lm.device).windows)
        sizes_of = [sum(-(-(pack.ids.shape[1] - int(first[p])) // BLOCK) for p in pack.prompts) for pack in packs]
        ends = np.cumsum([0, *sizes_of])

        def read(batch: Pack, hidden: Tensor) -> tuple[np.ndarray, np.ndarray]:
            return nll_sums(self.lm, batch, hidden, first)

        def tell(i: int, found: list[tuple[np.ndarray, np.ndarray]]) -> None:
            if seen is not None:
                seen(np.arange(ends[i], ends[i + 1]), np.concatenate([part for part, _ in found]))

        def looking(*_: object) -> None:
            if progress is not None:
                progress(0, 1, "a look at the beginning of the text")

        if seen is None:
            told = None
        else:
            told, i = tell, int(_order(len(packs))[-1])  # of the pack that is run last
            row, start = packs[i].ids[:1], int(first[packs[i].prompts[0]])
            if row.shape[1] - start >= (2 * BEGIN - 1) * BLOCK:
                begun = pack_rows(row[:, : start + BEGIN * BLOCK], packs[i].prompts[:1])
                found = self.measure([begun], prune_set, read, looking)
                seen(ends[i] + np.arange(BEGIN), found[0][0])
        sums, counts = zip(*self.measure(packs, prune_set, read, progress, told), strict=True)
        return Nll(np.concatenate(sums), np.concatenate(counts))

    def expected(
        self, packs: Sequence[Pack], worth: Reader, prune_set: PruneSet, progress: Report | None = None
    ) -> np.ndarray:
        """[R, n] expected toxicity of each prompt with a set of heads pruned, in every reading."""

        def read(batch: Pack, hidden: Tensor) -> np.ndarray:
            return read_expected(self.lm, hidden, batch, worth)

        return scatter(packs, self.measure(packs, prune_set, read, progress))

    def _group(self, inputs: Sequence[Tensor | Pack]) -> _Group:
        """What is kept of these inputs; others give way if need be."""
        name = _digest(inputs)
        if name not in self._groups:
            self._groups[name] = self._plan(inputs)
        self._groups.move_to_end(name)
        while sum(group.size for group in self._groups.values()) > self.budget:
            self._groups.popitem(last=False)
        return self._groups[name]

    def _plan(self, inputs: Sequence[Tensor | Pack]) -> _Group:
        shapes = [_ids(batch).shape for batch in inputs]
        item = self.lm.model.dtype.itemsize
        layer = item * self.lm.model.config.hidden_size * sum(rows * length for rows, length in shapes)
        masks = item * sum(rows * length**2 for rows, length in shapes)
        for stride in range(1, self.lm.n_layers + 1):
            size = masks + layer * len(range(0, self.lm.n_layers, stride))
            if size <= self.budget / 2:
                return _Group(stride, size, [_Kept() for _ in inputs])
        return _Group(0, 0, [_Kept() for _ in inputs])


def _order(batches: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(batches)


def _ids(batch: Tensor | Pack) -> Tensor:
    return batch.ids if isinstance(batch, Pack) else batch


def _digest(inputs: Sequence[Tensor | Pack]) -> bytes:
    """Tells inputs apart by what the model is called with."""
    found = hashlib.sha256()
    for batch in inputs:
        ids, parents = _ids(batch), batch.parents if isinstance(batch, Pack) else None
        found.update(f"{tuple(ids.shape)} {parents is None}".encode())
        found.update(ids.cpu().numpy().tobytes())
        if parents is not None:
            found.update(parents.tobytes())
    return found.digest()
