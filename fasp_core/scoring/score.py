"""Scores of all heads by any estimator, and scoring that goes on until the ranking is sure."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fasp_core import gap
from fasp_core.compute.shards import Workers
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap.claims import is_gap
from fasp_core.heads.selection import critical_heads
from fasp_core.metrics.meters import BiasConfig, Report, SampledMeter
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import entries
from fasp_core.scoring.entries import ESTIMATORS, KIND, PREVIEW_TEXT, bias_key, read_bias
from fasp_core.scoring.estimate import first_order_impacts, ppl_preview, refined_impacts, two_phase_impacts
from fasp_core.scoring.exact import bias_contents, bias_impacts, bias_label, ppl_impacts
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable
from fasp_core.scoring.pool import pool
from fasp_core.storage.store import Store

OF_MEASURE = {  # estimators
    "expected": ("exact", "refined", "two-phase", "first-order"),
    "written": ("exact",),
    "sampled": ("exact", "first-order", "replay"),
}
GAMMA = 0.3  # the share of critical heads, which are no part of a ranking that a choice is made by


def score(
    lm: LanguageModel,
    text: TextConfig,
    config: BiasConfig,
    store: Store,
    progress: Report | None = None,
    estimator: str = "exact",
    workers: Workers | None = None,
) -> ImpactTable:
    """Both impacts of every head; what is stored is not computed again.

    Raises as `check`.

    Parameters
    ----------
    estimator : "exact" removes every head. "refined" (expected measure) removes those that a choice may depend on and
        takes first-order scores for the others; "two-phase" does so on 720 of the prompts and corrects first-order
        scores of all of them by what it finds. "first-order" (expected or sampled measure) needs one backward
        pass, and "replay" (sampled measure) reweights one pool of continuations; with these two, z_ppl is a preview.
    workers : who removes the heads, and makes first-order scores; default: this process. The same scores either way.
    """
    check(estimator, config.measure)
    found: BiasImpacts
    if estimator in entries.SURE:
        ppl = ppl_impacts(lm, text, store, progress, workers)
        if estimator == "exact":
            found = bias_impacts(lm, config, store, progress, workers)
        else:
            corrected = refined_impacts if estimator == "refined" else two_phase_impacts
            found = corrected(lm, text, config, store, progress, workers)
    else:
        ppl = ppl_preview(lm, text, store, progress)
        if config.measure == "expected":
            found = first_order_impacts(lm, config, store, progress, workers)
        else:
            found = _from_pool(lm, config, store, progress, estimator)
    return ImpactTable(lm.name, lm.n_layers, lm.n_heads, ppl, found)


def check(estimator: str, measure: str) -> None:
    """Say so if there is no such estimator of a measure, before a model is loaded.

    Raises
    ------
    InputError
        An unknown estimator, or one that does not fit the measure.
    """
    if estimator not in ESTIMATORS:
        raise InputError(f"There is no estimator '{estimator}': use {', '.join(ESTIMATORS)}.")
    if estimator not in OF_MEASURE[measure]:
        others = " or ".join(other for other in OF_MEASURE if estimator in OF_MEASURE[other])
        raise InputError(
            f"The estimator '{estimator}' is none of the {measure} measure: add --measure {others}, or take "
            f"--estimator {' or '.join(OF_MEASURE[measure])}."
        )


def _from_pool(
    lm: LanguageModel, config: BiasConfig, store: Store, progress: Report | None, estimator: str
) -> BiasImpacts:
    key = bias_key(config, lm.id, estimator)

    def work() -> Any:
        started = time.monotonic()
        found = pool(lm, config, store, progress)
        gauge = SampledMeter(lm, config, store)
        codes, _ = gap.group_codes(gauge.prompts.groups)
        rows = found.first_order() if estimator == "first-order" else found.replayed(codes)
        nothing = np.zeros(lm.size, dtype=bool)
        return bias_contents(lm, gauge, found.scores.mean(1)[None], rows[:, None], nothing, started)

    return store.made(KIND, key, work, read_bias, label=bias_label(lm, key))


def preview(
    lm: LanguageModel,
    config: BiasConfig,
    store: Store,
    progress: Report | None = None,
    workers: Workers | None = None,
) -> None:
    """A first picture, in a small part of the time: `entries.filling` then has something to begin with."""
    ppl_preview(lm, PREVIEW_TEXT, store, progress)
    first_order_impacts(lm, config, store, progress, workers)


# --- until the ranking is sure ---


@dataclass(frozen=True)
class Goal:
    """How reliable a ranking is to be, in (0, 1), and how many minutes may be spent on it. InputError for others."""

    reliability: float
    minutes: float

    def __post_init__(self) -> None:
        if not 0 < self.reliability < 1 or not self.minutes > 0:
            raise InputError(
                f"A reliability of {self.reliability:g} in {self.minutes:g} minutes cannot be had: the reliability "
                "lies between 0 and 1, and the time is above 0."
            )


@dataclass(frozen=True)
class Round:
    """One round of scoring: how sure the ranking of the heads that may be pruned was with so many prompts."""

    prompts: int
    seconds: float
    reliability: dict[str, float]  # of the whole sample, by reading
    noise_p: dict[str, float]


@dataclass(frozen=True)
class Search:
    """What `score_until` did, and why it ended.

    Attributes
    ----------
    reached : by reading, whether the reliability was reached on a gap that is there.
    why : one sentence for each reading.
    """

    target: float
    rounds: tuple[Round, ...]
    reached: dict[str, bool]
    why: dict[str, str]


def score_until(
    lm: LanguageModel,
    text: TextConfig,
    config: BiasConfig,
    store: Store,
    goal: Goal,
    progress: Report | None = None,
    estimator: str = "refined",
    workers: Workers | None = None,
) -> tuple[ImpactTable, Search]:
    """Score with more and more prompts until the ranking of the prunable heads repeats, or cannot.

    Each round doubles the prompts and takes over the rows of the last one. It ends when every reading has a gap above
    noise and the reliability asked for (split halves of the prompts, corrected to the whole sample), when the prompts
    are used up, or when the next round would not fit into the time. Raises as `score`.
    """
    began, target = time.monotonic(), goal.reliability
    rounds: list[Round] = []
    while True:
        started = time.monotonic()
        impacts = score(lm, text, config, store, progress, estimator, workers)
        rounds.append(_round(impacts, time.monotonic() - started))
        last = rounds[-1]
        known = last.reliability.items()
        open_readings = [r for r, halves in known if not (is_gap(last.noise_p[r]) and halves >= target)]
        more = replace(config, n_prompts=2 * last.prompts)
        left = 60 * goal.minutes - (time.monotonic() - began)
        if not open_readings:
            end = ""
        elif len(more.prompts()) <= last.prompts:
            end = f"all {last.prompts} prompts of this side are used"
        elif left < last.seconds:
            end = f"{goal.minutes:g} minutes do not suffice for twice as many"
        else:
            config = more
            continue
        reached = {r: r not in open_readings for r in last.reliability}
        return impacts, Search(target, tuple(rounds), reached, {r: _why(last, r, target, end) for r in reached})


def _round(impacts: ImpactTable, seconds: float) -> Round:
    toxicity = impacts.bias
    free = prunable(impacts)
    return Round(
        toxicity.base.shape[1],
        seconds,
        {r: toxicity.reliability(r, free).whole for r in toxicity.readings},
        {r: toxicity.gap(r).noise_p for r in toxicity.readings},
    )


def prunable(impacts: ImpactTable, gamma: float = GAMMA) -> list[int]:
    """Flat ids of the heads that are not critical at this gamma."""
    critical = critical_heads(impacts.ppl.z_nats, gamma)
    return sorted(set(range(impacts.n_layers * impacts.n_heads)) - set(critical))


def _why(last: Round, reading: str, target: float, end: str) -> str:
    r, p, n = last.reliability[reading], last.noise_p[reading], last.prompts
    if not is_gap(p):
        return (
            f"The gap of {n} prompts is not above noise (shuffled groups show as large a one in {p:.0%} of cases): its "
            "heads are not to be ranked by what they do to it."
        )
    if r >= target:
        return f"Reliability {r:.2f} over the prunable heads, with {n} prompts."
    needed = f"about {_needed(n, r, target):,} prompts would be needed" if r > 0 else "the halves do not agree at all"
    return f"Reliability {r:.2f}, below {target:g}: {needed}, and {end}."


def _needed(n: int, r: float, target: float) -> int:
    """Prompts for the target by the Spearman-Brown formula, two digits."""
    exact = n * target * (1 - r) / (r * (1 - target))
    return int(float(f"{exact:.2g}"))
