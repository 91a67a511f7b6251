"""How likely continuations are after their contexts, and whether a model would write them itself.

Tokens are those of lm-evaluation-harness: spaces that end a context belong to the continuation, and the continuation's
tokens are what the whole text has beyond the tokens of its context. What is too long loses its beginning. Contexts
that continuations share run once, see `fasp_core.model.packing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fasp_core.errors import InputError
from fasp_core.forward.next_word import log_loss_and_top
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.lazy import no_grad, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import Pack, halves, pack
from fasp_core.model.passes import in_halves, require_finite
from fasp_core.typing import Floats, Report

Pair = tuple[Sequence[int], Sequence[int]]  # tokens of a context, and of what follows it


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """Of m continuations.

    Attributes
    ----------
    values : [m] float64 nats, the sum over a continuation's tokens of their log-probability.
    greedy : [m] bool, whether each of these tokens is the likeliest one at its place.
    cut : [m] bool, whether the beginning was left out, the model taking no more.
    """

    values: Floats
    greedy: np.ndarray
    cut: np.ndarray


def start_token(lm: LanguageModel) -> int:
    """What stands before a text that nothing precedes: the tokenizer's start token, else its end token.

    Raises
    ------
    InputError
        It has neither.
    """
    found = [t for t in (lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id) if t is not None]
    if not found:
        raise InputError("This tokenizer has no start or end token: texts without a context cannot be scored.")
    return int(found[0])


def begun(lm: LanguageModel, text: str) -> list[int]:
    """Token ids of a text, begun as the model begins one, but where the text says its beginning itself."""
    begin, ids = list(lm.framing.begin), lm.tokens(text)
    return ids if begin and ids[: len(begin)] == begin else begin + ids


def encode_pair(lm: LanguageModel, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of a context, begun as the model begins a text, and of its continuation.

    Raises
    ------
    InputError
        The continuation holds no token of its own, or a token has no embedding.
    """
    bare = context.rstrip()
    continuation, context = context[len(bare) :] + continuation, bare
    if context:
        before, whole = (begun(lm, text) for text in (context, context + continuation))
        after = whole[len(before) :]
    else:
        before, after = [start_token(lm)], lm.tokens(continuation)
        if after[:1] == before:  # a text that says its beginning itself
            after = after[1:]
    what = f"The continuation {continuation[:40]!r}"
    if not after:
        raise InputError(f"{what} holds no token of its own after {context[-40:]!r}: leave it out.")
    lm.require_embeddings([*before, *after], what)
    return before, after


@no_grad
def log_likelihoods(lm: LanguageModel, pairs: Sequence[Pair], progress: Report | None = None) -> Likelihoods:
    """Of each continuation after its context, under whatever masks are on.

    Raises
    ------
    InputError
        A continuation alone is longer than the model takes.
    """
    m, done = len(pairs), 0
    found = Likelihoods(np.empty(m), np.empty(m, dtype=bool), np.zeros(m, dtype=bool))
    if not m:
        return found
    rows = []
    for i, (before, after) in enumerate(pairs):
        row, most = [*before, *after][:-1], lm.max_positions
        if most is not None and len(row) > most:
            if len(after) > most:
                raise InputError(f"A continuation of {len(after):,} tokens is more than the {most:,} of this model.")
            row, found.cut[i] = row[-most:], True
        rows.append(row)

    def run(part: Pack) -> tuple[np.ndarray, Floats, np.ndarray]:
        goals = [list(pairs[i][1]) for i in part.prompts]
        hidden = final_hidden(lm, part)
        states = hidden.reshape(-1, hidden.shape[-1])[torch.tensor(_places(part, goals), device=hidden.device)]
        words = torch.tensor([word for goal in goals for word in goal], device=hidden.device)
        loss, top = log_loss_and_top(lm, states, words)
        ends = np.cumsum([0, *map(len, goals)])[:-1]
        values = -np.add.reduceat(loss.cpu().double().numpy(), ends)
        require_finite(lm, values, "the log-likelihood of an answer", part)
        return part.prompts, values, np.logical_and.reduceat(top.cpu().numpy(), ends)

    for batch in pack(lm, rows):
        for at, values, greedy in in_halves(lm, run, batch, halves, "a single answer"):
            found.values[at], found.greedy[at] = values, greedy
        done += len(batch.prompts)
        if progress is not None:
            progress(done, m, f"{done} of {m} answers")
    return found


def _places(part: Pack, goals: Sequence[Sequence[int]]) -> list[int]:
    """Flat places of the states that predict each word of each prompt's goal, prompt by prompt."""
    found: list[int] = []
    for end, goal in zip(part.reads[:, -1].tolist(), goals, strict=True):
        path = [end]
        while len(path) < len(goal):
            path.append(path[-1] - 1 if part.parents is None else int(part.parents[path[-1]]))
        found += path[::-1]
    return found
