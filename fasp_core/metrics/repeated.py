"""NLL of a text token by token, and of its repeated tokens alone.

A token is repeated if the same token stands before it in its window (a beginning token of the tokenizer's aside): what
the context could tell by being copied. Heads that carry words over a distance (induction heads, Olsson et al. 2022,
"In-context Learning and Induction Heads") serve these tokens, and a mean over all tokens hardly shows their loss.
Tokens are compared by their ids, so of a word in several tokens each counts by itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.data.text import TextConfig, TokenWindows
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import KIND
from fasp_core.metrics.perplexity import BLOCK, Nll, ppl_key, token_nll, window_packs, windows_of
from fasp_core.model.devices import sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack
from fasp_core.model.passes import require_finite
from fasp_core.model.provenance import provenance
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store
from fasp_core.typing import Floats, Report

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class TokenNats:
    """NLL of each scored token of a text under one model.

    Attributes
    ----------
    nats : [n].
    again : [n] bool, whether the token is repeated.
    block : [n] number of its block: up to 64 consecutive targets of a window, the unit of resampling.
    """

    nats: Floats
    again: np.ndarray
    block: np.ndarray

    def nll(self, repeated: bool = False) -> Nll:
        """Of all tokens, or of the repeated ones alone, in blocks that hold any.

        Raises
        ------
        InputError
            No token is repeated.
        """
        kept = self.again if repeated else np.ones_like(self.again)
        if not kept.any():
            raise InputError("No token of this text stands twice in a window: take more tokens.")
        counts = np.bincount(self.block[kept])
        sums = np.bincount(self.block[kept], self.nats[kept])
        return Nll(sums[counts > 0], counts[counts > 0])


def tokens_of(
    lm: LanguageModel,
    prune_set: PruneSet,
    text: TextConfig,
    store: Store,
    progress: Report | None = None,
    runner: CachedRunner | None = None,
) -> TokenNats:
    """NLL of each token of a text with a set pruned; stored."""

    def work() -> Any:
        started = time.monotonic()
        windows = windows_of(lm, text, key)
        packs, first = window_packs(windows, sizes(lm.device).windows)

        def read(batch: Pack, hidden: Tensor) -> Floats:
            values = token_nll(lm, hidden, batch.ids).cpu().double().numpy()  # in this order: MPS has no float64
            rows = [row[start - 1 :] for row, start in zip(values, first[batch.prompts], strict=True)]
            found: Floats = np.concatenate(rows)
            require_finite(lm, found, "the NLL of a text", batch)
            return found

        parts = (runner or CachedRunner(lm, budget=0)).measure(packs, prune_set, read, progress)
        again, block = places(windows, len(lm.framing.begin))
        arrays = {"nats": np.concatenate(parts), "again": again, "block": block}
        return {"arrays": arrays, "meta": {"provenance": provenance(lm, time.monotonic() - started)}}

    def form(entry: Entry) -> TokenNats:
        a = entry.arrays
        return TokenNats(a["nats"], a["again"].astype(bool), a["block"].astype(np.int64))

    key = {**ppl_key(text, lm.id), "score": "tokens", "heads": prune_set.format()}
    return store.made(KIND, key, work, form, label=f"{slug(lm.name.rsplit('/', 1)[-1])}--tokens")


def places(windows: TokenWindows, begun: int) -> tuple[np.ndarray, np.ndarray]:
    """`again` and `block` of each scored token, window by window as they are run.

    Parameters
    ----------
    begun : how many tokens at the start of each window are the tokenizer's beginning.
    """
    again: list[bool] = []
    block: list[int] = []
    at = 0
    for ids, firsts in windows.batches:
        for row, first in zip(ids.tolist(), firsts.tolist(), strict=True):
            again += repeats(row, begun)[first:]
            block += [at + i // BLOCK for i in range(len(row) - first)]
            at = block[-1] + 1
    return np.array(again, dtype=bool), np.array(block, dtype=np.int32)


def repeats(row: Sequence[int], begun: int = 0) -> list[bool]:
    """For each token of a window, whether the same one stands before it; the first `begun` are none of the text."""
    seen: set[int] = set()
    found = []
    for i, token in enumerate(row):
        found.append(token in seen)
        if i >= begun:
            seen.add(token)
    return found
