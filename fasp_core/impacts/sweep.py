"""One ablated pass per head, each resumed from the head's own layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasp_core.masks import PruneSet, masked
from fasp_core.models import LanguageModel
from fasp_core.packing import Pack, halves
from fasp_core.passes import in_halves
from fasp_core.staged import Staged

Batch = Tensor | Pack
Read = Callable[[Any, Tensor], np.ndarray]  # (batch or a part of one, its final hidden states) -> what to keep
ROOM = "a single row of tokens"


@torch.no_grad()
def sweep_heads(
    lm: LanguageModel, batches: Sequence[Tensor | Pack], read: Read, skip: Collection[int] = ()
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Ablate every head in turn, layer by layer.

    Parameters
    ----------
    batches : token rows [rows, T], or packs of prompts.
    skip : flat ids that are not wanted (finished before); -1 for the unmasked model.

    Yields
    ------
    (-1, readings of the unmasked model), then (flat id, readings under that head's ablation), ascending. There is one
    reading a batch; of one that did not fit into memory, the readings of its parts joined along their first axis. The
    model is locked only while it runs, so other users come in between.

    Raises
    ------
    OutOfMemory
        A single row does not fit into memory.
    """
    wanted = [i for i in range(lm.size) if i not in set(skip)]
    lowest = wanted[0] // lm.n_heads if wanted else 0

    def begin(batch: Batch) -> tuple[Staged, Any]:
        s = Staged(lm, batch, lowest)
        reading = None if -1 in skip else read(batch, s.base)
        del s.base
        return s, reading

    now = [in_halves(lm, begin, batch, halves, ROOM) for batch in batches]
    if -1 not in skip:
        yield -1, [_joined(parts) for parts in now]
    for flat in wanted:
        layer, head = divmod(flat, lm.n_heads)

        def remove(s: Staged, layer: int = layer, head: int = head) -> tuple[Staged, np.ndarray]:
            while s.layer < layer:
                s.advance()
            with masked(lm, PruneSet.of([(layer, head)])):
                return s, read(s.batch, s.rest())

        now = [[pair for s, _ in parts for pair in in_halves(lm, remove, s, _parts, ROOM)] for parts in now]
        yield flat, [_joined(parts) for parts in now]


def _joined(parts: list[tuple[Staged, np.ndarray]]) -> np.ndarray:
    readings = [reading for _, reading in parts]
    return readings[0] if len(readings) == 1 else np.concatenate(readings)


def _parts(s: Staged) -> list[Staged]:
    """A held batch as two that begin anew, at the block that it was held at."""
    if len(parts := halves(s.batch)) < 2:
        return [s]
    s.let_go()
    lm, layer = s.lm, s.layer

    def anew(batch: Batch) -> Staged:
        held = Staged(lm, batch, layer)
        del held.base  # it was read when the sweep began
        return held

    return [staged for part in parts for staged in in_halves(lm, anew, part, halves, ROOM)]
