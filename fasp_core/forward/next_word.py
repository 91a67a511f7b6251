"""What is asked of the next word's probabilities, the vocabulary a piece at a time.

Logits are the largest thing that a pass makes: [m, V] in float32 leaves the processor's cache, and writing and reading
it takes as long as many products. A piece of the vocabulary for all positions fits, is reduced at once, and the weights
of the unembedding are read once (as in Milakov and Gimelshein, Online normalizer calculation for softmax, 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fasp_core.lazy import functional, nn, no_grad, torch
from fasp_core.model.language_model import LanguageModel

if TYPE_CHECKING:
    from torch import Tensor

CELLS = {"cpu": 1 << 20}  # logits that exist at once: what the cache of a core holds
MANY = 1 << 25  # elsewhere: 128 MB
ROWS = 1024  # positions at once
LEAST = 512  # words in a piece
CHUNK = 128  # positions at once where a gradient needs all logits


@dataclass(frozen=True, eq=False)
class Rows:
    """Some words of a vocabulary, as if there were no others.

    Attributes
    ----------
    ids : [r] their token ids, ascending.
    weight, bias : [r, D] and [r] or None, theirs in the unembedding.
    """

    ids: Tensor
    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, lm: LanguageModel, ids: Sequence[int]) -> Rows | None:
        """None if the unembedding is not for us to take apart."""
        head = lm.model.get_output_embeddings()
        if not _plain(head):
            return None
        index = torch.tensor(sorted(ids), device=head.weight.device)
        return cls(index, head.weight.detach()[index], None if head.bias is None else head.bias.detach()[index])


def _plain(head: object) -> bool:
    return type(head) is nn.Linear and not hasattr(head, "_hf_hook")


def logit_pieces(lm: LanguageModel, states: Tensor, rows: Rows | None = None) -> Iterator[tuple[int, Tensor]]:
    """(its first word, [m, words] float32 logits), piece by piece.

    Parameters
    ----------
    states : [m, D] final hidden states.
    rows : the only words to look at; a first word is then a place among them.
    """
    head = rows or lm.model.get_output_embeddings()
    words = max(CELLS.get(states.device.type, MANY) // max(len(states), 1), LEAST)
    if rows is None and (not _plain(head) or words >= len(head.weight)):
        yield 0, lm.logits(states)  # in one piece: small, or not for us to take apart
        return
    for start in range(0, len(head.weight), words):
        part = slice(start, start + words)
        bias = None if head.bias is None else head.bias[part]
        yield start, lm.capped(functional.linear(states, head.weight[part], bias))


@no_grad
def log_loss(lm: LanguageModel, states: Tensor, words: Tensor) -> Tensor:
    """[m] float32 nats: -log p(word) after each position.

    Parameters
    ----------
    states : [m, D] final hidden states.
    words : [m] token ids, on the same device.
    """
    return torch.cat([_log_loss(lm, s, w) for s, w in zip(states.split(ROWS), words.split(ROWS), strict=True)])


def _log_loss(lm: LanguageModel, states: Tensor, words: Tensor) -> Tensor:
    sums, own = [], torch.zeros(len(words), dtype=torch.float32, device=states.device)
    for start, logits in logit_pieces(lm, states):
        sums.append(logits.logsumexp(-1))
        own = _own(logits, words - start, own)
    return torch.stack(sums, -1).logsumexp(-1) - own


def _own(logits: Tensor, at: Tensor, own: Tensor) -> Tensor:
    """Logits of words, of those that are in a piece; `at` are their places in it."""
    inside = (at >= 0) & (at < logits.shape[-1])
    return torch.where(inside, logits.gather(-1, at.clamp(0, logits.shape[-1] - 1)[:, None])[:, 0], own)


@no_grad
def log_loss_and_top(lm: LanguageModel, states: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """As `log_loss`, and [m] bool: whether the word is the likeliest one (of equals the first)."""
    loss, likeliest = [], []
    for part, goals in zip(states.split(ROWS), words.split(ROWS), strict=True):
        sums, own = [], torch.zeros(len(goals), dtype=torch.float32, device=part.device)
        top, best = torch.full_like(own, -torch.inf), torch.zeros_like(goals)
        for start, logits in logit_pieces(lm, part):
            sums.append(logits.logsumexp(-1))
            own = _own(logits, goals - start, own)
            value, at = logits.max(-1)
            best = torch.where(value > top, at + start, best)
            top = torch.maximum(value, top)
        loss.append(torch.stack(sums, -1).logsumexp(-1) - own)
        likeliest.append(best == goals)
    return torch.cat(loss), torch.cat(likeliest)


@no_grad
def mean_value(lm: LanguageModel, states: Tensor, values: Tensor) -> Tensor:
    """[m, C] float32: the mean over the next word of each of its values, `sum_v p(v) values[v]`.

    Parameters
    ----------
    states : [m, D] final hidden states.
    values : [V or more, C] float32, on the same device.
    """
    return torch.cat([_mean_value(lm, part, values) for part in states.split(ROWS)])


def _mean_value(lm: LanguageModel, states: Tensor, values: Tensor) -> Tensor:
    tops, sums, totals = [], [], []
    for start, logits in logit_pieces(lm, states):
        top = logits.amax(-1, keepdim=True)
        weights = (logits - top).exp_()
        tops.append(top)
        sums.append(weights.sum(-1, keepdim=True))
        totals.append(weights @ values[start : start + logits.shape[-1]])
    scale = torch.stack(tops).sub_(torch.stack(tops).amax(0)).exp_()  # [pieces, m, 1]
    return (scale * torch.stack(totals)).sum(0) / (scale * torch.stack(sums)).sum(0)


def mean_value_with_gradient(lm: LanguageModel, states: Tensor, values: Tensor) -> Tensor:
    """As `mean_value`, differentiable in the states.

    A gradient needs all logits of a position. Where those of all positions are more than `MANY`, as with hundreds of
    thousands of words, a part of the positions is done at a time, and its logits are made once more on the way back.
    """

    def mean(part: Tensor) -> Tensor:
        logits = lm.logits(part)
        return torch.softmax(logits, -1) @ values[: logits.shape[-1]]

    rows = max(MANY // max(len(values), 1), 1)
    if len(states) <= rows:
        return mean(states)
    return torch.cat([_again(mean, part) for part in states.split(rows)])


def log_loss_with_gradient(lm: LanguageModel, states: Tensor, words: Tensor) -> Tensor:
    """As `log_loss`, differentiable in the states; many logits are made once more on the way back."""

    def loss(part: Tensor, goals: Tensor) -> Tensor:
        return functional.cross_entropy(lm.logits(part).float(), goals, reduction="none")

    rows = max(MANY // int(lm.model.config.vocab_size), 1)
    if len(states) <= rows:
        return loss(states, words)
    parts = zip(states.split(rows), words.split(rows), strict=True)
    return torch.cat([_again(loss, *both) for both in parts])


def _again(function: Callable[..., Tensor], *given: Tensor) -> Tensor:
    """What the function gives, made once more on the way back in place of what it would keep."""
    from torch.utils.checkpoint import checkpoint

    found: Tensor = checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False)
    return found
