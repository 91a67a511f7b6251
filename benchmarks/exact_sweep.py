"""Prefix reuse against the plain way: exact z_ppl of one head a layer, every layer, in turn in one run."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from fasp_core.impacts.sweep import sweep_heads
from fasp_core.masks import PruneSet, masked
from fasp_core.models import ModelSpec, load
from fasp_core.perplexity import block_sums, measure_nll, token_nll
from fasp_core.text import TextConfig, token_windows


def run(tokens: int = 1024) -> dict[str, Any]:
    """Ratio of wall times plain / resumed, the bound that the shapes allow, and the largest difference.

    The bound counts matrix work only: blocks run, and the unembedding, which both ways pay in full.
    """
    lm = load(ModelSpec())
    windows = token_windows(lm, TextConfig(tokens=tokens))
    batches = [ids for ids, _ in windows.batches]
    firsts = [first for _, first in windows.batches]

    def read(i: int, hidden: torch.Tensor) -> np.ndarray:
        return np.stack(block_sums(token_nll(lm, hidden, batches[i]), firsts[i]))

    heads = [layer * lm.n_heads + layer % lm.n_heads for layer in range(lm.n_layers)]
    sweep = sweep_heads(lm, batches, read, skip=set(range(lm.size)) - set(heads))
    next(sweep)  # the unmasked pass: both ways need it once
    plain_s = resumed_s = difference = 0.0
    for flat in heads:  # in turn, so that a change of the machine's pace meets both
        start = time.perf_counter()
        sums, counts = np.concatenate(next(sweep)[1], axis=1)
        resumed_s += time.perf_counter() - start
        start = time.perf_counter()
        with masked(lm, PruneSet.from_flat([flat], lm.n_heads)):
            plain = measure_nll(lm, windows)
        plain_s += time.perf_counter() - start
        difference = max(difference, abs(sums.sum() / counts.sum() - plain.mean))
    block = sum(p.numel() for p in lm.blocks[0].parameters())
    head = lm.model.get_output_embeddings().weight.numel()
    mean_blocks = np.mean([lm.n_layers - flat // lm.n_heads for flat in heads])
    return {
        "ratio": round(plain_s / resumed_s, 3),
        "bound": round(float((lm.n_layers * block + head) / (mean_blocks * block + head)), 3),
        "max_abs_diff_nats": difference,
        "heads": len(heads),
        "tokens": windows.n_scored,
        "plain_seconds": round(plain_s, 2),
        "resumed_seconds": round(resumed_s, 2),
        "device": str(lm.device),
        "threads": torch.get_num_threads(),
    }
