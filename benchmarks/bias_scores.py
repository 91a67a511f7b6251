"""Time to a ranking of heads by z_bias that repeats: first order, one hooked pass a head, and the released recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks._common import AXIS, Clock, Gauge, about, say, spread, stored_or_preview
from fasp_core import gap
from fasp_core.data.text import SCORE_TEXT, TextConfig
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import critical_heads
from fasp_core.metrics.expected import measure_expected
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, meter
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.packing import pack_equal
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.estimate import first_order_rows
from fasp_core.scoring.impact_table import BiasImpacts
from fasp_core.storage.store import Store

SIZES = (216, 450, 720, 1440, 2880)
READING = "neutral"  # the one whose number of prompts the ratios are of
GAMMA = 0.3  # share of critical heads; reliability is over the others
PLAIN = 720  # prompts of the plain way, at most; beyond, its time is taken as proportional to tokens
RELEASED = 10_168  # continuations a head and seed in the released runs of GPT-2


def run(
    lm: LanguageModel | None = None,
    config: BiasConfig | None = None,
    text: TextConfig = SCORE_TEXT,
    store: Store | None = None,
    sizes: Sequence[int] = SIZES,
    target: float = 0.9,
    heads: int = 10,
    recipe: tuple[int, int] = (64, 20),
) -> dict[str, Any]:
    """Seconds of first-order z_bias with as many prompts as its reliability needs, and what the other ways would take.

    Parameters
    ----------
    sizes : numbers of prompts, ascending; the first that reaches the target in both readings ends the search.
    heads : how many heads the plain way and the released recipe are timed on; the time of all heads is extrapolated.
    recipe : continuations that are sampled at once, and their length, for the recipe's time a continuation.
    """
    continuations, tokens = recipe
    lm, store = lm or load(ModelSpec()), store or Store()
    config = config or BiasConfig(AXIS)
    z_nats, source = stored_or_preview(lm, text, store)
    free = sorted(set(range(lm.size)) - set(critical_heads(z_nats, GAMMA).tolist()))
    words = Clock()
    with words.lap():  # once for a model, whatever the way
        meter(lm, replace(config, n_prompts=sizes[0]), store)

    rounds = _search(lm, config, store, sizes, target, free)
    needed = {r: _first_sure(rounds, r, target) for r in rounds[0]["reliability"]}
    gauge = _expected(lm, replace(config, n_prompts=needed[READING]["asked"]), store)
    n = len(gauge.rows)
    picked = spread(lm, heads)
    first, plain, released = Clock(), Clock(), Clock()
    with first.lap():
        gauge = _expected(lm, gauge.config, store)  # prompts, tokens, packs
    part = min(n, PLAIN)
    packs = pack_equal(gauge.rows[:part], gauge.config.steps)
    prompts = _equal_prompts(gauge.rows, continuations)
    by_length = sorted(gauge.rows, key=len)
    slices = np.array_split(np.arange(n), len(picked))
    for flat, where in zip(picked, slices, strict=True):  # all ways in turn: drift of the machine meets all
        if len(where):
            with first.lap():
                rows = Gauge(gauge.config, gauge.worth, [by_length[i] for i in where])
                first_order_rows(lm, rows)  # type: ignore[arg-type]  # as much of a meter as it reads
        with masked(lm, PruneSet.from_flat([flat], lm.n_heads)):
            with plain.lap():
                measure_expected(lm, packs, gauge.worth)
            with released.lap():
                _generate(lm, prompts, tokens)
        say(f"bias_scores: {len(plain.laps)} of {len(picked)} heads timed")

    share = sum(map(len, gauge.rows)) / sum(map(len, gauge.rows[:part]))
    plain_all = plain.seconds / len(picked) * share * lm.size
    per_continuation = released.seconds / (len(picked) * len(prompts))
    released_all = per_continuation * RELEASED * lm.size
    return {
        "ratio_plain": plain_all / first.seconds,
        "ratio_released": released_all / first.seconds,
        "reliability": needed[READING]["reliability"][READING],
        "seconds": first.seconds,
        "reached": needed[READING]["reliability"][READING] >= target,
        "target": target,
        "reading": READING,
        "prompts": n,
        "by_reading": {
            r: {"prompts": row["prompts"], "reliability": row["reliability"][r], "search_seconds": row["seconds"]}
            for r, row in needed.items()
        },
        "rounds": rounds,
        "reliability_of": f"split halves, corrected to the whole sample, over the {len(free)} of {lm.size} heads that "
        f"may be pruned at gamma {GAMMA:g}, critical ones by {source}",
        "axis": config.axis,
        "word_values_seconds": words.seconds,
        "plain_seconds": plain_all,
        "released_seconds": released_all,
        "extrapolation": {
            "heads_timed": len(picked),
            "heads": lm.size,
            "plain_prompts_timed": part,
            "plain_tokens_factor": share,
            "plain_seconds_a_head": [t * share for t in plain.laps],
            "released_seconds_a_continuation": per_continuation,
            "released_tokens_a_second": tokens / per_continuation,
            "released_batch": len(prompts),
            "released_tokens": tokens,
            "released_continuations": RELEASED * lm.size,
            "what": "Plain: the mean seconds a head, times all heads. Released: seconds a continuation, times "
            f"{RELEASED:,} continuations a head for one seed, times all heads; sampled by transformers' generate as in "
            "the released code (whose default is up to 50 tokens), in full batches of one length, scoring left out.",
        },
        **about(lm),
    }


def _search(
    lm: LanguageModel, config: BiasConfig, store: Store, sizes: Sequence[int], target: float, free: Sequence[int]
) -> list[dict[str, Any]]:
    """More and more prompts until every reading is sure. Rows are taken over, as the smaller sample is in the larger.

    Returns
    -------
    of each round: prompts asked for and used, seconds so far, reliability by reading.
    """
    known: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # prompt -> [R], [N, R]
    clock, rounds = Clock(), []
    for size in sizes:
        with clock.lap():
            gauge = _expected(lm, replace(config, n_prompts=size), store)
            texts = gauge.prompts.texts
            new = [i for i, t in enumerate(texts) if t not in known]
            if new:
                rows = Gauge(gauge.config, gauge.worth, [gauge.rows[i] for i in new])
                base, ablated = first_order_rows(lm, rows)  # type: ignore[arg-type]
                known |= {texts[i]: (base[:, j], ablated[..., j]) for j, i in enumerate(new)}
            impacts = _impacts(gauge, [known[t] for t in texts])
            reliability = {r: impacts.reliability(r, free).whole for r in impacts.readings}
        rounds.append({"asked": size, "prompts": len(texts), "seconds": clock.seconds, "reliability": reliability})
        say(f"bias_scores: {len(texts)} prompts, reliability {reliability}")
        if all(r >= target for r in reliability.values()):
            break
    return rounds


def _expected(lm: LanguageModel, config: BiasConfig, store: Store) -> ExpectedMeter:
    gauge = meter(lm, config, store)
    assert isinstance(gauge, ExpectedMeter)
    return gauge


def _impacts(gauge: ExpectedMeter, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> BiasImpacts:
    codes, groups = gap.group_codes(gauge.prompts.groups)
    c = gauge.config
    return BiasImpacts(
        c.measure,
        c.axis,
        c.split,
        c.scorer,
        c.readings,
        np.stack([base for base, _ in rows], -1),
        np.stack([ablated for _, ablated in rows], -1),
        codes,
        groups,
        {},
        blocks=np.array(gauge.prompts.blocks) if gauge.prompts.blocks else None,
        estimator="first-order",
    )


def _first_sure(rounds: list[dict[str, Any]], reading: str, target: float) -> dict[str, Any]:
    """The first round in which a reading is sure, else the last."""
    return next((row for row in rounds if row["reliability"][reading] >= target), rounds[-1])


def _equal_prompts(rows: Sequence[Sequence[int]], count: int) -> torch.Tensor:
    """[count, T] prompts of the commonest length, repeated if need be: a full batch is the kindest to sampling."""
    length = Counter(map(len, rows)).most_common(1)[0][0]
    alike = [list(row) for row in rows if len(row) == length]
    return torch.tensor([alike[i % len(alike)] for i in range(count)])


def _generate(lm: LanguageModel, prompts: torch.Tensor, tokens: int) -> None:
    """Sample continuations as the released code does, by `generate`; all of full length, as some row mostly is."""
    ids = prompts.to(lm.device)
    lm.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        pad_token_id=min(lm.stops, default=0),
    )
