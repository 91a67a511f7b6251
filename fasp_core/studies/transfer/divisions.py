"""Does a set that was chosen on some sentences about some people hold on new sentences and new people?

A division halves the templates and, in each group, the descriptors (`fasp_core.data.divisions`). Heads are scored and
a FASP set is chosen on validation prompts of the quarter that is seen, and the set is measured on test prompts of all
four. Other divisions make other choices: intervals are over divisions, so they hold what depends on which half was
seen. A cautious choice ranks heads by what they are worth at least when templates and descriptors are drawn again.
Gains are learned on the quarter instead, with new halves of it in every step and a third of it apart to stop by.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from fasp_core import defaults
from fasp_core.data.divisions import CELLS
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap import PromptRows
from fasp_core.gap.cautious import at_least
from fasp_core.gap.claims import shown
from fasp_core.gap.estimates import LEVEL, UNDEFINED, Estimate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.expected import READINGS
from fasp_core.metrics.measurements import perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.perplexity import perplexity_change, ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.learned.gains import learn
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.scoring.score import score
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.studies.common import KIND, Steps, as_heads, as_text, kept, read_nll, table
from fasp_core.typing import Report

FEWEST = 2  # divisions, for an interval
CHOICES = ("mean", "cautious", "gains")
USUAL = {"choose": "mean", "precision": "float32"}  # no part of keys
PATIENCE = 15  # steps of gains without a lower gap on what no step sees


@dataclass(frozen=True)
class Plan:
    """What is chosen and measured.

    Attributes
    ----------
    reading : that the choice minimises the gap of.
    choose : heads by "mean" scores, or "cautious"ly, see `fasp_core.gap.cautious`, or "gains" for all heads.
    precision : of steps that learn gains, see `GainsConfig`.
    divisions : how many, numbered from 0.
    scored : validation prompts of the quarter that is seen, at least; gains are learned on all of that.
    prompts : test prompts of each quarter, at least.
    """

    axis: str
    reading: str = "neutral"
    gamma: float = defaults.GAMMA
    alpha: float = defaults.ALPHA
    divisions: int = 5
    scored: int = defaults.SCORE_PROMPTS
    prompts: int = 900
    text: TextConfig = field(default_factory=lambda: TextConfig(tokens=defaults.SCORE_TOKENS))
    choose: str = "mean"
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.choose not in CHOICES:
            raise InputError(f"There is no choice '{self.choose}': use {', '.join(CHOICES[:-1])} or {CHOICES[-1]}.")
        if self.precision != USUAL["precision"] and self.choose != "gains":
            raise InputError("Only steps that learn gains have a precision: choose gains, or leave it out.")
        if self.choose == "gains" and (self.gamma, self.alpha) != (defaults.GAMMA, defaults.ALPHA):
            raise InputError("Gains are learned for all heads, of which gamma and alpha choose none: leave them out.")
        if self.divisions < FEWEST:
            raise InputError(f"{self.divisions} divisions give no interval: ask for {FEWEST} or more.")

    def choice(self, division: int) -> BiasConfig:
        """What the choice of a division sees."""
        return BiasConfig(self.axis, "valid", self.scored, cell="seen", division=division)

    @property
    def learning(self) -> GainsConfig:
        """How gains are learned."""
        return GainsConfig(self.reading, cells="worst", patience=PATIENCE, precision=self.precision)

    def test(self, cell: str, division: int) -> BiasConfig:
        """What a set is measured on in a cell."""
        return BiasConfig(self.axis, "test", self.prompts, cell=cell, division=division)

    def key(self, model_id: ModelId) -> dict[str, Any]:
        """Everything that shapes the study, for the store."""
        asked = [self.choice(0), *(self.test(cell, 0) for cell in CELLS)]
        return {
            "experiment": "divisions",
            **model_id.key(),
            **{name: value for name, value in asdict(self).items() if name != "text" and USUAL.get(name) != value},
            "text": ppl_key(self.text, model_id),
            "samples": [config.prompts().digest[:16] for config in asked],
            **({"gains": asdict(self.learning)} if self.choose == "gains" else {}),
        }


@dataclass(frozen=True)
class Cell:
    """The gap in one cell, over all divisions.

    Attributes
    ----------
    base, pruned : [divisions] gap of the unpruned and of the pruned model.
    found : by division, what its own prompts show, see `fasp_core.gap.claims.claimed`.
    change : relative change of the mean gap, with its interval over divisions.
    prompts : of each division.
    """

    base: tuple[float, ...]
    pruned: tuple[float, ...]
    found: tuple[str, ...]
    change: Estimate
    prompts: tuple[int, ...]


@dataclass(frozen=True)
class Carried:
    """How well the sets of a plan carry over.

    Attributes
    ----------
    cells : by reading, then by cell.
    heads : by division, the set that was chosen, flat ids; of gains, those that ended at 0.
    gates : by division, gains as `PruneSet.format` writes them; empty where heads were removed.
    perplexity : [divisions] relative change on the text of the scores.
    """

    plan: Plan
    cells: dict[str, dict[str, Cell]]
    heads: tuple[tuple[int, ...], ...]
    perplexity: tuple[float, ...]
    provenance: dict[str, Any]
    gates: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """In a sentence: from what was seen to what is new in both."""
        seen, new = (self.cells[self.plan.reading][name].change for name in ("seen", "new both"))
        cautious = " cautiously" * (self.plan.choose == "cautious")
        how = f"Chosen{cautious} on half of the templates and descriptors, sets of {len(self.heads[0])} heads"
        if self.gates:
            how = "Learned on half of the templates and descriptors, gains"
        return (
            f"{how} change the gap there by {seen.text(0, 100)}%, and where both are new by {new.text(0, 100)}% "
            f"({self.plan.divisions} divisions)."
        )


def run(lm: LanguageModel, plan: Plan, store: Store, progress: Report | None = None) -> Carried:
    """Score, choose and measure; every step is stored, so a run that was stopped goes on where it was.

    Raises
    ------
    InputError
        An axis that cannot be divided.
    """

    def work() -> Contents:
        arrays: dict[str, Any] = {}
        sets: list[PruneSet] = []
        steps, runner = Steps(progress, plan.divisions * (1 + len(CELLS))), CachedRunner(lm)
        nll = [perplexity_of(lm, PruneSet(), plan.text, store)[0]]
        for d in range(plan.divisions):
            chosen = _chosen(lm, plan, d, store, steps)
            sets.append(chosen)
            nll.append(perplexity_of(lm, chosen, plan.text, store, runner=runner)[0])
            for i, cell in enumerate(CELLS):
                report, config = steps.next(f"division {d + 1}, {cell}: {{}}"), plan.test(cell, d)
                pair = [toxicity_of(lm, s, config, store, report, runner) for s in (PruneSet(), chosen)]
                rows = PromptRows.of([t.values for t in pair], pair[0].groups, pair[0].blocks)
                arrays |= {f"{d}_{i}_toxicity": rows.values.astype(np.float32), **rows.stored(f"{d}_{i}_")}
        arrays |= {"nll": np.stack([n.sums for n in nll]), "counts": nll[0].counts.astype(np.int32)}
        meta = {"heads": [as_text(one.flat(lm.n_heads)) for one in sets]}
        if plan.choose == "gains":
            meta["gates"] = [one.format() for one in sets]
        return {"arrays": arrays, "meta": meta}

    name = f"divisions-{slug(plan.axis)}{f'-{plan.choose}' * (plan.choose != USUAL['choose'])}"
    return kept(store, lm, name, plan.key(lm.id), work, lambda entry: read(entry, plan))


def _chosen(lm: LanguageModel, plan: Plan, division: int, store: Store, steps: Steps) -> PruneSet:
    """What the quarter of a division that is seen teaches."""
    config = plan.choice(division)
    if plan.choose == "gains":
        report = steps.next(f"division {division + 1}, gains: {{}}")
        return learn(lm, config, plan.text, plan.learning, store, report).at(1.0)
    report = steps.next(f"division {division + 1}, scores: {{}}")
    scores = score(lm, plan.text, config, store, report, "refined")
    ranked = scores.head_scores(plan.reading)
    if plan.choose == "cautious":
        prompts, r = config.prompts(), scores.bias.readings.index(plan.reading)
        rows = PromptRows.paired(scores.bias.base[r], scores.bias.ablated[:, r], scores.bias.codes)
        ranked = replace(ranked, z_bias=at_least(rows, prompts.templates, prompts.descriptors))
    return PruneSet.from_flat(select(ranked, "fasp", plan.gamma, plan.alpha).pruned, lm.n_heads)


def find(plan: Plan, model_id: ModelId, store: Store) -> Carried | None:
    """The stored result, without a model."""
    return store.read(KIND, plan.key(model_id), lambda entry: read(entry, plan))


def read(entry: Entry, plan: Plan) -> Carried:
    """A result from its rows."""
    arrays = entry.arrays
    cells: dict[str, dict[str, Cell]] = {reading: {} for reading in READINGS}
    for i, cell in enumerate(CELLS):
        names = [f"{d}_{i}_" for d in range(plan.divisions)]
        groups = [tuple(map(str, np.unique(arrays[f"{name}codes"]))) for name in names]
        rows = [PromptRows.read(arrays[f"{n}toxicity"], arrays, g, n) for n, g in zip(names, groups, strict=True)]
        for r, reading in enumerate(READINGS):
            each = [part[:, r] for part in rows]
            gaps = np.array([part.gaps() for part in each])  # [divisions, 2]
            found = [shown(p.stats().noise_p, p.changes()[0]) for p in each]
            sizes = tuple(part.n for part in each)
            base, pruned = gaps.T
            change = ratio_change(base, pruned)
            cells[reading][cell] = Cell(tuple(base), tuple(pruned), tuple(found), change, sizes)
    nll = read_nll(arrays["nll"], arrays["counts"])
    ppl = tuple(perplexity_change(nll[0], other).relative for other in nll[1:])
    heads = tuple(map(as_heads, entry.meta["heads"]))
    return Carried(plan, cells, heads, ppl, entry.meta["provenance"], tuple(entry.meta.get("gates", ())))


def ratio_change(base: np.ndarray, pruned: np.ndarray) -> Estimate:
    """`sum(pruned) / sum(base) - 1` of [n] pairs, with Student's t interval of the ratio estimator (Cochran, 1977)."""
    from scipy import stats

    if len(base) < FEWEST or not base.mean() > 0:
        return UNDEFINED
    ratio = float(pruned.mean() / base.mean())
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(base) - 1) * stats.sem((pruned - ratio * base) / base.mean()))
    return Estimate(ratio - 1, ratio - 1 - half, ratio - 1 + half)


def markdown(found: Carried) -> str:
    """The outcome, and a table of cells."""
    rows = [
        f"{reading}, {cell} | {1e3 * np.mean(c.base):.2f} | {1e3 * np.mean(c.pruned):.2f} | {c.change.text(0, 100)} | "
        f"{c.found.count('fell')} of {len(c.found)}"
        for reading, cells in found.cells.items()
        for cell, c in cells.items()
    ]
    said = table("reading, prompts | gap, ×10⁻³ | pruned | change, % | fell in", rows)
    ppl = ", ".join(f"{100 * p:+.1f}%" for p in found.perplexity)
    return f"{found.outcome}\n\n{said}\n\nPerplexity by division: {ppl}.\n"
