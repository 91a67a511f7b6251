"""A claim settled: chosen on some sentences about some people, measured on new sentences about new people.

The templates of an axis, and the descriptors of each group, are halved (`fasp_core.data.divisions`). On validation
prompts of the quarter that is seen heads are scored by expected toxicity after contexts that all groups share, over
several steps, and the joint search looks for a set, from FASP's on. The best set that it measured within the limit is
measured once on test prompts of that quarter, and of the one that is new in both: next word, within templates, what is
written, and a judge's opinion of sampled texts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fasp_core import defaults
from fasp_core.console import share
from fasp_core.data.text import SCORE_TEXT, TextConfig
from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.gap.claims import Verdict, verdict
from fasp_core.gap.measures import UNSEEN, Measure
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.measurements import perplexity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.perplexity import PerplexityChange, perplexity_change
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.estimate import first_order_impacts
from fasp_core.scoring.exact import ppl_impacts
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.search import Found, SearchConfig
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.studies.common import KIND, Steps, kept, read_nll
from fasp_core.studies.compare import searching, wider
from fasp_core.studies.compare.plan import HELD_OUT
from fasp_core.studies.compare.wider import JUDGE, Sample, Wider
from fasp_core.typing import Report

SEEN = "seen"
_MEASURED = ("prompts", "written", "written_steps", "sampled", "length", "judges")


@dataclass(frozen=True)
class Plan:
    """How a set is chosen, and on how much it is measured.

    Attributes
    ----------
    reading : the gap that the choice minimises. "direct": at equal contexts, which is far less noisy.
    scored, steps, contexts : validation prompts of the seen quarter, positions, and contexts that groups share.
    search : size and limits of the joint search; FASP's sets have as many heads.
    samples : by cell, what the chosen set is measured on.
    judges : names of the scorers that are asked; the first one's scores choose.
    """

    axis: str
    reading: str = "neutral direct"
    division: int = 0
    scored: int = 480
    steps: int = 4
    contexts: int = 6
    heads: int = 13
    max_ppl: float = defaults.MAX_PPL
    measurements: int = 12
    prompts: int = 2400
    written: int = 20_000
    written_steps: int = 8
    sampled: int = 100_000
    length: int = 4
    judges: tuple[str, ...] = (JUDGE,)

    @property
    def choice(self) -> BiasConfig:
        """What the choice sees."""
        return BiasConfig(
            self.axis,
            "valid",
            self.scored,
            scorer=self.judges[0],
            steps=self.steps,
            contexts=self.contexts,
            cell=SEEN,
            division=self.division,
        )

    @property
    def search(self) -> SearchConfig:
        return SearchConfig(self.reading, self.heads, self.max_ppl, self.measurements)

    def samples(self) -> list[Sample]:
        """What the chosen set is measured on: most where both are new, a quarter of it on what is seen."""
        found: list[Sample] = []
        for judge in self.judges:
            on = Sample(
                self.axis,
                UNSEEN,
                self.division,
                self.prompts,
                self.written,
                self.written_steps,
                length=self.length,
                judge=judge,
            )
            found += [on, replace(on, cell=SEEN, written=self.written // 4)]
            if self.sampled:
                found.append(replace(on, written=0, sampled=self.sampled))
        return found

    @property
    def text(self) -> TextConfig:
        """For perplexity, behind all that a choice was made on."""
        return TextConfig(tokens=defaults.SCORE_TOKENS, skip=HELD_OUT)

    def key(self, model_id: ModelId) -> dict[str, Any]:
        """Everything that shapes the choice, for the store; what it is measured on has entries of its own."""
        shapes = {name: value for name, value in asdict(self).items() if name not in _MEASURED}
        sample = self.choice.prompts().digest[:16]
        drawn = {"sample": sample, "noise": noise.VERSION, **wider.judged(self.choice)}
        return {"experiment": "settled", **model_id.key(), **shapes, "judge": self.judges[0], **drawn}


@dataclass(frozen=True, eq=False)
class Settled:
    """The chosen set and what it is worth.

    Attributes
    ----------
    heads : flat ids of the chosen set. method : "search", or "fasp" where none of its sets was better.
    fasp : the best of FASP's own sets within the limit; empty if none was.
    gaps : on what the choice saw: of the unpruned model, of FASP's set, and of the chosen one.
    perplexity : on text that no choice was made on.
    wider : what was measured of it. left : samples of the plan that were not measured yet.
    """

    plan: Plan
    heads: tuple[int, ...]
    method: str
    fasp: tuple[int, ...]
    gaps: tuple[float, float, float]
    perplexity: PerplexityChange
    wider: tuple[Wider, ...]
    n_heads: int
    left: tuple[Sample, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """Those where templates and descriptors are new first."""
        return tuple(m for one in self.wider for m in one.measures)

    @cached_property
    def verdict(self) -> Verdict:
        """What may be said as a whole, in the masked reading unless the choice was made in the other one.

        Not green before all of the plan is measured: whoever may stop at green would.
        """
        costs = {"perplexity": (self.perplexity.relative, self.plan.max_ppl)}
        found = verdict([m.evidence for m in self.measures], self.plan.reading.split()[0], costs)
        left = tuple(f"not measured yet: {sample.title}" for sample in self.left)
        if not left:
            return found
        return replace(found, colour="amber" if found.colour == "green" else found.colour, missing=found.missing + left)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "axis": self.plan.axis,
            "division": self.plan.division,
            "method": self.method,
            "heads": PruneSet.from_flat(self.heads, self.n_heads).format(),
            "heads_removed": len(self.heads),
            "chosen_by": f"{self.plan.reading}, {self.plan.steps} steps after {self.plan.contexts} shared contexts, on "
            f"{self.plan.scored} validation prompts of the seen half of templates and descriptors",
            "gaps_of_the_choice": dict(zip(("unpruned", "fasp", "chosen"), self.gaps, strict=True)),
            "ppl_base": self.perplexity.base,
            "ppl_pruned": self.perplexity.pruned,
            "ppl_change_pct": 100 * self.perplexity.relative,
            "tokens": self.perplexity.tokens,
            "measures": [{"measure": m.name, **m.as_dict()} for m in self.measures],
            "not_measured": [sample.title for sample in self.left],
            "claim": self.verdict.as_dict(),
        }


def run(lm: LanguageModel, plan: Plan, store: Store, progress: Report | None = None) -> Settled:
    """Choose and measure; every step is stored, so a run that was stopped goes on where it was.

    Raises
    ------
    InputError
        An axis that cannot be divided; no set within the limit lowers the gap that the choice sees.
    """

    whole = Steps(progress, 1 + len(plan.samples()))
    choosing = whole.next()

    def work() -> Contents:
        steps = Steps(choosing, 4)
        nll_of = ppl_impacts(lm, SCORE_TEXT, store, steps.next("scores of perplexity: {}"))
        toxicity = first_order_impacts(lm, plan.choice, store, steps.next("scores after shared contexts: {}"))
        impacts = ImpactTable(lm.name, lm.n_layers, lm.n_heads, nll_of, toxicity)
        found = searching.run(lm, impacts, plan.choice, plan.search, store, steps.next("choice: {}"))
        fasp = _best_start(found)
        chosen = found.heads
        if not chosen:
            raise InputError(
                f"No set of {plan.heads} heads that costs at most {share(plan.max_ppl)} more perplexity lowers the gap "
                f"of {plan.axis} that the choice sees: allow more of either."
            )
        rest = Steps(steps.next(), 2)
        subjects = [PruneSet(), PruneSet.from_flat(chosen, lm.n_heads)]
        nll = [perplexity_of(lm, s, plan.text, store, rest.next("perplexity: {}"))[0] for s in subjects]
        arrays = {"nll": np.stack([n.sums for n in nll]), "counts": nll[0].counts.astype(np.int32)}
        gap_fasp = min((t.gap for t in found.tried if t.heads == fasp), default=float("nan"))
        meta = {
            "heads": list(chosen),
            "fasp": list(fasp),
            "gaps": [found.base_gap, gap_fasp, found.gap],
            "n_heads": lm.n_heads,
        }
        return {"arrays": arrays, "meta": meta}

    name = f"settled-{slug(plan.axis.rsplit('/', 1)[-1])}-{slug(plan.reading)}"
    chosen = kept(store, lm, name, plan.key(lm.id), work, lambda entry: read(entry, plan, lm.id, store))
    for sample in plan.samples():
        wider.measure(lm, chosen.heads, sample, store, whole.next())
    found = find(plan, lm.id, store)
    assert found is not None
    return found


def find(plan: Plan, model_id: ModelId, store: Store) -> Settled | None:
    """The stored result, as far as it was measured; without a model."""
    return store.read(KIND, plan.key(model_id), lambda entry: read(entry, plan, model_id, store))


def read(entry: Entry, plan: Plan, model_id: ModelId, store: Store) -> Settled:
    """A result from its entry and those of its measurements."""
    meta = entry.meta
    heads, fasp = tuple(meta["heads"]), tuple(meta["fasp"])
    nll = read_nll(entry.arrays["nll"], entry.arrays["counts"])
    parts = {s: store.read(KIND, s.key(model_id, heads), wider.read) for s in plan.samples()}
    return Settled(
        plan,
        heads,
        "fasp" if heads == fasp else "search",
        fasp,
        tuple(meta["gaps"]),
        perplexity_change(nll[0], nll[1]),
        tuple(part for part in parts.values() if part is not None),
        meta["n_heads"],
        tuple(sample for sample, part in parts.items() if part is None),
        meta["provenance"],
    )


def _best_start(found: Found) -> tuple[int, ...]:
    """The best of FASP's sets, with which the search began, within its limit."""
    limit = np.log1p(found.config.max_ppl)
    starts = [t for t in found.tried if np.isnan(t.predicted) and t.nats <= limit and t.gap < found.base_gap]
    return min(starts, key=lambda t: t.gap).heads if starts else ()
