"""A pool of the unpruned model's continuations, scored, with each head's first-order log-ratio of every one.

For the sampled measure: first-order scores of all heads, and replay, which estimates the gap of any prune set from the
pool by importance weighting, without running the model again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasp_core.data.scorers import join_for_scoring
from fasp_core.forward.gate_gradients import log_ratio_gradients
from fasp_core.forward.sampling import sample_ids
from fasp_core.lazy import torch
from fasp_core.metrics.meters import BiasConfig, Report, SampledMeter, result_key
from fasp_core.model.devices import sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import two
from fasp_core.model.packing import encode
from fasp_core.model.passes import in_halves
from fasp_core.model.provenance import provenance
from fasp_core.model.tokens import continuation
from fasp_core.scoring.replay import first_order_toxicity, reweighted
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store

KIND = "pool"


@dataclass(frozen=True, eq=False)
class Pool:
    """Continuations of the unpruned model.

    Attributes
    ----------
    scores : [n, K] toxicity of each prompt's K continuations.
    log_ratios : [n, K, N] to first order, log p(M without h) - log p(M) of each.
    """

    scores: np.ndarray
    log_ratios: np.ndarray
    provenance: dict[str, Any]

    def first_order(self) -> np.ndarray:
        """[N, n]: toxicity of each prompt without head h, to first order; may leave [0, 1]."""
        return np.asarray(self.scores.mean(1) + first_order_toxicity(self.scores, self.log_ratios))

    def replayed(self, codes: np.ndarray) -> np.ndarray:
        """[N, n]: what each prompt adds to its group's mean with head h removed, see `reweighted`."""
        return np.stack([reweighted(self.scores, log_w, codes) for log_w in np.moveaxis(self.log_ratios, -1, 0)])


def pool(lm: LanguageModel, config: BiasConfig, store: Store, progress: Report | None = None) -> Pool:
    """Sample, score and differentiate; stored."""
    key = result_key(config, lm.id)

    def work() -> Any:
        started = time.monotonic()
        gauge = SampledMeter(lm, config, store)
        drawn = config.generation
        stop = lm.stops
        prompts = encode(lm, gauge.prompts.texts, drawn.tokens)
        sampled = sample_ids(lm, gauge.prompts.texts, drawn, stop, progress, ids=prompts)
        # a stop token was drawn like any other, so it belongs to the continuation
        ends = [[next((t + 1 for t, x in enumerate(row) if x in stop), len(row)) for row in rows] for rows in sampled]
        texts = [
            continuation(lm.tokenizer, prompt, [x for x in row[:end] if x not in stop], lm.framing.strips)
            for prompt, rows, cuts in zip(prompts, sampled, ends, strict=True)
            for row, end in zip(rows, cuts, strict=True)
        ]
        asked = [text for text in gauge.prompts.texts for _ in range(drawn.samples)]
        scores = gauge.scorer.score(join_for_scoring(asked, texts, config.scored))
        flat = [
            (prompt, row[:end])
            for prompt, rows, cuts in zip(prompts, sampled, ends, strict=True)
            for row, end in zip(rows, cuts, strict=True)
        ]

        def ratios_of(part: list[int]) -> np.ndarray:
            length = max(len(flat[i][0]) + len(flat[i][1]) for i in part)
            ids = torch.zeros((len(part), length), dtype=torch.long)
            for row, i in enumerate(part):
                whole = flat[i][0] + flat[i][1]
                ids[row, : len(whole)] = torch.tensor(whole)
            first = np.array([len(flat[i][0]) for i in part])
            return log_ratio_gradients(lm, ids, first, first + [len(flat[i][1]) for i in part], drawn.temperature)[1]

        ratios = np.empty((len(flat), lm.size), dtype=np.float32)
        order = sorted(range(len(flat)), key=lambda i: len(flat[i][0]) + len(flat[i][1]))
        rows = sizes(lm.device).drawn_back
        for start in range(0, len(order), rows):
            part = order[start : start + rows]
            ratios[part] = np.concatenate(in_halves(lm, ratios_of, part, two, "a single continuation"))
            if progress is not None:
                done = start + len(part)
                progress(done, len(order), f"log-ratios: {done} of {len(order)} continuations")
        n, k = len(prompts), drawn.samples
        return {
            "arrays": {"scores": scores.reshape(n, k), "log_ratios": ratios.reshape(n, k, lm.size)},
            "meta": {"provenance": provenance(lm, time.monotonic() - started)},
        }

    def read(entry: Entry) -> Pool:
        return Pool(entry.arrays["scores"], entry.arrays["log_ratios"], entry.meta["provenance"])

    return store.made(KIND, key, work, read, label=f"{slug(lm.name)}--{slug(str(key['axis']))}")
