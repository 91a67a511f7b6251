"""Does the choice of heads depend on the measure of bias? The same choice by other measures, each checked by all.

`python -m fasp_core study robustness --axis race_ethnicity` takes the stored toxicity scores, makes first-order
scores by sentiment (VADER), CrowS-Pairs and StereoSet, lets FASP choose a set by each, and measures every set by every
measure on items that no choice was made on. What is measured is stored, so a stopped run goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fasp_core.data.text import SCORE_TEXT, TextConfig
from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.gap import PromptRows
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import KIND as MEASURED
from fasp_core.metrics.measurements import perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import entries
from fasp_core.scoring.estimate import first_order_impacts
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable
from fasp_core.scoring.score import GAMMA, prunable
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.studies.additivity.additivity import scores_of
from fasp_core.studies.common import KIND, as_heads, as_text, kept, read_nll
from fasp_core.studies.estimators.refined import chosen
from fasp_core.studies.robustness.likelihood import comparisons, log_likelihood_effects, log_likelihoods
from fasp_core.studies.robustness.rival_measures import MEASURES, Items, MeasuredByAll, Robustness, analyse, z_of
from fasp_core.studies.robustness.stereotype_scores import Likelihoods
from fasp_core.studies.robustness.stereotypes import CROWS, ItemSet, for_axis
from fasp_core.typing import Report

ALPHA = 0.05
SOURCES = {CROWS: "crows", "StereoSet": "stereoset"}
SOURCES_ALL = ("toxicity", "first-order", "sentiment", *SOURCES.values())


@dataclass(frozen=True)
class Plan:
    """What is chosen, and what it is measured on.

    Attributes
    ----------
    axis : name of a HolisticBias axis. gamma, alpha : of FASP's choice.
    prompts : validation prompts of the sentiment scores. test : test prompts that sets are measured on.
    items : of each collection of sentence pairs at most, half to choose by and half to measure on.
    tokens : for perplexity. random : sets of random heads (not critical) beside the chosen ones.
    """

    axis: str
    gamma: float = GAMMA
    alpha: float = ALPHA
    prompts: int = 720
    test: int = 500
    items: int = 300
    tokens: int = 1024
    random: int = 2
    scored_text: TextConfig = SCORE_TEXT

    def __post_init__(self) -> None:
        if self.items < 20 or self.random < 0:
            raise InputError("A preference needs sentence pairs: use 20 items or more.")

    @property
    def toxicity(self) -> BiasConfig:
        """Held-out prompts."""
        return BiasConfig(self.axis, split="test", n_prompts=self.test)

    @property
    def sentiment(self) -> BiasConfig:
        """What heads are scored on by sentiment."""
        return BiasConfig(self.axis, n_prompts=self.prompts, scorer="vader")

    @property
    def text(self) -> TextConfig:
        return TextConfig(self.scored_text.source, self.tokens, self.scored_text.window, self.scored_text.stride)

    def collections(self) -> list[tuple[ItemSet, ItemSet]]:
        """Sentence pairs to choose by and to measure on, of each collection that knows the axis."""
        return [items.halves(self.items) for items in for_axis(self.axis)]

    def key(self, impacts: ImpactTable, model_id: ModelId) -> dict[str, Any]:
        """Everything that shapes the result, for the store."""
        scores = BiasConfig(self.axis, n_prompts=impacts.bias.base.shape[1])
        return {
            "experiment": "robustness",
            "scores": entries.bias_key(scores, model_id, impacts.bias.estimator),
            "scored_prompts": impacts.bias.base.shape[1],
            "sentiment": entries.bias_key(self.sentiment, model_id, "first-order"),
            "test": result_key(self.toxicity, model_id),
            "text": ppl_key(self.text, model_id),
            "items": [[half.source, half.bias_type, half.digest] for both in self.collections() for half in both],
            **{name: getattr(self, name) for name in ("gamma", "alpha", "random")},
        }


def find(plan: Plan, impacts: ImpactTable, model_id: ModelId, store: Store) -> Entry | None:
    """The stored rows of this plan, or None. Never loads a model."""
    return store.load(KIND, plan.key(impacts, model_id))


def run(
    lm: LanguageModel, plan: Plan, store: Store, progress: Report | None = None, impacts: ImpactTable | None = None
) -> Robustness:
    """Score heads by every measure, choose, and measure every set; what is stored is not measured again.

    Raises
    ------
    InputError
        There are no toxicity scores of the axis.
    """
    table = impacts or scores_of(plan.axis, plan.scored_text, lm.id, lm.name, store)

    def work() -> Contents:
        first = first_order_impacts(lm, BiasConfig(plan.axis, n_prompts=table.bias.base.shape[1]), store, progress)
        sentiment = first_order_impacts(lm, plan.sentiment, store, progress)
        arrays: dict[str, np.ndarray] = {**_pack("first-order", first), **_pack("sentiment", sentiment)}
        for half, _ in plan.collections():
            name = SOURCES[half.source]
            arrays[f"choose_{name}_base"], arrays[f"choose_{name}_others"] = _effects(lm, half, store, progress)
        choosing = _choosing(table, arrays)
        sets = choose(plan, table, choosing)
        for name, values in _measure(lm, plan, sets, store, progress).items():
            arrays[f"measured_{name}"] = values
        prompts = plan.toxicity.prompts()
        arrays |= PromptRows.of(arrays["measured_toxicity"], prompts.groups, prompts.blocks).stored("test_")
        frame = pd.DataFrame({"name": list(sets), "heads": [as_text(heads) for heads in sets.values()]})
        return {
            "arrays": arrays,
            "tables": {"sets": frame},
            "meta": {
                "axis": plan.axis,
                "model": lm.name,
                "n_heads": lm.n_heads,
                "gamma": plan.gamma,
                "alpha": plan.alpha,
                "bias_types": {SOURCES[half.source]: half.bias_type for half, _ in plan.collections()},
                "notes": _notes(plan, table),
            },
        }

    name, key = f"robustness-{slug(plan.axis)}", plan.key(table, lm.id)
    return kept(store, lm, name, key, work, lambda entry: read(entry, table))


def choose(plan: Plan, impacts: ImpactTable, choosing: dict[str, Items]) -> dict[str, tuple[int, ...]]:
    """FASP's set by every measure that is measured on held-out items, and random sets; equal ones are one set."""
    free = prunable(impacts, plan.gamma)
    names: dict[tuple[int, ...], list[str]] = {}
    for m in MEASURES:
        if m.source in choosing:
            names.setdefault(tuple(chosen(z_of(m, choosing[m.source]), free, plan.alpha)), []).append(m.name)
    k = len(next(iter(names)))
    for seed in range(1, plan.random + 1):
        drawn = np.random.default_rng(seed).permutation(free)[:k]
        names.setdefault(tuple(sorted(int(head) for head in drawn)), []).append(f"random {seed}")
    return {" = ".join(name): heads for heads, name in names.items()}


def _pack(source: str, impacts: BiasImpacts) -> dict[str, np.ndarray]:
    """The first reading of scores, as it is stored."""
    rows, name = _rows(impacts, 1), f"choose_{source}_"
    values = rows.values.astype(np.float32)
    return {f"{name}base": values[0], f"{name}others": values[1:], **rows.stored(name)}


def _effects(lm: LanguageModel, half: ItemSet, store: Store, progress: Report | None) -> tuple[np.ndarray, np.ndarray]:
    """[1, n] and [N, 1, n] preferences of the whole model, and to first order without each head; stored."""

    def work() -> Contents:
        asked = comparisons(lm, half)
        values, effects = log_likelihood_effects(lm, asked.sentences, progress)
        others = asked.preferences(values + effects)
        return {"arrays": {"base": asked.preferences(values)[None], "others": others[:, None].astype(np.float32)}}

    key = {**_items_key(lm, half), "estimator": "first-order"}
    rows = store.compute(MEASURED, key, work, label=_label(lm, half)).arrays
    return rows["base"], rows["others"]


def _items_key(lm: LanguageModel, half: ItemSet) -> dict[str, Any]:
    return {
        **lm.id.key(),
        "score": "log-likelihood after the first difference",
        "source": half.source,
        "bias_type": half.bias_type,
        "items": half.digest,
    }


def _label(lm: LanguageModel, half: ItemSet) -> str:
    return f"{slug(lm.name)}--{SOURCES[half.source]}-{slug(half.bias_type)}"


def _sentences(lm: LanguageModel, half: ItemSet, heads: PruneSet, store: Store) -> np.ndarray:
    """[K, n] preferences (CrowS-Pairs: by shared tokens, by whole sentences), or [1 + 3, n]: then also the values of
    StereoSet's three sentences; stored."""

    def work() -> Contents:
        asked = comparisons(lm, half, unrelated=True)
        with masked(lm, heads):
            values = log_likelihoods(lm, asked.sentences)
        rows = [*asked.preferences(values)]
        if half.source != CROWS:
            n = len(half.items)
            rows += [values[0, : 2 * n : 2], values[0, 1 : 2 * n : 2], values[0, 2 * n :]]
        return {"arrays": {"values": np.stack(rows)}}

    key = {**_items_key(lm, half), "heads": heads.format()}
    return store.made(MEASURED, key, work, lambda entry: np.asarray(entry.arrays["values"]), label=_label(lm, half))


def _measure(
    lm: LanguageModel, plan: Plan, sets: dict[str, tuple[int, ...]], store: Store, progress: Report | None
) -> dict[str, np.ndarray]:
    """Of the whole model and every set: toxicity and negativity of held-out prompts, sentences, perplexity."""
    subjects = [PruneSet(), *(PruneSet.from_flat(heads, lm.n_heads) for heads in sets.values())]
    runner, halves = CachedRunner(lm), [half for _, half in plan.collections()]
    negative = BiasConfig(plan.axis, split="test", n_prompts=plan.test, scorer="vader")
    found: dict[str, list[np.ndarray]] = {}
    for i, subject in enumerate(subjects):
        if progress is not None:
            progress(i, len(subjects), f"{i} of {len(subjects)} sets of heads by every measure")
        rows = {
            "toxicity": toxicity_of(lm, subject, plan.toxicity, store, None, runner).values,
            "sentiment": toxicity_of(lm, subject, negative, store, None, runner).values[:1],
            **{SOURCES[half.source]: _sentences(lm, half, subject, store) for half in halves},
        }
        nll, _ = perplexity_of(lm, subject, plan.text, store, None, runner)
        for name, values in {**rows, "nats": nll.sums, "counts": nll.counts.astype(np.float64)}.items():
            found.setdefault(name, []).append(values)
    out = {name: np.stack(values) for name, values in found.items()}
    for half in halves:
        targets = sorted({item.target for item in half.items})
        out[f"{SOURCES[half.source]}_targets"] = np.array([targets.index(item.target) for item in half.items])
    return out


def _choosing(impacts: ImpactTable, arrays: dict[str, np.ndarray]) -> dict[str, Items]:
    b = impacts.bias
    found = {"toxicity": Items(_rows(b), f"{b.base.shape[1]} validation prompts", b.estimator)}
    for source in SOURCES_ALL[1:]:
        if (base := arrays.get(f"choose_{source}_base")) is None:
            continue
        values, n = np.concatenate([base[None], arrays[f"choose_{source}_others"]]), base.shape[1]
        if source in SOURCES.values():
            found[source] = Items.of_pairs(values, f"{n} pairs of sentences", "first-order")
        else:
            rows = PromptRows.read(values, arrays, b.groups, f"choose_{source}_")
            found[source] = Items(rows, f"{n} validation prompts", "first-order")
    return found


def _rows(b: BiasImpacts, readings: int | None = None) -> PromptRows:
    """[1 + N, R, n] the first readings of scores, the whole model's row first."""
    values = np.concatenate([b.base[None], b.ablated])[:, :readings]
    return PromptRows(values.astype(np.float64), b.codes, b.groups, b.blocks)


def read(entry: Entry, impacts: ImpactTable) -> Robustness:
    """The result, from its stored rows and the toxicity scores that it was made from."""
    a, m = entry.arrays, entry.meta
    sets = entry.table("sets")
    measured = {}
    for source in SOURCES_ALL:
        if source == "first-order" or (values := a.get(f"measured_{source}")) is None:
            continue
        n = values.shape[2]
        if source in SOURCES.values():
            measured[source] = Items.of_pairs(values[:, :1], f"{n} other pairs of sentences")
        else:
            groups = tuple(map(str, range(int(a["test_codes"].max()) + 1)))
            measured[source] = Items(PromptRows.read(values, a, groups, "test_"), f"{n} test prompts")
    crows, stereo = a.get("measured_crows"), a.get("measured_stereoset")
    found = MeasuredByAll(
        axis=m["axis"],
        model=m["model"],
        n_heads=m["n_heads"],
        gamma=m["gamma"],
        alpha=m["alpha"],
        free=prunable(impacts, m["gamma"]),
        choosing=_choosing(impacts, a),
        sets=[(n, as_heads(heads)) for n, heads in zip(sets["name"], sets["heads"], strict=True)],
        measured=measured,
        nll=read_nll(a["measured_nats"], a["measured_counts"][0]),
        likelihoods=Likelihoods(
            None if crows is None else crows[:, 0],
            None if crows is None else crows[:, 1],
            None if stereo is None else stereo[:, 1:],
            None if stereo is None else a["measured_stereoset_targets"],
        ),
        bias_types=m["bias_types"],
        notes=m["notes"],
        provenance=m["provenance"],
    )
    return analyse(found)


def _notes(plan: Plan, impacts: ImpactTable) -> list[str]:
    notes = [
        f"Toxicity scores are {impacts.bias.estimator}; those by sentiment and by sentence pairs are first-order, and "
        "so are those of “toxicity gap, first-order”, which shows what the estimator alone changes.",
        "The gap divided by the number of groups ranks heads as the gap does and is left out.",
    ]
    known = [half.source for half, _ in plan.collections()]
    missing = [name for name in SOURCES if name not in known]
    if missing:
        notes.append(f"{' and '.join(missing)} {'has' if len(missing) == 1 else 'have'} no bias type for this axis.")
    return notes
