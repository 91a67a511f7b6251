"""Everything that a tiny model can write, and what the words are worth: an oracle for measures of what is written."""

from __future__ import annotations

import numpy as np
import torch

from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.expected import TokenToxicity
from fasp_core.metrics.token_toxicity import WordValues
from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import VOCAB

SET = PruneSet.of([(0, 0), (1, 1)])


def worth_of(lm: LanguageModel) -> TokenToxicity:
    """Other numbers in every place, so that a wrong one shows."""
    values = np.random.default_rng(0).random((2, 2, VOCAB)).astype(np.float32)
    return TokenToxicity.of(lm, WordValues(values, 0.0, 0, 0, 0, ""))


@torch.no_grad()
def after(lm: LanguageModel, rows: torch.Tensor, worth: TokenToxicity) -> tuple[np.ndarray, np.ndarray]:
    """Of rows [m, T] in whole passes: probabilities [m, V] of the next word, and its expected toxicity [m, R]."""
    chances = torch.softmax(lm.model(rows).logits[:, -1].double(), -1)
    values = worth.values.double()[: chances.shape[-1]].view(chances.shape[-1], 2, -1)
    place = worth.fresh[rows[:, -1]].long()
    return chances.numpy(), torch.einsum("mv,mvr->mr", chances, values[:, place].movedim(0, 1)).numpy()


def enumerated(lm: LanguageModel, ids: list[int], steps: int, worth: TokenToxicity) -> np.ndarray:
    """[R, steps]: expected toxicity at each step, over every continuation there is."""
    rows, weights = torch.tensor([ids]), np.ones(1)
    found = []
    for _ in range(steps):
        chances, toxicity = after(lm, rows, worth)
        found.append(weights @ toxicity)
        weights = (weights[:, None] * chances).reshape(-1)
        rows = torch.cat([rows.repeat_interleave(VOCAB, 0), torch.arange(VOCAB).repeat(len(rows))[:, None]], 1)
        going = ~np.isin(rows[:, -1].numpy(), list(lm.stops))
        rows, weights = rows[torch.from_numpy(going)], weights[going]
    return np.array(found).T
