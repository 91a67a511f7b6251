"""The search against FASP: both chosen on validation prompts within the same limits, compared on test prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fasp_core.console import share
from fasp_core.gap import bootstrap_counts
from fasp_core.gap.estimates import Estimate, interval
from fasp_core.gap.gaps import weighted_gaps
from fasp_core.scoring.search import Found
from fasp_core.studies.common import RESAMPLES
from fasp_core.studies.compare.compare import Comparison, choose
from fasp_core.studies.compare.plan import Candidate
from fasp_core.studies.compare.searching import candidate


@dataclass(frozen=True)
class Run:
    """One search on test prompts.

    Attributes
    ----------
    gap : of the search's set.
    less : its gap minus that of FASP's set, as a share of the unpruned model's gap, on the same prompts; below 0: the
        search's is lower.
    ppl_change : relative, on the test side's text.
    """

    candidate: Candidate
    gap: float
    less: Estimate
    ppl_change: float


@dataclass(frozen=True)
class Versus:
    """All independent searches against the set that FASP's choice comes to.

    Attributes
    ----------
    fasp : lowest validation gap of FASP's candidates within the limits; `fasp_gap` and `fasp_ppl` are of the test side.
    mean : mean of `Run.less` over the searches, its interval over prompts and searches.
    prompts : of the test side.
    """

    reading: str
    max_ppl: float
    max_alpha: float
    fasp: Candidate
    base_gap: float
    fasp_gap: float
    fasp_ppl: float
    runs: tuple[Run, ...]
    mean: Estimate
    prompts: int

    @property
    def better(self) -> bool:
        """Whether the search's sets were shown to have a lower gap than FASP's."""
        return self.mean.high < 0

    def sentence(self) -> str:
        """What the comparison shows."""
        wins = sum(run.gap < self.fasp_gap for run in self.runs)
        span = f"{self.mean.value:+.0%} [{self.mean.low:+.0%}, {self.mean.high:+.0%}] of the unpruned gap"
        found = "lower" if self.better else "higher" if self.mean.low > 0 else "not shown to differ"
        return (
            f"Search against FASP, at most {share(self.max_alpha)} of the heads and {share(self.max_ppl)} more "
            f"perplexity, both chosen on validation prompts: on {self.prompts:,} test prompts the search's gap is "
            f"{found}, by {span} over {len(self.runs)} searches ({wins} of them lower)."
        )


def versus(comparison: Comparison, searches: Sequence[Found], reading: str, max_ppl: float) -> Versus | None:
    """Compare; None if no search is within the limit, or nothing of FASP's.

    Parameters
    ----------
    searches : finished ones; those that learned from others, minimised the gap within templates, or are not in the
        comparison do not count.
    max_ppl : relative rise of perplexity. Of the searches whose own limit is at most this, the largest group counts
        that shares limit, number of heads and of measurements (of equals: the loosest). FASP's set is the best within
        the same limits.
    """
    size = comparison.n_layers * comparison.n_heads
    at = dict(zip(comparison.candidates, comparison.rows, strict=True))
    alike: dict[tuple[float, int, int], list[Candidate]] = {}
    for search in searches:
        c, own = search.config, candidate(search, size)
        if (
            not (search.learned or c.within or c.items)
            and c.reading == reading
            and c.max_ppl <= max_ppl + 1e-9
            and own in at
        ):
            alike.setdefault((c.max_ppl, c.max_heads, c.measurements), []).append(own)
    if not alike:
        return None
    limits = max(alike, key=lambda x: (len(alike[x]), x))
    found, (max_ppl, max_heads, _) = alike[limits], limits
    max_alpha = max_heads / size
    fasp = choose(comparison, reading, max_ppl, ["fasp"], max_alpha)
    if fasp is None:
        return None
    side = comparison.sides["test"]
    rows = comparison.toxicity("test", reading)[[0, at[fasp], *(at[c] for c in found)]]  # [2 + seeds, n]
    counts = bootstrap_counts(rows.codes, RESAMPLES, 0, rows.blocks)
    observed, drawn = rows.gaps(), weighted_gaps(rows.values, counts, rows.codes)  # [2 + seeds], [2 + seeds, B]
    less, less_drawn = (observed[2:] - observed[1]) / observed[0], (drawn[2:] - drawn[1]) / drawn[0]
    again = np.random.default_rng(0).integers(len(found), size=less_drawn.shape)
    mean = interval(float(less.mean()), np.take_along_axis(less_drawn, again, 0).mean(0))
    runs = tuple(
        Run(c, float(observed[2 + i]), interval(float(less[i]), less_drawn[i]), side.perplexity(at[c]).relative)
        for i, c in enumerate(found)
    )
    return Versus(
        reading,
        max_ppl,
        max_alpha,
        fasp,
        float(observed[0]),
        float(observed[1]),
        side.perplexity(at[fasp]).relative,
        runs,
        mean,
        rows.n,
    )
