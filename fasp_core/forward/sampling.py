"""Sampling continuations with common noise.

A token is the argmax of logits / temperature + Gumbel noise, and the noise depends only on (seed, prompt, sample, step,
word), see `noise.py`. So a base and a pruned model that agree on the logits write the same text, and differ only where
the models differ: the variance of a difference falls with the size of the intervention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fasp_core.errors import InputError
from fasp_core.forward.noise import gumbel, keys
from fasp_core.lazy import no_grad, torch
from fasp_core.model.devices import sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import two
from fasp_core.model.packing import encode, pack_equal
from fasp_core.model.passes import in_halves, require_finite
from fasp_core.model.tokens import continuation

if TYPE_CHECKING:
    from torch import Tensor

_Batch = tuple[Sequence[int], Sequence[int]]  # (places of prompts of one length, numbers of their draws)
_Written = list[tuple[int, list[list[int]], np.ndarray]]  # (place of a prompt, ids of its draws, what was read)
AtStep: TypeAlias = (
    "Callable[[Tensor, Tensor], Tensor]"  # (logits over temperature [rows, V], last tokens [rows]) -> [rows, R]
)


@dataclass(frozen=True)
class GenerationConfig:
    """How continuations are sampled.

    Attributes
    ----------
    samples : continuations a prompt.
    tokens : longest continuation; it ends earlier at an end-of-text token.
    temperature : divides the logits; finite, above 0.
    seed : of the noise.
    first : number of the first continuation of each prompt. The noise of a continuation depends on its number, so that
        they can be made in parts.
    """

    samples: int = 1
    tokens: int = 20
    temperature: float = 1.0
    seed: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.tokens < 1 or self.first < 0 or not 0 < self.temperature < math.inf:
            raise InputError("Sampling needs at least 1 sample, 1 token and a finite temperature above 0.")

    def key(self) -> dict[str, Any]:
        """For the store."""
        return {name: value for name, value in asdict(self).items() if name != "first" or value}

    def parts(self, size: int) -> list[GenerationConfig]:
        """The same continuations, `size` of each prompt at a time, the last part the smallest."""
        end = self.first + self.samples
        return [replace(self, samples=min(size, end - at), first=at) for at in range(self.first, end, size)]


def sample(
    lm: LanguageModel,
    prompts: Sequence[str],
    config: GenerationConfig,
    progress: Callable[[float, float, str], None] | None = None,
    rows: int | None = None,
) -> list[list[str]]:
    """Continuations under whatever masks are on.

    Returns
    -------
    list over prompts of `config.samples` texts, special tokens left out.
    """
    stop = lm.stops
    out: list[list[str]] = []
    encoded = encode(lm, prompts, config.tokens)
    written = sample_ids(lm, prompts, config, stop, progress, rows, ids=encoded)
    for ids, texts in zip(encoded, written, strict=True):
        cut = [row[: next((t for t, token in enumerate(row) if token in stop), None)] for row in texts]
        out.append([continuation(lm.tokenizer, ids, row, lm.framing.strips) for row in cut])
    return out


def sample_ids(
    lm: LanguageModel,
    prompts: Sequence[str],
    config: GenerationConfig,
    stop: frozenset[int] = frozenset(),
    progress: Callable[[float, float, str], None] | None = None,
    rows: int | None = None,
    ids: Sequence[Sequence[int]] | None = None,
) -> list[list[list[int]]]:
    """Token ids of `config.samples` continuations of each prompt, under whatever masks are on; see `draw`."""
    return draw(lm, prompts, config, stop, progress, rows=rows, ids=ids).tokens


@dataclass(frozen=True, eq=False)
class Drawn:
    """Continuations of n prompts, and what was read on the way.

    Attributes
    ----------
    tokens : [n][samples] token ids of each continuation.
    values : [n, samples, tokens, R] float64: what was read before each token was drawn, 0 after a continuation's end; R
        is 0 where nothing was.
    """

    tokens: list[list[list[int]]]
    values: np.ndarray


@no_grad
def draw(
    lm: LanguageModel,
    prompts: Sequence[str],
    config: GenerationConfig,
    stop: frozenset[int] = frozenset(),
    progress: Callable[[float, float, str], None] | None = None,
    *,
    rows: int | None = None,
    ids: Sequence[Sequence[int]] | None = None,
    read: AtStep | None = None,
) -> Drawn:
    """Continue each prompt `config.samples` times, under whatever masks are on.

    A batch ends when each of its rows has a token of `stop`; what follows such a token is to be ignored.

    Raises as `require_finite`.

    Parameters
    ----------
    prompts : name the noise, and are tokenised unless `ids` are given.
    rows : continuations side by side; None: as many as suit the device.
    ids : token ids of each prompt.
    read : asked at every step, with the distribution that the step's token is drawn from.

    Raises
    ------
    NotFinite
        A logit is infinite or not a number.
    """
    found: list[list[list[int]]] = [[] for _ in prompts]
    values: list[list[np.ndarray]] = [[] for _ in prompts]
    done, total = 0, len(prompts) * config.samples
    suits = sizes(lm.device)
    size = max(1, (rows or suits.continuations) // config.samples)
    encoded = encode(lm, prompts, config.tokens) if ids is None else ids
    shared = _shared(encoded)

    def run(batch: _Batch) -> _Written:
        members, draws = batch
        ids = torch.tensor([list(encoded[i]) for i in members])
        tokens, seen = _continue(lm, ids, [prompts[i] for i in members], draws, config, stop, shared, read)
        shape = len(members), len(draws), -1
        parts = seen.reshape(*shape[:2], *seen.shape[1:])
        return list(zip(members, tokens.view(shape).tolist(), parts, strict=True))

    for group in pack_equal(encoded, max_tokens=suits.prompts):  # equal lengths side by side
        for start in range(0, len(group.ids), size):
            members = [int(i) for i in group.prompts[start : start + size]]
            batch: _Batch = members, range(config.first, config.first + config.samples)
            for written in in_halves(lm, run, batch, _halves, "a single continuation"):
                for i, rows_of, seen in written:
                    found[i] += rows_of
                    values[i].append(seen)
            done += len(members) * config.samples
            if progress is not None:
                progress(done, total, "sampling continuations")
    return Drawn(found, np.stack([np.concatenate(parts) for parts in values]) if found else np.zeros((0, 0, 0, 0)))


def _halves(batch: _Batch) -> list[_Batch]:
    """Half of the prompts each; of a single prompt half of the draws, as the noise of each has a name of its own."""
    members, draws = batch
    if len(members) > 1:
        return [(part, draws) for part in two(members)]
    return [(members, part) for part in two(draws)]


def _shared(ids: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; a last one is left to each of them. 0 where it would not pay."""
    if len(ids) < 2:
        return 0
    first, last = min(map(list, ids)), max(map(list, ids))
    differ = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    shared = min(next(differ, len(first)), min(map(len, ids)) - 1)
    return shared if shared > 1 else 0


def _continue(
    lm: LanguageModel,
    ids: Tensor,
    prompts: Sequence[str],
    draws: Sequence[int],
    config: GenerationConfig,
    stop: frozenset[int],
    shared: int,
    read: AtStep | None,
) -> tuple[Tensor, np.ndarray]:
    """[prompts * draws, steps] sampled token ids, and [prompts * draws, config.tokens, R] what was read.

    Rows that have ended go on, and are cut by the caller. The first `shared` tokens of all rows are run once.
    """
    cache = None
    step_ids = ids.to(lm.device)
    key = keys(config.seed, prompts, draws, config.tokens).to(lm.device)
    stops = torch.tensor(sorted(stop), device=lm.device)
    ended = torch.zeros(len(key), dtype=torch.bool, device=lm.device)
    chosen: list[Tensor] = []
    best: list[Tensor] = []
    seen: list[Tensor] = []
    last = step_ids[:, -1].repeat_interleave(len(draws))
    with lm.lock:
        if shared:
            cache = lm.model.base_model(step_ids[:1, :shared], use_cache=True).past_key_values
            cache.batch_repeat_interleave(len(ids))
            step_ids = step_ids[:, shared:]
        for step in range(config.tokens):
            out = lm.model.base_model(step_ids, past_key_values=cache, use_cache=True)
            hidden, cache = out.last_hidden_state[:, -1], out.past_key_values
            if step == 0 and len(draws) > 1:  # a prompt is run once, whatever is drawn after it
                cache.batch_repeat_interleave(len(draws))
                hidden = hidden.repeat_interleave(len(draws), 0)
            noisy = lm.logits(hidden) / config.temperature
            if read is not None:
                seen.append(read(noisy, last).masked_fill(ended[:, None], 0.0))
            noisy += gumbel(key[:, step], noisy.shape[-1], noisy.device)
            token = noisy.argmax(-1, keepdim=True)
            best.append(noisy.gather(-1, token))  # not a number if any logit of the row is none
            chosen.append(token)
            if stop:
                ended |= (token == stops).any(-1)
                if bool(ended.all()):
                    break
            step_ids, last = token, token[:, 0]
    require_finite(lm, torch.cat(best, 1).cpu().numpy(), "the logits of a continuation", ids)
    values = np.zeros((len(key), config.tokens, seen[0].shape[1] if seen else 0))
    if seen:
        values[:, : len(seen)] = torch.stack(seen, 1).cpu().double().numpy()  # MPS has no float64
    return torch.cat(chosen, 1).cpu(), values
