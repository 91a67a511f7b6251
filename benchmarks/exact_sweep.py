"""Prefix reuse against the plain way: exact z_ppl of all heads, in turn in one run.

The plain way is what one writes first: a hook on the head, the model called on the same rows, and cross-entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks._common import Clock, about, say
from fasp_core.data.text import TextConfig, TokenWindows, token_windows
from fasp_core.forward.ablation import masked
from fasp_core.forward.sweep import sweep_heads
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import block_sums, nll_sums, window_packs
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.packing import Pack
from fasp_core.model.spec import ModelSpec

ROWS = 2  # windows in a pass, both ways


def run(
    lm: LanguageModel | None = None, text: TextConfig | None = None, heads: Sequence[int] | None = None
) -> dict[str, Any]:
    """Ratio of wall times plain / resumed, the bound that the shapes allow, and the largest difference of z_nats.

    Parameters
    ----------
    lm : default: the built-in model.
    text : default: 512 tokens, a window as in scoring.
    heads : flat ids; default: all.
    """
    lm = lm or load(ModelSpec())
    windows = token_windows(lm, text or TextConfig(tokens=512))
    wanted = sorted(set(range(lm.size)) if heads is None else set(heads))
    packs, first = window_packs(windows, ROWS)
    batches, firsts = [part.ids for part in packs], [first[part.prompts] for part in packs]

    def read(part: Pack, hidden: torch.Tensor) -> np.ndarray:
        return np.stack(nll_sums(lm, part, hidden, first), 1)

    base = _mean(_plain(lm, batches, firsts))
    sweep = sweep_heads(lm, packs, read, skip=set(range(lm.size)) - set(wanted))
    resumed_base = _mean(next(sweep)[1])  # both ways need the unmasked pass once: it is not timed
    resumed, plain = Clock(), Clock()

    def by_sweep(_flat: int) -> float:
        with resumed.lap():
            return _mean(next(sweep)[1]) - resumed_base

    def by_hand(flat: int) -> float:
        with plain.lap(), masked(lm, PruneSet.from_flat([flat], lm.n_heads)):
            return _mean(_plain(lm, batches, firsts)) - base

    differences = []
    for turn, flat in enumerate(wanted):  # in turn, and each way first in turn: drift of the machine meets both
        found = {way: way(flat) for way in ((by_sweep, by_hand) if turn % 2 else (by_hand, by_sweep))}
        differences.append(abs(found[by_sweep] - found[by_hand]))
        if turn % 30 == 29:
            say(f"exact_sweep: {turn + 1} of {len(wanted)} heads")
    bound, counts = _bound(lm, windows, wanted)
    return {
        "ratio": plain.seconds / resumed.seconds,
        "bound": bound,
        "max_abs_diff_nats": max(differences),
        "equal_within_1e-5": bool(max(differences) <= 1e-5),
        "heads": len(wanted),
        "tokens": windows.n_scored,
        "plain_seconds": plain.seconds,
        "resumed_seconds": resumed.seconds,
        "bound_counts": counts,
        **about(lm),
    }


@torch.no_grad()
def _plain(lm: LanguageModel, batches: Sequence[torch.Tensor], firsts: Sequence[np.ndarray]) -> list[np.ndarray]:
    out = []
    for ids, first in zip(batches, firsts, strict=True):
        ids = ids.to(lm.device)
        logits = lm.model(input_ids=ids, use_cache=False).logits[:, :-1]
        nll = cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        out.append(np.stack(block_sums(nll.view(len(ids), -1), first), 1))
    return out


def _mean(readings: list[np.ndarray]) -> float:
    sums, counts = np.concatenate(readings).T
    return float(sums.sum() / counts.sum())


def _bound(lm: LanguageModel, windows: TokenWindows, heads: Sequence[int]) -> tuple[float, dict[str, Any]]:
    """Multiplications and additions of both ways, matrix products alone, a token and head."""
    context = np.average(
        [(ids.shape[1] + 1) / 2 for ids, _ in windows.batches], weights=[i.numel() for i, _ in windows.batches]
    )
    weights = 2 * sum(p.numel() for p in lm.blocks[0].parameters() if p.ndim == 2)
    attention = 4 * context * lm.n_heads * lm.head_dim  # queries with keys, weights with values; causal
    block = weights + attention
    unembedding = 2 * lm.model.get_output_embeddings().weight.numel()
    layers = [flat // lm.n_heads for flat in heads]
    above = float(np.mean([lm.n_layers - layer for layer in layers]))
    walk = max(layers) / len(heads)  # the base pass moves up once
    counts = {
        "flops_a_block": float(block),
        "of_which_attention": float(attention),
        "flops_unembedding": float(unembedding),
        "blocks_plain": lm.n_layers,
        "blocks_resumed": above + walk,
        "what": "Operations of matrix products a token and head. Plain: all blocks and the unembedding. Resumed: the "
        "head's own block and those above it, its share of the base pass' walk up, and the unembedding. The plain way "
        "also writes and reads all logits, which is not counted: a ratio can exceed the bound.",
    }
    return float((lm.n_layers * block + unembedding) / ((above + walk) * block + unembedding)), counts
