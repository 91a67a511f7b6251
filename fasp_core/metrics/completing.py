"""How a model completes a token to a word: the likeliest pieces that may follow, and the likeliest path after those.

It depends on the model alone, so it is stored once and serves every scorer. Each token takes a pass of its own, one
step behind a context that all share. Of the logits only three things are kept: their sum, the part of it that
continues the word, and the likeliest pieces. So the vocabulary is taken a piece at a time, and memory does not grow
with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasp_core.forward.next_word import Rows, logit_pieces
from fasp_core.lazy import no_grad, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import two
from fasp_core.model.passes import in_halves, require_finite
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor

CONTEXTS = ("The next word is", 'The next word is "')  # any part of speech may follow; the quote starts afresh
KEPT = 0.01  # least probability of a piece that is followed up
DEEPER = 0.05  # least probability of a piece whose own continuation is asked for
MORE = 3  # pieces after that one, at most
TOP = 6  # pieces kept for a token, the likeliest
BATCH = 512  # tokens completed at once
FLAT = ("tokens", "go_on", "ends", "rests", "chances")

Words = list[tuple[str, float]]  # what is added to a token, with probabilities that sum to 1
Follow = Callable[[int, str], bool]  # (token, what is added so far) -> whether it matters what follows


@dataclass(frozen=True, eq=False)
class Completions:
    """What tokens are completed to, flat.

    Attributes
    ----------
    tokens : [n] their ids.
    go_on : [n] float32: the probability that the word goes on.
    ends : [n] where the endings of each token end; they begin where those of the token before end.
    rests : [m] index of each ending into `texts`.
    chances : [m] float32: its probability.
    texts : the different endings, "" among them.
    """

    tokens: NDArray[np.int32]
    go_on: NDArray[np.float32]
    ends: NDArray[np.int32]
    rests: NDArray[np.int32]
    chances: NDArray[np.float32]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, found: Mapping[int, tuple[float, Words]]) -> Completions:
        """From {token id: what `completions` says of it}."""
        index: dict[str, int] = {}
        words = [list(words) for _, words in found.values()]
        rests = [index.setdefault(rest, len(index)) for row in words for rest, _ in row]
        return cls(
            np.array(list(found), dtype=np.int32),
            np.array([go_on for go_on, _ in found.values()], dtype=np.float32),
            np.cumsum([len(row) for row in words], dtype=np.int32),
            np.array(rests, dtype=np.int32),
            np.array([p for row in words for _, p in row], dtype=np.float32),
            tuple(index),
        )

    def items(self) -> Iterator[tuple[int, float, Words]]:
        """(token, probability that it goes on, endings) of each token."""
        rests, chances, start = self.rests.tolist(), self.chances.tolist(), 0
        for token, go_on, end in zip(self.tokens.tolist(), self.go_on.tolist(), self.ends.tolist(), strict=True):
            yield token, go_on, [(self.texts[r], p) for r, p in zip(rests[start:end], chances[start:end], strict=True)]
            start = end

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As the store keeps it; no ending holds a line break."""
        texts = np.frombuffer("\n".join(self.texts).encode(), dtype=np.uint8)
        return {name: getattr(self, name) for name in FLAT} | {"texts": texts}

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]]) -> Completions:
        """What `arrays` gave."""
        tokens, go_on, ends, rests, chances = (arrays[name] for name in FLAT)
        return cls(tokens, go_on, ends, rests, chances, tuple(arrays["texts"].tobytes().decode().split("\n")))


def complete_all(
    lm: LanguageModel,
    groups: Sequence[Sequence[int]],
    pieces: Mapping[int, str],
    top: int = TOP,
    follow: Follow | None = None,
    progress: Report | None = None,
    rows: Rows | None = None,
) -> dict[int, tuple[float, Words]]:
    """{token id: what `completions` says of it}.

    Parameters
    ----------
    groups : token ids, those that are completed after each of `CONTEXTS`.
    rows : the only tokens that are taken to follow; by default all.
    """
    done, total = 0, sum(map(len, groups))
    found: dict[int, tuple[float, Words]] = {}
    for context, ids in zip(CONTEXTS, groups, strict=True):
        for start in range(0, len(ids), BATCH):
            part = list(ids[start : start + BATCH])

            def run(ids: list[int], context: str = context) -> list[tuple[float, Words]]:
                return completions(lm, context, ids, pieces, top, follow, rows)

            parts = in_halves(lm, run, part, two, "the completions of a single word")
            found |= zip(part, chain.from_iterable(parts), strict=True)
            done += len(part)
            if progress is not None:
                progress(done, total, f"completing words: {done:,} of {total:,}")
    return found


@no_grad
def completions(
    lm: LanguageModel,
    context: str,
    ids: Sequence[int],
    pieces: Mapping[int, str],
    top: int = TOP,
    follow: Follow | None = None,
    rows: Rows | None = None,
) -> list[tuple[float, Words]]:
    """How the model goes on after `context` and each of the tokens `ids`.

    Parameters
    ----------
    pieces : {token id: spelling} of the tokens that continue a word. Any other token ends it.
    follow : whether a path is worth going on; by default every one is.
    rows : the only tokens that are taken to follow.

    Returns
    -------
    For each token: the probability that its word goes on, and what is added to it, "" if nothing, with
    probabilities that sum to 1. Pieces that are not kept lend their probability to those that are; if none is
    kept, the word ends.
    """
    continuing = torch.tensor(sorted(pieces), dtype=torch.long, device=lm.device)
    if rows is not None:
        continuing = torch.isin(rows.ids, continuing.to(rows.ids.device)).nonzero()[:, 0]
    if not len(continuing):
        return [(0.0, [("", 1.0)]) for _ in ids]

    def step(cache: Any, going: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
        """As `next_pieces`, after one more token."""
        found = next_pieces(lm, one_more(lm, cache, going, tokens), continuing, top, rows)
        require_finite(lm, found[0].numpy(), "the completions of words", torch.tensor([lm.encode(context)]))
        return found

    with lm.lock:
        cache = context_cache(lm, context)
        mass, p, best = step(cache, torch.zeros(len(ids), dtype=torch.long), torch.tensor(ids), top)
        kept = p >= KEPT
        rests = [[pieces[u] for u in row] for row in best.tolist()]
        paths = torch.nonzero(kept & (p >= DEEPER)).tolist()
        going = [(i, j, int(best[i, j])) for i, j in paths if follow is None or follow(ids[i], rests[i][j])]
        at = torch.tensor([i for i, _, _ in going], dtype=torch.long)
        for _ in range(MORE):
            if not going:
                break
            go_on, _, likeliest = step(cache, at, torch.tensor([token for *_, token in going]), 1)
            still = []
            for row, (i, j, _) in enumerate(going):
                if go_on[row] > 0.5:
                    token = int(likeliest[row, 0])
                    rests[i][j] += pieces[token]
                    if follow is None or follow(ids[i], rests[i][j]):
                        still.append((row, (i, j, token)))
            at, going = torch.tensor([row for row, _ in still], dtype=torch.long), [path for _, path in still]

    shares = torch.where(kept, p, 0)
    found: list[tuple[float, Words]] = []
    for m, row, rest in zip(mass.clamp(max=1).tolist(), shares.tolist(), rests, strict=True):
        whole = sum(row)
        ending = 1 - m if whole else 1.0
        words = [(text, m * share / whole) for text, share in zip(rest, row, strict=True) if share]
        found.append((m, [("", ending), *words]))
    return found


def next_pieces(
    lm: LanguageModel, states: Tensor, continuing: Tensor, top: int, rows: Rows | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Which pieces of a word follow.

    Sums are taken below each row's largest logit and brought together in float64: beside a log-sum-exp of 20 or so,
    float32 would leave an error of 1e-6 in every probability.

    Parameters
    ----------
    states : [m, D] final hidden states.
    continuing : ids of the tokens that continue a word, ascending, on the same device; with `rows`, their places there.
    rows : the only tokens that are taken to follow.

    Returns
    -------
    [m] float64, the probability of any of them; [m, top] float64 and int64, the likeliest and their ids, or all if
    there are fewer. All on the CPU.
    """
    count = min(top, len(continuing))
    member = torch.zeros(int(continuing[-1]) + 1, device=states.device).index_fill_(0, continuing, 1)
    best = torch.full((len(states), count), -torch.inf, device=states.device)
    which = torch.zeros((len(states), count), dtype=torch.long, device=states.device)
    tops, totals, parts = [], [], []
    for start, logits in logit_pieces(lm, states, rows):
        largest = logits.amax(-1, keepdim=True)
        weights = (logits - largest).exp_()
        tops.append(largest[:, 0])
        totals.append(weights.sum(-1))
        inside = member[start : start + logits.shape[-1]]
        parts.append(weights[:, : len(inside)] @ inside)
        places = torch.tensor([start, start + logits.shape[-1]], device=continuing.device)
        first, end = torch.searchsorted(continuing, places).tolist()
        if first == end:
            continue
        own = logits.index_select(-1, continuing[first:end] - start)
        better = (own.amax(-1) > best[:, -1]).nonzero()[:, 0]  # few, as common words come first in most vocabularies
        found, index = own[better].topk(min(count, end - first))
        both, ids = torch.cat([best[better], found], -1), torch.cat([which[better], continuing[first:end][index]], -1)
        best[better], order = both.topk(count)
        which[better] = ids.gather(-1, order)
    level = torch.stack(tops).cpu().double()  # [pieces, m]
    scale = (level - level.amax(0)).exp()
    total = (scale * torch.stack(totals).cpu().double()).sum(0)
    part = (scale * torch.stack(parts).cpu().double()).sum(0)
    chances = (best.cpu().double() - level.amax(0)[:, None]).exp() / total[:, None]
    return part / total, chances, (which if rows is None else rows.ids.to(which.device)[which]).cpu()


def context_cache(lm: LanguageModel, context: str) -> Any:
    """What the model keeps of a context: for `one_more`."""
    ids = torch.tensor([lm.encode(context)], device=lm.device)
    return lm.model.base_model(ids, use_cache=True).past_key_values


def one_more(lm: LanguageModel, cache: Any, rows: Tensor, tokens: Tensor) -> Tensor:
    """[m, D] final hidden states after one more token behind each of the cache's `rows`, which are kept in it."""
    cache.batch_select_indices(rows)  # on the CPU: a spread model's cache lies on several devices
    out = lm.model.base_model(tokens[:, None].to(lm.device), past_key_values=cache, use_cache=True)
    states: Tensor = out.last_hidden_state[:, -1]
    return states
