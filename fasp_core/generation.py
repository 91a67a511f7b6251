"""Sampling continuations with common noise.

A token is the argmax of logits / temperature + Gumbel noise, and the noise depends only on (seed, prompt, sample,
step). So a base and a pruned model that agree on the logits write the same text, and differ only where the models
differ: the variance of a difference falls with the size of the intervention.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fasp_core.devices import sizes
from fasp_core.errors import InputError
from fasp_core.models import LanguageModel
from fasp_core.packing import encode, pack_equal
from fasp_core.passes import in_halves, require_finite, two

_Batch = tuple[Sequence[int], Sequence[int]]  # (places of prompts of one length, numbers of their draws)
_Written = list[tuple[int, list[list[int]]]]  # (place of a prompt, ids of its draws)


@dataclass(frozen=True)
class GenerationConfig:
    """How continuations are sampled.

    Attributes
    ----------
    samples : continuations a prompt.
    tokens : longest continuation; it ends earlier at an end-of-text token.
    temperature : divides the logits; above 0.
    seed : of the noise.
    """

    samples: int = 1
    tokens: int = 20
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.tokens < 1 or not self.temperature > 0:
            raise InputError("Sampling needs at least 1 sample, 1 token and a temperature above 0.")


def gumbel(keys: Sequence[str], vocab: int) -> Tensor:
    """[len(keys), vocab] standard Gumbel noise on the CPU, a pure function of each key."""
    rows = []
    for key in keys:
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1
        rows.append(torch.rand(vocab, generator=torch.Generator().manual_seed(seed)))
    # u is a multiple of 2^-24 in [0, 1): half a step keeps both logarithms finite
    return -torch.log(-torch.log(torch.stack(rows) * (1 - 2**-23) + 2**-24))


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
    stop = stop_tokens(lm)
    out: list[list[str]] = []
    for texts in sample_ids(lm, prompts, config, stop, progress, rows):
        cut = [row[: next((t for t, token in enumerate(row) if token in stop), None)] for row in texts]
        out.append([lm.tokenizer.decode(row, skip_special_tokens=True) for row in cut])
    return out


@torch.no_grad()
def sample_ids(
    lm: LanguageModel,
    prompts: Sequence[str],
    config: GenerationConfig,
    stop: frozenset[int] = frozenset(),
    progress: Callable[[float, float, str], None] | None = None,
    rows: int | None = None,
    ids: Sequence[Sequence[int]] | None = None,
) -> list[list[list[int]]]:
    """Token ids of `config.samples` continuations of each prompt, under whatever masks are on.

    A batch ends when each of its rows has a token of `stop`; what follows such a token is to be ignored.

    Parameters
    ----------
    prompts : name the noise, and are tokenised unless `ids` are given.
    ids : token ids of each prompt.
    rows : continuations side by side; None: as many as suit the device.

    Raises
    ------
    NotFinite
        A logit is infinite or not a number.
    """
    out: list[list[list[int]]] = [[] for _ in prompts]
    done, total = 0, len(prompts) * config.samples
    suits = sizes(lm.device)
    size = max(1, (rows or suits.continuations) // config.samples)
    encoded = encode(lm, prompts) if ids is None else ids
    shared = _shared(encoded)

    def run(batch: _Batch) -> _Written:
        members, draws = batch
        ids = torch.tensor([list(encoded[i]) for i in members])
        tokens = _continue(lm, ids, [prompts[i] for i in members], draws, config, stop, shared)
        return list(zip(members, tokens.view(len(members), len(draws), -1).tolist(), strict=True))

    for group in pack_equal(encoded, max_tokens=suits.prompts):  # equal lengths side by side
        for start in range(0, len(group.ids), size):
            members = [int(i) for i in group.prompts[start : start + size]]
            batch: _Batch = members, range(config.samples)
            for written in in_halves(lm, run, batch, _halves, "a single continuation"):
                for i, rows_of in written:
                    out[i] += rows_of
            done += len(members) * config.samples
            if progress is not None:
                progress(done, total, "sampling continuations")
    return out


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
) -> Tensor:
    """[prompts * draws, steps] sampled token ids; rows that have ended go on, and are cut by the caller.

    The first `shared` tokens, the same in every row, are run once.
    """
    cache = None
    step_ids = ids.to(lm.device)
    names = [f"{config.seed}|{s}|{prompt}" for prompt in prompts for s in draws]
    ended = torch.zeros(len(names), dtype=torch.bool)
    chosen = []
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
            logits = lm.logits(hidden) / config.temperature
            noise = gumbel([f"{name}|{step}" for name in names], logits.shape[-1])
            noisy = logits + noise.to(logits.device)
            token = noisy.argmax(-1)
            best = noisy.gather(-1, token[:, None])  # not a number if any logit of the row is none
            require_finite(lm, best.cpu().numpy(), "the logits of a continuation", ids)
            token = token.cpu()
            chosen.append(token)
            ended |= torch.tensor([int(t) in stop for t in token])
            if stop and bool(ended.all()):
                break
            step_ids = token[:, None].to(lm.device)
    return torch.stack(chosen, dim=1)


def stop_tokens(lm: LanguageModel) -> frozenset[int]:
    found = {getattr(lm.tokenizer, "eos_token_id", None)}
    eos = getattr(lm.model.config, "eos_token_id", None)
    found.update(eos if isinstance(eos, list) else [eos])
    return frozenset(int(t) for t in found if t is not None)
