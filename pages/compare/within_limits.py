"""The choice within limits beside perplexity: what is known of them, and the offers to measure what is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from fasp_core.compute.jobs import Progress
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.compare import limits
from fasp_core.studies.compare.compare import Comparison, choose
from fasp_core.studies.compare.curves import best_of_each
from fasp_core.studies.compare.limits import Meter
from fasp_core.studies.compare.outcome import Claim
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from pages.compare.compared import Settings
from pages.widgets import background, tasks

SPENT = "a minute and a half for each 300 items of a task and set with the built-in model on two cores"
Fits = Callable[[Sequence[int]], bool]


def fits(settings: Settings, comparison: Comparison) -> Fits | None:
    """Whether a set keeps to the limits beside perplexity, by what is stored; None where there are none.

    What it gives raises Unmeasured where that does not tell. Raises InputError where the tasks cannot be read.
    """
    if not settings.limits.beyond_ppl:
        return None
    return engine().results.meter(settings.spec, comparison.n_heads, settings.limits, "valid").fits


def offer_choice(settings: Settings, comparison: Comparison) -> None:
    """Ask sets the tasks, from the lowest gap on, until one keeps to all limits."""
    wanted, reading = settings.limits, comparison.plan.reading
    n = _inside(settings, comparison)
    background.offer(
        Experiment(settings.spec, "Choice within limits", (settings.axis, reading, wanted, settings.within)),
        _asking(
            wanted, n, lambda keeps: choose(comparison, reading, wanted.max_ppl, within=settings.within, fits=keeps)
        ),
        title="Not known yet which set keeps to these limits",
        about=f"The limits: {wanted.text()}. {n} sets keep to the first and have a smaller validation gap. From the "
        f"lowest gap on, both models are asked {wanted.items} items of each of {_names(settings)}, of the half that "
        f"choices are made on, until a set keeps to all limits. That takes {SPENT}; a cancelled run goes on where it "
        "was.",
        button="Choose within these limits",
    )


def offer_best(settings: Settings, comparison: Comparison) -> None:
    """The same for the candidates of every method by itself."""
    wanted, reading = settings.limits, comparison.plan.reading
    n = _inside(settings, comparison)
    background.offer(
        Experiment(settings.spec, "Best of each method within limits", (settings.axis, reading, wanted)),
        _asking(wanted, n, lambda keeps: best_of_each(comparison, wanted.max_ppl, keeps)),
        title="Not known yet which set of each method keeps to these limits",
        about=f"Each method's own sets are asked {wanted.items} items of each of {_names(settings)}, from the lowest "
        f"gap on, until one keeps to {wanted.text()}. That takes {SPENT}.",
        button="Measure the best of each method",
    )


def named(settings: Settings, claim: Claim, comparison: Comparison) -> Claim:
    """The claim with all limits of the choice, and what its set costs by them on test items, where that is known."""
    if not settings.limits.beyond_ppl:
        return claim.under(settings.limits)
    meter = engine().results.meter(settings.spec, comparison.n_heads, settings.limits, "test")
    return claim.under(settings.limits, meter.spent(claim.candidate.heads))


def offer_claim(settings: Settings, claim: Claim) -> None:
    """Measure what the claimed set costs by the limits, on test items; nothing where that is known."""
    if claim.limits is None or all(one.value == one.value for one in claim.spent):
        return
    wanted, heads = claim.limits, claim.candidate.heads
    background.offer(
        Experiment(settings.spec, "What a set costs by its limits", (wanted, heads)),
        lambda lm, store, progress: limits.Meter(lm, wanted, "test", store, progress).spent(heads),
        title="Does it keep to its limits on other items?",
        about=f"The set was chosen on half of the items. On the other half, {wanted.items} items of each of "
        f"{_names(settings)}, it was not measured yet, so that a success is not shown. That takes {SPENT}.",
        button="Measure what it costs",
    )


def spent(claim: Claim) -> None:
    """What a claimed set costs by each limit beside perplexity."""
    for one in claim.spent:
        if one.value == one.value:
            st.markdown(
                f":{'green' if one.kept else 'red'}-badge[{'kept' if one.kept else 'broken'}] {one.text()}, at most "
                f"{one.most:g} allowed, on the test half of the items."
            )


def _asking(wanted: limits.Limits, n: int, find: Callable[[Fits], Any]) -> Any:
    """A job's work: `find` with a meter that measures, and says how many sets were asked."""

    def work(lm: LanguageModel, store: Store, progress: Progress) -> Any:
        meter: Meter = limits.Meter(lm, wanted, "valid", store, progress)
        asked: list[Sequence[int]] = []

        def keeps(heads: Sequence[int]) -> bool:
            asked.append(heads)
            progress(len(asked) - 1, max(n, len(asked)), f"set {len(asked)} of at most {max(n, len(asked))}")
            return meter.fits(heads)

        return find(keeps)

    return work


def _inside(settings: Settings, comparison: Comparison) -> int:
    """How many sets keep to the limit on perplexity with a smaller gap than the unpruned model's."""
    gaps = comparison.gaps("valid", comparison.plan.reading, settings.within)
    side = comparison.sides["valid"]
    rows = {row for row in comparison.rows if row and gaps[row] < gaps[0]}
    return sum(side.perplexity(row).relative <= settings.max_ppl for row in rows)


def _names(settings: Settings) -> str:
    return ", ".join(map(tasks.title, settings.limits.asked))
