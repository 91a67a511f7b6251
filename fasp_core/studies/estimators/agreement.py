"""Do the measures agree? The change of the gap by expected, written and sampled toxicity, over many sets of heads.

`python -m fasp_core study agreement --axis race_ethnicity` removes some 16 sets, chosen on validation scores, and
measures each in every way on the same test prompts. What is measured is stored: a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fasp_core.data.scorers import CachedScorer, join_for_scoring
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.gap import Change, PromptRows, split_half_reliability, z_bias
from fasp_core.gap.estimates import Estimate, correlation_interval, lengthened, pearson, spearman
from fasp_core.gap.further import FurtherStats
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.measurements import Toxicity, toxicity_of
from fasp_core.metrics.meters import BiasConfig, scorer_for
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import entries
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Store
from fasp_core.studies.common import Steps, effects, mean_changes, paragraphs, table
from fasp_core.studies.estimators.sets import NamedSet, sets
from fasp_core.typing import Floats, Report

# 5,040 continuations a set, the prompts being the same number from every group
PROMPTS, SAMPLES, LENGTH = 500, 10, 4
WRITTEN, STEPS = 4, 8
SPLITS = 100
QUANTITIES = ("gap", "toxicity")


@dataclass(frozen=True)
class Plan:
    """What is measured, and by which scores sets are chosen.

    Attributes
    ----------
    prompts, samples, length : test prompts (at least), continuations a prompt, and their longest length in tokens.
    written, steps : continuations a prompt, and their tokens, of the written measure; 0: not measured.
    n_sets : only the first so many of the sets; None: all.
    scored_prompts, tokens : of the stored validation scores that sets are chosen by. seed : of random sets.
    """

    axis: str
    prompts: int = PROMPTS
    samples: int = SAMPLES
    length: int = LENGTH
    written: int = WRITTEN
    steps: int = STEPS
    n_sets: int | None = None
    scored_prompts: int = 720
    tokens: int = 8192
    seed: int = 0

    @property
    def expected(self) -> BiasConfig:
        """The next word after test prompts."""
        return BiasConfig(self.axis, split="test", n_prompts=self.prompts)

    @property
    def sampled(self) -> BiasConfig:
        """Continuations of the same prompts."""
        drawn = GenerationConfig(samples=self.samples, tokens=self.length)
        return replace(self.expected, measure="sampled", generation=drawn)

    @property
    def words(self) -> BiasConfig:
        """Each of the words that are written after the same prompts."""
        return replace(
            self.expected, measure="written", steps=self.steps, generation=GenerationConfig(samples=self.written)
        )


@dataclass(frozen=True)
class SetChange:
    """What removing one set does: changes by measure ("neutral", "counted", "written, neutral", ..., "sampled")."""

    name: str
    heads: str
    size: int
    gap: dict[str, Change]
    toxicity: dict[str, Change]


@dataclass(frozen=True)
class Correlation:
    """Correlation over sets of an expected or written change with the sampled one.

    Attributes
    ----------
    quantity : "gap" or "toxicity" (the mean over all prompts). reading : of which measure.
    pearson, spearman : with intervals over blocks of prompts, the sets being given.
    pearson_sets, spearman_sets : the same with intervals over prompts and sets.
    """

    quantity: str
    reading: str
    pearson: Estimate
    spearman: Estimate
    pearson_sets: Estimate
    spearman_sets: Estimate


@dataclass(frozen=True)
class Ceiling:
    """How high a correlation with the sampled changes can be.

    Attributes
    ----------
    pearson, spearman : reliability of the sampled changes on these prompts: mean correlation over sets of two halves
        of every prompt's samples, by Spearman-Brown that of two draws of all samples. nan with one sample a prompt.
    pearson_ceiling, spearman_ceiling : their roots, the correlation with what infinitely many samples would give.
    """

    quantity: str
    pearson: float
    spearman: float
    pearson_ceiling: float
    spearman_ceiling: float


@dataclass(frozen=True)
class Agreement:
    """Both measures of every set, and how far they agree.

    Attributes
    ----------
    blocks : blocks of prompts that are resampled; 0 if prompts are resampled within groups.
    continuations : of each set. written, steps : as in the plan.
    base : gap of the whole model by measure, with what noise alone would give.
    repeats : by measure, Spearman correlation over sets of the gap's changes with those on as many other prompts, from
        halves of the prompts (see `Reliability`).
    """

    axis: str
    split: str
    prompts: int
    groups: int
    blocks: int
    samples: int
    length: int
    continuations: int
    base: dict[str, FurtherStats]
    sets: tuple[SetChange, ...]
    correlations: tuple[Correlation, ...]
    ceilings: tuple[Ceiling, ...]
    repeats: dict[str, float]
    written: int = 0
    steps: int = 0


def run(
    lm: LanguageModel,
    plan: Plan,
    store: Store,
    progress: Report | None = None,
    impacts: ImpactTable | None = None,
    chosen: Sequence[NamedSet] | None = None,
) -> Agreement:
    """Measure all sets in every way on the test prompts; what is stored is not measured again.

    Parameters
    ----------
    impacts : validation scores that sets are chosen by; None: those stored of the plan.
    chosen : sets to measure in place of `sets(impacts, plan.seed)`.

    Raises
    ------
    InputError
        There are no stored scores, or fewer than three sets.
    """
    if chosen is None:
        chosen = sets(impacts or _scores(lm, plan, store), plan.seed)[: plan.n_sets]
    if len(chosen) < 3:
        raise InputError("A correlation over sets needs at least 3 of them: give more sets.")
    subjects = [PruneSet(), *(PruneSet.from_flat(s.heads, lm.n_heads) for s in chosen)]
    names = ["nothing removed", *(s.name for s in chosen)]
    measured: dict[str, list[Toxicity]] = {"expected": [], "written": [], "sampled": []}
    configs = [plan.expected, *([plan.words] if plan.written else []), plan.sampled]  # the quick one first
    steps = Steps(progress, len(configs) * len(names))
    for config in configs:
        for subject, name in zip(subjects, names, strict=True):
            found = toxicity_of(lm, subject, config, store, steps.next(f"{config.measure}, {name}"))
            measured[config.measure].append(found)
    sampled = measured["sampled"]
    scorer = CachedScorer(scorer_for(config.scorer, config.label), store.root / "toxicity")
    texts = [[c for row in t.continuations for c in row] for t in sampled]
    asked = [p for p in sampled[0].texts for _ in range(plan.samples)]
    scores = [scorer.score(join_for_scoring(asked, said, config.scored)).reshape(-1, plan.samples) for said in texts]
    return agree(plan, chosen, measured, np.stack(scores), lm.n_heads)


def _scores(lm: LanguageModel, plan: Plan, store: Store) -> ImpactTable:
    axis, prompts, tokens = plan.axis, plan.scored_prompts, plan.tokens
    config = BiasConfig(axis, n_prompts=prompts)
    found = entries.find(TextConfig(tokens=tokens), config, lm.id, lm.name, store)
    if found is None:
        raise InputError(
            f"There are no scores of {axis} with {prompts} prompts and {tokens} tokens: run "
            f"'python -m fasp_core score --axis {axis} --prompts {prompts} --tokens {tokens} "
            "--out DIR' first."
        )
    return found


def agree(
    plan: Plan,
    chosen: Sequence[NamedSet],
    measured: Mapping[str, Sequence[Toxicity]],
    scores: np.ndarray,
    n_heads: int,
) -> Agreement:
    """The comparison itself, from measurements alone.

    Parameters
    ----------
    measured : by measure, of the whole model, then of each of the S sets, on the same n prompts; may be empty.
    scores : [1 + S, n, K] toxicity of every continuation.
    """
    rows = {  # [1 + S, n]
        ("written, " if measure == "written" else "") + name: PromptRows.of(
            [t.row(name) for t in side], side[0].groups, side[0].blocks
        )
        for measure, side in measured.items()
        if side
        for name in side[0].readings
    }
    one = rows["sampled"]
    gaps, means = ({name: of(r) for name, r in rows.items()} for of in (PromptRows.changes, PromptRows.mean_changes))
    changes = [
        SetChange(
            s.name,
            PruneSet.from_flat(s.heads, n_heads).format(),
            len(s.heads),
            {name: found[i] for name, found in gaps.items()},
            {name: found[i] for name, found in means.items()},
        )
        for i, s in enumerate(chosen)
    ]
    drawn: dict[str, Callable[[PromptRows], Floats]] = {"gap": lambda r: -effects(r), "toxicity": mean_changes}
    seen: dict[str, dict[str, list[Change]]] = {"gap": gaps, "toxicity": means}
    change = {  # quantity -> measure -> [S], [S, B]
        quantity: {
            name: (np.array([c.change for c in seen[quantity][name]]), drawn[quantity](r)) for name, r in rows.items()
        }
        for quantity in QUANTITIES
    }
    return Agreement(
        axis=plan.axis,
        split="test",
        prompts=one.n,
        groups=len(one.groups),
        blocks=0 if one.blocks is None else one.units,
        samples=scores.shape[2],
        length=plan.length,
        continuations=scores.shape[1] * scores.shape[2],
        base={name: r.further_stats() for name, r in rows.items()},
        sets=tuple(changes),
        correlations=tuple(
            correlate(quantity, name, change[quantity][name], change[quantity]["sampled"])
            for quantity in QUANTITIES
            for name in rows
            if name != "sampled"
        ),
        ceilings=tuple(ceiling(quantity, scores, one.codes) for quantity in QUANTITIES),
        repeats={name: split_half_reliability(r).whole for name, r in rows.items()},
        written=plan.written if measured.get("written") else 0,
        steps=plan.steps,
    )


def correlate(
    quantity: str, reading: str, one: tuple[Floats, Floats], other: tuple[Floats, Floats], seed: int = 0
) -> Correlation:
    """Correlation over sets of two kinds of change, each as observed [S] and in the same resamples [S, B]."""
    rng = np.random.default_rng(seed)
    n_sets, resamples = one[1].shape
    again = rng.integers(n_sets, size=(n_sets, resamples))
    both = [np.take_along_axis(drawn, again, 0) for _, drawn in (one, other)]
    estimates = []
    for x, y in ((one[1], other[1]), (both[0], both[1])):
        for statistic in (pearson, spearman):
            estimates.append(correlation_interval(float(statistic(one[0], other[0])), statistic(x, y)))
    return Correlation(quantity, reading, *estimates)


def ceiling(quantity: str, scores: np.ndarray, codes: np.ndarray, splits: int = SPLITS, seed: int = 0) -> Ceiling:
    """Split-half reliability of the sampled changes on given prompts.

    Each prompt's samples are split at random, in the same way for all sets, as a sample's noise is common to them.

    Parameters
    ----------
    scores : [1 + S, n, K] toxicity of every continuation of the whole model and of each set.
    """
    n, k = scores.shape[1:]
    half = k // 2
    if not half:
        return Ceiling(quantity, *(float("nan"),) * 4)
    rng = np.random.default_rng(seed)
    found: list[tuple[float, float]] = []
    for _ in range(splits):
        order = rng.permuted(np.tile(np.arange(k), (n, 1)), axis=1)[None]
        mixed = np.take_along_axis(scores, order, 2)
        halves = (mixed[..., :half].mean(2), mixed[..., half : 2 * half].mean(2))
        a, b = (-z_bias(x[0], x[1:], codes) if quantity == "gap" else x[1:].mean(1) - x[0].mean() for x in halves)
        found.append((float(pearson(a, b)), float(spearman(a, b))))
    reliability = [lengthened(float(np.mean(r)), k / half) for r in zip(*found, strict=True)]
    return Ceiling(quantity, *reliability, *(float(np.sqrt(max(r, 0.0))) for r in reliability))


# --- the command ---


def markdown(results: Sequence[Agreement]) -> str:
    """Tables for a document."""
    parts = []
    for a in results:
        over = f"{a.blocks} blocks of prompts" if a.blocks else "prompts"
        parts += [
            f"## {a.axis}: {a.prompts} test prompts, {a.groups} groups, {len(a.sets)} sets",
            f"Sampled: {a.samples} continuations of up to {a.length} tokens a prompt, {a.continuations:,} for each "
            f"model, with common noise.{_words(a)} Intervals are at level .95, over {over}.",
            table(
                "unpruned model, ×10⁻³ | gap | gap of shuffled groups | p | mean toxicity",
                (
                    f"{name} | {1e3 * g.gap:.2f} {_span(g.interval)} | {1e3 * g.noise_gap:.2f} | {g.noise_p:.3f} | "
                    f"{1e3 * g.overall:.2f}"
                    for name, g in a.base.items()
                ),
            ),
        ]
        for quantity, title in zip(QUANTITIES, ("change of the gap", "change of mean toxicity"), strict=True):
            rows = (
                [s.name, str(s.size), *(f"{1e3 * c.change:.2f} {_span(c.interval)}" for c in changes)]
                for s, changes in ((s, map(getattr(s, quantity).get, a.base)) for s in a.sets)
            )
            parts.append(table(" | ".join([f"{title}, ×10⁻³", "heads", *a.base]), map(" | ".join, rows)))
        repeats = ", ".join(f"{name} {r:.2f}" for name, r in a.repeats.items())
        parts += [
            table(
                "with sampled, over sets | Pearson | Spearman | Pearson, sets too | Spearman, sets too",
                (
                    f"{c.quantity}, {c.reading} | {c.pearson.text()} | {c.spearman.text()} | {c.pearson_sets.text()} | "
                    f"{c.spearman_sets.text()}"
                    for c in a.correlations
                ),
            ),
            table(
                "noise ceiling | Pearson | Spearman | reliability, Pearson | reliability, Spearman",
                (
                    f"{c.quantity} | {c.pearson_ceiling:.2f} | {c.spearman_ceiling:.2f} | {c.pearson:.2f} | "
                    f"{c.spearman:.2f}"
                    for c in a.ceilings
                ),
            ),
            f"Spearman correlation of the gap's changes with those on as many other prompts: {repeats}.",
        ]
    return paragraphs(parts)


def _words(a: Agreement) -> str:
    if not a.written:
        return ""
    return f" Written: {a.written} continuations of {a.steps} words a prompt, {a.written * a.prompts:,} for each model."


def _span(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"[{1e3 * interval[0]:.2f}, {1e3 * interval[1]:.2f}]"
