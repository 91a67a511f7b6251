"""Expected toxicity: what the scorer would say of the next word, averaged over every word the model could say.

`E_t sum_v p(v | prompt, c_<t) a(v)` over `steps` positions: the one after the prompt, and with more steps those after
each token of a context `c` that the unpruned model wrote, the same for every pruned variant. No sampling noise stands
between a base and a pruned model. `a(v)` is the worth of a token at a position, see `token_toxicity`, in two
readings: identity terms scored, or `neutral` (0 for them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fasp_core.forward.next_word import mean_value, mean_value_with_gradient
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.metrics.token_toxicity import WordValues, fresh_after
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, halves
from fasp_core.model.passes import in_halves, require_finite

READINGS = ("neutral", "counted")  # neutral first: it is the one that a choice is made on by default


@dataclass(frozen=True, eq=False)
class TokenToxicity:
    """What tokens are worth, on the model's device.

    Attributes
    ----------
    values : [V, 2 R] float32 in [0, 1]: the R readings inside a word, then those where a new word may begin.
    fresh : [V] bool: whether a new word may begin right after this token.
    """

    values: Tensor
    fresh: Tensor

    @classmethod
    def of(cls, lm: LanguageModel, words: WordValues) -> TokenToxicity:
        """From word values, padded to the rows of the model's logits if need be."""
        columns = torch.tensor(words.values.reshape(-1, words.values.shape[-1]).T, dtype=torch.float32)
        fresh = torch.zeros(len(columns), dtype=torch.bool)
        known = torch.from_numpy(np.asarray(fresh_after(lm.tokenizer), dtype=bool))[: len(fresh)]
        fresh[: len(known)] = known
        return cls(columns.to(lm.device), fresh.to(lm.device))

    def on(self, device: torch.device | str) -> TokenToxicity:
        """The same on another device."""
        return TokenToxicity(self.values.to(device), self.fresh.to(device))


def next_word_toxicity(lm: LanguageModel, states: Tensor, tokens: Tensor, worth: TokenToxicity) -> Tensor:
    """[m, R]: expected toxicity of what follows each position. Differentiable.

    Parameters
    ----------
    states : [m, D] final hidden states.
    tokens : [m] the tokens at these positions.
    """
    if torch.is_grad_enabled() and states.requires_grad:
        both = mean_value_with_gradient(lm, states, worth.values)  # [m, 2 R]
    else:
        both = mean_value(lm, states, worth.values)
    inside, begins = both.chunk(2, -1)
    return torch.where(worth.fresh[tokens.to(worth.fresh.device)][:, None], begins, inside)


@torch.no_grad()
def read_expected(lm: LanguageModel, hidden: Tensor, pack: Pack, worth: TokenToxicity) -> np.ndarray:
    """[m, R] expected toxicity of each prompt of a pack, the mean over its `steps` positions.

    Raises as `require_finite`.

    Parameters
    ----------
    hidden : [rows, T, D] final hidden states of the pack.
    """
    places = pack.reads.reshape(-1)
    states = hidden.reshape(-1, hidden.shape[-1])[places.to(hidden.device)]
    tokens = pack.ids.reshape(-1)[places]
    each = next_word_toxicity(lm, states, tokens, worth).cpu().double().numpy()  # MPS has no float64
    require_finite(lm, each, "the toxicity of the next word", pack)
    return np.asarray(each.reshape(*pack.reads.shape, -1).mean(1))


def scatter(packs: Sequence[Pack], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Per-pack results [m, R] into prompt order: [R, n]."""
    order = np.concatenate([pack.prompts for pack in packs])
    out = np.empty((parts[0].shape[1], len(order)))
    out[:, order] = np.concatenate(parts).T
    return out


@torch.no_grad()
def measure_expected(
    lm: LanguageModel,
    packs: Sequence[Pack],
    worth: TokenToxicity,
    progress: Callable[[float, float, str], None] | None = None,
) -> np.ndarray:
    """[R, n] float64 in [0, 1]: expected toxicity of each prompt in both readings, under whatever masks are on."""
    parts: list[np.ndarray] = []
    done, n = 0, sum(len(pack.prompts) for pack in packs)

    def run(batch: Pack) -> np.ndarray:
        return read_expected(lm, final_hidden(lm, batch), batch, worth)

    for pack in packs:
        parts += in_halves(lm, run, pack, halves, "a single prompt")
        done += len(pack.prompts)
        if progress is not None:
            progress(done, n, f"{done} of {n} prompts")
    return scatter(packs, parts)
