"""One ablated pass per head, each resumed from the head's own layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fasp_core.masks import PruneSet, masked
from fasp_core.models import LanguageModel
from fasp_core.packing import Pack
from fasp_core.staged import Staged

Read = Callable[[int, Tensor], np.ndarray]  # (batch index, final hidden [rows, T, D]) -> what to keep


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
    (-1, readings of the unmasked model), then (flat id, readings under that head's ablation), ascending. The model
    is locked only while a head is computed, so other users come in between heads.
    """
    wanted = [i for i in range(lm.size) if i not in set(skip)]
    lowest = wanted[0] // lm.n_heads if wanted else 0
    staged = [Staged(lm, batch, lowest) for batch in batches]
    if -1 not in skip:
        yield -1, [read(i, s.base) for i, s in enumerate(staged)]
    for s in staged:
        del s.base
    for flat in wanted:
        layer, head = divmod(flat, lm.n_heads)
        for s in staged:
            while s.layer < layer:
                s.advance()
        with masked(lm, PruneSet.of([(layer, head)])):
            readings = [read(i, s.rest()) for i, s in enumerate(staged)]
        yield flat, readings
