"""Expected toxicity: what the scorer would say of the next word, averaged over every word the model could say.

`E_t sum_v p(v | prompt, c_<t) a(v)` over `steps` positions: the one after the prompt, and with more steps those after
each token of a context `c` that the unpruned model wrote, the same for every pruned variant. No sampling noise stands
between a base and a pruned model. `a(v)` is the worth of a token at a position, see `token_toxicity`, in two
readings: identity terms scored, or `neutral` (0 for them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fasp_core.forward.next_word import mean_value, mean_value_with_gradient
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.lazy import no_grad, torch
from fasp_core.metrics.token_toxicity import WordValues, fresh_after
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, halves
from fasp_core.model.passes import in_halves, require_finite

if TYPE_CHECKING:
    from torch import Tensor

READINGS = ("neutral", "counted")  # neutral first: it is the one that a choice is made on by default


class Reader(Protocol):
    """What is read of prompts in a pass: R columns at each step, and how the steps of a prompt come together.

    `spread` says whether the mean over its steps is taken, or their sum.
    """

    @property
    def spread(self) -> bool: ...

    def columns(self, lm: LanguageModel, hidden: Tensor, pack: Pack) -> Tensor:
        """[m, steps, R] of a pack, from its final hidden states [rows, T, D]; differentiable in them."""

    def at(self, rows: Sequence[int]) -> Reader:
        """The same for some of the prompts, in this order."""

    def on(self, device: torch.device | str) -> Reader:
        """The same on another device."""


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
    spread: bool = True

    @classmethod
    def of(cls, lm: LanguageModel, words: WordValues) -> TokenToxicity:
        """From word values, padded to the rows of the model's logits if need be."""
        columns = torch.tensor(words.values.reshape(-1, words.values.shape[-1]).T, dtype=torch.float32)
        fresh = torch.zeros(len(columns), dtype=torch.bool)
        known = torch.from_numpy(np.asarray(fresh_after(lm.tokenizer), dtype=bool))[: len(fresh)]
        fresh[: len(known)] = known
        return cls(columns.to(lm.device), fresh.to(lm.device))

    def after(self, means: Tensor, tokens: Tensor) -> Tensor:
        """[m, R] of the means [m, 2 R] of `values` over the next word: those of the place after each token [m]."""
        inside, begins = means.chunk(2, -1)
        return torch.where(self.fresh[tokens.to(self.fresh.device)][:, None], begins, inside)

    def columns(self, lm: LanguageModel, hidden: Tensor, pack: Pack) -> Tensor:
        """[m, steps, R] expected toxicity of the next word, at each step of the prompts of a pack."""
        states, tokens = pack.read(hidden)
        return next_word_toxicity(lm, states, tokens, self).view(*pack.reads.shape, -1)

    def at(self, rows: Sequence[int]) -> TokenToxicity:
        """The same: words are worth what they are after every prompt."""
        return self

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
    return worth.after(both, tokens)


@no_grad
def read_expected(lm: LanguageModel, hidden: Tensor, pack: Pack, worth: Reader) -> np.ndarray:
    """[m, R] of each prompt of a pack, over its `steps` positions.

    Raises as `require_finite`.

    Parameters
    ----------
    hidden : [rows, T, D] final hidden states of the pack.
    """
    each = worth.columns(lm, hidden, pack).cpu().double().numpy()  # MPS has no float64
    require_finite(lm, each, "the toxicity of the next word", pack)
    return np.asarray(each.mean(1) if worth.spread else each.sum(1))


def scatter(packs: Sequence[Pack], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Per-pack results [m, R] into prompt order: [R, n]."""
    order = np.concatenate([pack.prompts for pack in packs])
    out = np.empty((parts[0].shape[1], len(order)))
    out[:, order] = np.concatenate(parts).T
    return out


@no_grad
def measure_expected(
    lm: LanguageModel,
    packs: Sequence[Pack],
    worth: Reader,
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
