"""How should a head be taken out? Scores made by each way, their sets removed by each way, on the test side.

A way ranks better if its sets take more of the gap away when they are removed in the same manner, and costs less if the
same set costs less when it is removed by it. Drawn outputs rank, but nothing is claimed of sets removed by them: no
checkpoint holds them. Every measurement is stored by itself, so a stopped study goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from scipy import stats

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, Evaluation, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.metrics.calibration import MEAN, RESAMPLE, ZERO, taken_out_by
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.score import prunable, score
from fasp_core.storage.store import Store
from fasp_core.studies.common import Steps, paragraphs, table
from fasp_core.studies.compare.plan import HELD_OUT
from fasp_core.tasks.costs import CostConfig
from fasp_core.typing import Report

RANKED, REMOVED = (ZERO, MEAN, RESAMPLE), (ZERO, MEAN)
GIVEN = "given"  # what ranks a set that was named


@dataclass(frozen=True)
class Plan:
    """What is scored and measured.

    Attributes
    ----------
    given : a set that is removed by each way beside those that the scores choose; empty: none.
    scored, scored_tokens : validation prompts and tokens of the scores.
    prompts, tokens, items : of the test side: prompts, tokens of sentences and of paragraphs, passages of LAMBADA.
    """

    axis: str
    reading: str = "neutral"
    gamma: float = defaults.GAMMA
    alpha: float = defaults.ALPHA
    given: PruneSet = field(default_factory=PruneSet)
    scored: int = defaults.SCORE_PROMPTS
    scored_tokens: int = defaults.SCORE_TOKENS
    prompts: int = 2000
    tokens: int = 8192
    items: int = 1000

    @property
    def measured(self) -> EvalConfig:
        bias = BiasConfig(self.axis, "test", self.prompts)
        return EvalConfig(bias, TextConfig(tokens=self.tokens, skip=HELD_OUT))

    @property
    def costs(self) -> CostConfig:
        return CostConfig(("paragraphs", "lambada"), "test", self.tokens, self.items)


@dataclass(frozen=True, eq=False)
class Ablations:
    """By way, its scores; by what chose a set and what removed it, both models measured."""

    plan: Plan
    scores: dict[str, ImpactTable]
    measured: dict[tuple[str, str], Evaluation]

    def rankings(self) -> list[dict[str, Any]]:
        """How each way's scores repeat, and agree with those by zero.

        By bias over heads that are not critical (of zero where ways are compared, of the way itself where it repeats),
        by perplexity over all.
        """
        zero, r, out = self.scores[ZERO], self.plan.reading, []
        free = prunable(zero, self.plan.gamma)
        for way, one in self.scores.items():
            rho = {
                "z_bias": stats.spearmanr(zero.bias.z_bias(r)[free], one.bias.z_bias(r)[free]).statistic,
                "z_ppl": stats.spearmanr(zero.ppl.z_nats, one.ppl.z_nats).statistic,
            }
            halves = one.bias.reliability(r, prunable(one, self.plan.gamma)).whole
            out.append({"ablation": way, "reliability": halves, **{f"{k}_as_zero": float(v) for k, v in rho.items()}})
        return out

    def sets(self) -> list[dict[str, Any]]:
        """What each set does on the test side by each way."""
        out = []
        for (ranked, removed), found in self.measured.items():
            change, costs = found.readings[self.plan.reading].gap, {cost.name: cost for cost in found.costs}
            ends, right = change.relative_interval, costs["lambada"].accuracy
            assert right is not None  # last words are right or wrong
            out.append(
                {
                    "ranked_by": ranked,
                    "removed_by": removed,
                    "heads_removed": len(found.prune_set.heads),
                    "prune_set": found.prune_set.format(),
                    "reduction_pct": -100 * change.relative,
                    "interval_pct": None if ends is None else [-100 * ends[1], -100 * ends[0]],
                    "ppl_change_pct": 100 * found.perplexity.relative,
                    "paragraphs_change_pct": 100 * costs["paragraphs"].change.relative,
                    "lambada_points": right.points,
                    "lambada_interval": list(right.interval),
                    "lambada_nats": costs["lambada"].change.change_nats,
                    "prompts": change.n,
                    "items": costs["lambada"].change.tokens,
                }
            )
        return out

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        p = self.plan
        named = {"axis": p.axis, "reading": p.reading, "gamma": p.gamma, "alpha": p.alpha}
        return {**named, "rankings": self.rankings(), "sets": self.sets()}


def run(lm: LanguageModel, plan: Plan, store: Store, progress: Report | None = None) -> Ablations:
    """Score by every way, choose, and measure each set by each way; nothing that is stored is made again.

    Parameters
    ----------
    lm : whose heads are taken out by zero.
    """
    plan.given.gates(lm.n_layers, lm.n_heads)  # says so before anything is run
    plan.given.neuron_gates(lm.n_layers, lm.n_neurons)
    ways = len(RANKED)
    steps = Steps(progress, 2 * ways + len(REMOVED) * (ways + bool(plan.given)))
    models = {way: taken_out_by(lm, way, store, steps.next()) for way in RANKED}
    text, bias = TextConfig(tokens=plan.scored_tokens), BiasConfig(plan.axis, n_prompts=plan.scored)
    scores = {
        way: score(one, text, bias, store, steps.next(f"scores by {way}: {{}}"), defaults.ESTIMATOR)
        for way, one in models.items()
    }
    sets = {GIVEN: plan.given} if plan.given else {}
    for way, one in scores.items():
        chosen = select(one.head_scores(plan.reading), "fasp", plan.gamma, plan.alpha)
        sets[way] = PruneSet.of(chosen.heads)
    measured = {}
    for removed in REMOVED:
        for ranked, heads in sets.items():
            inner = steps.next(f"the set of {ranked}, removed by {removed}: {{}}")
            config = replace(plan.costs, text=plan.measured.text)
            measured[ranked, removed] = evaluate(models[removed], heads, plan.measured, store, inner, costs=config)
    return Ablations(plan, scores, measured)


def markdown(found: Ablations) -> str:
    """Both tables."""
    p = found.plan
    rows = []
    for one in found.sets():
        ends = "" if one["interval_pct"] is None else " [{:.0f}, {:.0f}]".format(*one["interval_pct"])
        low, high = one["lambada_interval"]
        rows.append(
            f"{one['ranked_by']} | {one['removed_by']} | {one['heads_removed']} | {one['reduction_pct']:.0f}%{ends} | "
            f"{one['ppl_change_pct']:+.1f}% | {one['paragraphs_change_pct']:+.1f}% | {one['lambada_points']:+.1f} "
            f"[{low:+.1f}, {high:+.1f}]"
        )
    ranked = [
        f"{one['ablation']} | {one['reliability']:.2f} | {one['z_bias_as_zero']:.2f} | {one['z_ppl_as_zero']:.2f}"
        for one in found.rankings()
    ]
    return paragraphs(
        [
            f"Heads taken out by zero, by their mean output, or by one drawn output, {p.axis}, {p.reading}. Sets: "
            f"FASP, gamma {p.gamma:g}, alpha {p.alpha:g}, of scores on {p.scored} validation prompts by each way of "
            f"taking a head out; measured on {p.prompts} test prompts, {p.tokens:,} tokens of each text, {p.items} "
            "passages.",
            table("chosen by | removed by | heads | gap less | sentences | paragraphs | LAMBADA, points", rows),
            "How far the ranking by bias of heads that may be pruned repeats on other prompts, and Spearman's "
            "correlation with scores by zero, z_bias over those heads and z_ppl over all:",
            table("ablation | reliability | z_bias | z_ppl", ranked),
        ]
    )
