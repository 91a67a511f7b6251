"""One ablated pass per head, each resumed from the head's own layer.

On an accelerator the heads of a layer run side by side, as rows of one pass with gates by row: launching a kernel costs
as much time there as many rows do. On a CPU they run one by one, which is as fast and takes less memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fasp_core.forward.ablation import gated, masked
from fasp_core.forward.recorded_pass import ResumablePass
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import no_grad, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import two
from fasp_core.model.packing import Pack, halves, repeated
from fasp_core.model.passes import NotFinite, in_halves

if TYPE_CHECKING:
    from torch import Tensor

Batch: TypeAlias = "Tensor | Pack"
# (batch, or part or repetition of one, its final hidden states) -> to keep
Read: TypeAlias = "Callable[[Any, Tensor], np.ndarray]"
ROOM = "a single row of tokens"
TOKENS = {"cpu": 0, "mps": 1 << 13}  # of one pass, at most, where more than one head is in it
MANY = 1 << 14  # on other devices: enough to keep any of them busy


@no_grad
def sweep_heads(
    lm: LanguageModel,
    batches: Sequence[Tensor | Pack],
    read: Read,
    skip: Collection[int] = (),
    together: int | None = None,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Ablate every head in turn, layer by layer.

    Raises as `in_halves`.

    Parameters
    ----------
    batches : token rows [rows, T], or packs of prompts.
    read : what it gives has rows or prompts, or equally many parts of each, along its first axis.
    skip : flat ids that are not wanted (finished before); -1 for the unmasked model.
    together : heads of a layer in one pass, at most; None: what suits the device, see `at_once`.

    Yields
    ------
    (-1, readings of the unmasked model), then (flat id, readings under that head's ablation), ascending. There is one
    reading a batch; of one that did not fit into memory, the readings of its parts joined along their first axis. The
    model is locked only while it runs, so other users come in between.
    """
    wanted = [i for i in range(lm.size) if i not in set(skip)]
    lowest = wanted[0] // lm.n_heads if wanted else 0

    def begin(batch: Batch) -> tuple[ResumablePass, Any]:
        s = ResumablePass(lm, batch, lowest)
        reading = None if -1 in skip else read(batch, s.base)
        del s.base
        return s, reading

    now = [in_halves(lm, begin, batch, halves, ROOM) for batch in batches]
    if -1 not in skip:
        yield -1, [_joined([reading for _, reading in parts]) for parts in now]
    held = [_Held(lm, [s for s, _ in parts], read, together or at_once(lm, parts[0][0].batch)) for parts in now]
    del now
    widest = max((h.width for h in held), default=1)
    for layer, heads in groupby(wanted, lambda flat: flat // lm.n_heads):
        flats = list(heads)
        for start in range(0, len(flats), widest):
            some = flats[start : start + widest]
            found = [h.removed(layer, some) for h in held]
            for i, flat in enumerate(some):
                yield flat, [readings[i] for readings in found]


def at_once(lm: LanguageModel, batch: Tensor | Pack) -> int:
    """How many heads of a layer run in one pass of this batch on the model's device."""
    tokens = batch.numel() if isinstance(batch, torch.Tensor) else batch.ids.numel()
    return min(max(1, TOKENS.get(lm.device.type, MANY) // tokens), lm.n_heads)


class _Held:
    """A batch at the input of a block: whole, or as parts of it for which there was memory.

    Attributes
    ----------
    width : heads in one pass; halved, for good, when memory has ended.
    """

    def __init__(self, lm: LanguageModel, parts: list[ResumablePass], read: Read, width: int) -> None:
        self.lm, self.parts, self.read, self.width = lm, parts, read, width

    def removed(self, layer: int, flats: Sequence[int]) -> list[np.ndarray]:
        """The reading with each of these heads of a layer removed."""
        self._each(lambda s: _up_to(s, layer))
        found: list[np.ndarray] = []
        while len(found) < len(flats):
            some = flats[len(found) : len(found) + self.width]
            for readings in in_halves(self.lm, self._side_by_side, some, self._fewer, ROOM):
                found += readings
        return found

    def _fewer(self, flats: Sequence[int]) -> list[Sequence[int]]:
        self.width = max(1, len(flats) // 2)
        return two(flats)

    def _side_by_side(self, flats: Sequence[int]) -> list[np.ndarray]:
        if len(flats) > self.width:  # memory has ended meanwhile
            starts = range(0, len(flats), self.width)
            return [found for i in starts for found in self._side_by_side(flats[i : i + self.width])]
        if len(flats) == 1:
            return [self._alone(flats[0])]
        with suppress(NotFinite):
            parts = [np.split(self._read(s, flats), len(flats)) for s in self.parts]
            return [_joined([readings[i] for readings in parts]) for i in range(len(flats))]
        return [self._alone(flat) for flat in flats]  # so that the error names the head whose removal it was

    def _read(self, s: ResumablePass, flats: Sequence[int]) -> np.ndarray:
        lm = self.lm
        gates = np.stack([PruneSet.from_flat([flat], lm.n_heads).gates(lm.n_layers, lm.n_heads) for flat in flats])
        with gated(lm, gates.repeat(len(s.hidden), axis=0)):
            return self.read(repeated(s.batch, len(flats)), s.resume(len(flats)))

    def _alone(self, flat: int) -> np.ndarray:
        with masked(self.lm, PruneSet.from_flat([flat], self.lm.n_heads)):
            return _joined(self._each(lambda s: self.read(s.batch, s.resume())))

    def _each(self, run: Callable[[ResumablePass], Any]) -> list[Any]:
        """What it gives for every part; parts for which there is no memory are halved."""
        pairs = [p for s in self.parts for p in in_halves(self.lm, lambda s: (s, run(s)), s, _parts, ROOM)]
        self.parts = [s for s, _ in pairs]
        return [found for _, found in pairs]


def _up_to(s: ResumablePass, layer: int) -> None:
    while s.layer < layer:
        s.advance()


def _joined(readings: list[np.ndarray]) -> np.ndarray:
    return readings[0] if len(readings) == 1 else np.concatenate(readings)


def _parts(s: ResumablePass) -> list[ResumablePass]:
    """A held batch as two that begin again, at the block that it was held at."""
    if len(parts := halves(s.batch)) < 2:
        return [s]
    s.let_go()
    lm, layer = s.lm, s.layer

    def again(batch: Batch) -> ResumablePass:
        held = ResumablePass(lm, batch, layer)
        del held.base  # it was read when the sweep began
        return held

    return [staged for part in parts for staged in in_halves(lm, again, part, halves, ROOM)]
