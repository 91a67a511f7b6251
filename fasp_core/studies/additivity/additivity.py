"""Do the effects of single heads add up? Predicted against measured changes of growing sets and of pairs of heads.

`python -m fasp_core study additivity --axis race_ethnicity` takes the stored scores of single heads and removes
whole sets on a part of the same validation prompts and text. What is measured is stored, so a stopped run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from fasp_core.data.text import SCORE_TEXT, TextConfig
from fasp_core.errors import InputError
from fasp_core.gap import PromptRows, gap
from fasp_core.gap.estimates import Estimate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import entries
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.score import GAMMA, prunable
from fasp_core.scoring.taught import Change
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.studies.additivity.interactions import NATS, PAIR_KINDS, Additivity, MeasuredSets, Quantity, analyse
from fasp_core.studies.common import KIND, as_heads, as_text, kept, paragraphs, table
from fasp_core.studies.estimators.refined import SAME
from fasp_core.studies.estimators.sets import NamedSet
from fasp_core.typing import Report

SHOWN = 12  # rows of a table of pairs
SAME_NATS = 1e-3  # relative: rounding of another order of summation


@dataclass(frozen=True)
class Plan:
    """What is removed, and what it is measured on.

    Attributes
    ----------
    axis : as in `BiasConfig`.
    prompts, tokens : how many of the scores' validation prompts and of their text are used.
    scored_text : of the perplexity scores.
    sizes : of the growing sets. nested : how many random sequences of sets grow beside FASP's.
    pairs : random pairs. strong : heads, of the largest single effects, of which all pairs are measured.
    gamma : share of critical heads, which are in no set.
    """

    axis: str
    prompts: int = 210
    tokens: int = 1024
    scored_text: TextConfig = SCORE_TEXT
    sizes: tuple[int, ...] = (1, 2, 4, 8, 13, 20, 27, 40)
    nested: int = 3
    pairs: int = 24
    strong: int = 6
    gamma: float = GAMMA
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.sizes, default=0) < 1 or self.pairs < 0 or self.strong < 0 or self.nested < 0:
            raise InputError("Sets have at least 1 head and pairs come in whole numbers: give sizes of 1 or more.")
        if self.tokens > self.scored_text.tokens:
            raise InputError(
                f"Perplexity scores of {self.scored_text.tokens} tokens do not hold {self.tokens}: use at most as many."
            )

    @property
    def bias(self) -> BiasConfig:
        """What is measured: the first of the scores' prompts."""
        return BiasConfig(self.axis, n_prompts=self.prompts)

    def scores(self, n: int) -> BiasConfig:
        """What scores of n prompts were made on."""
        config = BiasConfig(self.axis, n_prompts=n)
        groups = len(config.prompts().counts())
        for more in range(n, 8 * n, groups):  # groups that are short of prompts gave less than their share
            if len((config := BiasConfig(self.axis, n_prompts=more)).prompts()) >= n:
                break
        return config

    @property
    def text(self) -> TextConfig:
        """What perplexity is measured on: the beginning of the scores' text."""
        return replace(self.scored_text, tokens=self.tokens)

    def key(self, impacts: ImpactTable, model_id: ModelId) -> dict[str, Any]:
        """Everything that shapes the result, for the store."""
        return {
            "experiment": "additivity",
            "bias": entries.bias_key(self.bias, model_id, impacts.bias.estimator),
            "scored_prompts": impacts.bias.base.shape[1],
            "text": ppl_key(self.text, model_id),
            "scored_text": ppl_key(self.scored_text, model_id),
            "sizes": list(self.sizes),
            **{name: getattr(self, name) for name in ("nested", "pairs", "strong", "gamma", "seed")},
        }


def choose(impacts: ImpactTable, plan: Plan) -> list[NamedSet]:
    """The sets to remove: growing ones by FASP and at random, random pairs, and all pairs of the strongest heads.

    All are of heads that are not critical and were really removed for their scores. Strong are, by turns, the heads of
    the largest z_bias (first reading) and of the largest z_ppl, whatever the sign.

    Raises
    ------
    InputError
        Fewer than two such heads.
    """
    sure = impacts.ppl.exact if impacts.bias.exact is None else impacts.bias.exact & impacts.ppl.exact
    free = np.array([head for head in prunable(impacts, plan.gamma) if sure[head]], dtype=int)
    if len(free) < 2:
        raise InputError(
            f"Only {len(free)} heads are not critical and have exact scores: lower gamma, or score by removing heads."
        )
    rng = np.random.default_rng(plan.seed)
    z = impacts.bias.z_bias(impacts.bias.readings[0])
    orders = {"FASP": free[np.argsort(-z[free], kind="stable")]}
    orders |= {f"random {i}": rng.permutation(free) for i in range(1, plan.nested + 1)}
    sizes = sorted({min(size, len(free)) for size in plan.sizes})
    found = [NamedSet(kind, _ids(order[:size])) for kind, order in orders.items() for size in sizes]
    by_bias, by_ppl = (free[np.argsort(-np.abs(s[free]), kind="stable")] for s in (z, impacts.ppl.z_nats))
    strong = dict.fromkeys(int(h) for both in zip(by_bias, by_ppl, strict=True) for h in both)
    strong_pairs = [_ids(pair) for pair in combinations(list(strong)[: plan.strong], 2)]
    everything = [_ids(pair) for pair in combinations(free, 2)]
    rest = sorted(set(everything) - set(strong_pairs))
    drawn = rng.permutation(len(rest))[: plan.pairs]
    pairs = [NamedSet(PAIR_KINDS[0], rest[i]) for i in drawn] + [NamedSet(PAIR_KINDS[1], p) for p in strong_pairs]
    return found + sorted(pairs, key=lambda s: s.heads)  # neighbours share their lowest head, and its pass


def _ids(heads: Any) -> tuple[int, ...]:
    return tuple(sorted(int(h) for h in heads))


def find(plan: Plan, impacts: ImpactTable, model_id: ModelId, store: Store) -> Entry | None:
    """The stored rows of this plan, or None. Never loads a model."""
    return store.load(KIND, plan.key(impacts, model_id))


def run(
    lm: LanguageModel, plan: Plan, store: Store, progress: Report | None = None, impacts: ImpactTable | None = None
) -> Additivity:
    """Remove every set; what is stored is not measured again.

    Parameters
    ----------
    impacts : scores of single heads; None: the stored ones of the plan.

    Raises
    ------
    InputError
        There are no such scores, or they are not of this model's prompts and text.
    """
    table = impacts or scores_of(plan.axis, plan.scored_text, lm.id, lm.name, store)

    def work() -> Contents:
        chosen, runner = choose(table, plan), CachedRunner(lm)
        config, text = plan.bias, plan.text
        subjects = [(), *(s.heads for s in chosen)]
        toxicity, nats, counts = [], [], np.empty(0)
        for i, heads in enumerate(subjects):
            if progress is not None:
                progress(i, len(subjects), f"{i} of {len(subjects)} sets of heads")
            subject = PruneSet.from_flat(heads, lm.n_heads)
            toxicity.append(toxicity_of(lm, subject, config, store, None, runner).values)
            nll, _ = perplexity_of(lm, subject, text, store, None, runner)
            nats.append(nll.sums)
            counts = nll.counts
        used = sorted({head for s in chosen for head in s.heads})
        columns = _columns(table, plan)
        blocks = _same_text(table, nats[0], counts)
        base, single = table.bias.base[:, columns], table.bias.ablated[used][:, :, columns]
        if not np.allclose(base, toxicity[0], rtol=0, atol=SAME):
            raise InputError("The scores are not of this model and these prompts: score the axis again.")
        rows = PromptRows.of(toxicity[0], config.prompts().groups, config.prompts().blocks)
        arrays = {
            "heads": np.array(used, dtype=np.int32),
            "base": toxicity[0],
            "single": single.astype(np.float32),
            "toxicity": np.stack(toxicity[1:]).astype(np.float32),
            "counts": counts.astype(np.int32),
            "base_nats": nats[0],
            "single_nats": table.ppl.sums[used][:, :blocks],
            "nats": np.stack(nats[1:]),
            **rows.stored(""),
        }
        sets = pd.DataFrame({"kind": [s.name for s in chosen], "heads": [as_text(s.heads) for s in chosen]})
        return {
            "arrays": arrays,
            "tables": {"sets": sets},
            "meta": {
                "axis": _name(plan.axis),
                "model": lm.name,
                "n_heads": lm.n_heads,
                "groups": rows.groups,
                "readings": config.readings,
                "notes": _notes(table, plan),
            },
        }

    return kept(store, lm, f"additivity-{slug(_name(plan.axis))}", plan.key(table, lm.id), work, read)


def measured_changes(entry: Entry, reading: str) -> dict[tuple[int, ...], Change]:
    """What the growing sets did to mean NLL and to the gap, without resampling; none of a reading that is not there."""
    a, sets = entry.arrays, entry.columns("sets")
    if reading not in entry.meta["readings"]:
        return {}
    r, codes = entry.meta["readings"].index(reading), a["codes"].astype(np.int64)
    base = float(gap(a["base"][r], codes))
    nats = (a["nats"] - a["base_nats"]).sum(1) / a["counts"].sum()
    changes = gap(a["toxicity"][:, r], codes) / base - 1 if base else np.full(len(nats), np.nan)
    rows = zip(sets["kind"], sets["heads"], nats, changes, strict=True)
    return {as_heads(heads): (float(n), float(c)) for kind, heads, n, c in rows if kind not in PAIR_KINDS}


def read(entry: Entry) -> Additivity:
    """The result, from its stored rows."""
    a, m = entry.arrays, entry.meta
    sets = entry.table("sets")
    numbers = {
        name: np.asarray(a[name], dtype=np.float64)
        for name in ("single", "toxicity", "counts", "base_nats", "single_nats", "nats")
    }
    return analyse(
        MeasuredSets(
            axis=m["axis"],
            model=m["model"],
            n_heads=m["n_heads"],
            readings=tuple(m["readings"]),
            kinds=tuple(sets["kind"]),
            sets=tuple(map(as_heads, sets["heads"])),
            heads=tuple(a["heads"].tolist()),
            base=PromptRows.read(a["base"], a, m["groups"], ""),
            provenance=m["provenance"],
            notes=tuple(m["notes"]),
            **numbers,
        )
    )


def scores_of(axis: str, text: TextConfig, model_id: ModelId, model: str, store: Store) -> ImpactTable:
    """The stored scores on the most prompts of an axis, perplexities on a text.

    Raises
    ------
    InputError
        There are none.
    """
    found = entries.best(text, BiasConfig(axis), model_id, model, store)
    if found is None:
        raise InputError(
            f"There are no scores of {axis} with {text.tokens} tokens: run "
            f"'python -m fasp_core score --model {model} --axis {axis} --tokens {text.tokens}' first."
        )
    return found


def _columns(impacts: ImpactTable, plan: Plan) -> list[int]:
    """Places, in the scores' rows, of the prompts that are measured."""
    n = impacts.bias.base.shape[1]
    places = {text: i for i, text in enumerate(plan.scores(n).prompts().texts)}
    wanted = plan.bias.prompts().texts
    if len(places) != n or not set(wanted) <= set(places):
        raise InputError(f"Scores of {n} prompts do not hold the {len(wanted)} of the plan: use at most {n} prompts.")
    return [places[text] for text in wanted]


def _same_text(impacts: ImpactTable, sums: np.ndarray, counts: np.ndarray) -> int:
    """How many blocks of the scores' text were measured: it must be their beginning."""
    n, base = len(counts), impacts.ppl.base
    same = np.array_equal(base.counts[:n], counts) and np.allclose(base.sums[:n], sums, rtol=SAME_NATS)
    if not same:
        raise InputError(
            "The text is not the beginning of the one that was scored: use a multiple of 512 tokens, at most as many."
        )
    return n


def _notes(impacts: ImpactTable, plan: Plan) -> list[str]:
    notes = [f"The {plan.gamma:.0%} critical heads, which matter most for perplexity, are in no set."]
    exact = impacts.bias.exact
    if exact is not None and not exact.all():
        notes.append(f"Only the {int(exact.sum())} heads that were really removed for their scores are in sets.")
    return notes


def _name(axis: str) -> str:
    return axis.rsplit("/", 1)[-1].removesuffix(".csv")


# --- the command ---


def markdown(results: Sequence[Additivity]) -> str:
    """Tables for a document. Numbers in brackets are 95% intervals over blocks of prompts or text."""
    parts = []
    for a in results:
        parts += [f"## {a.axis}: {a.prompts} prompts, {a.groups} groups, {a.tokens:,} tokens", " ".join(a.notes)]
        for q in a.quantities.values():
            parts += [f"### {q.title}", q.outcome, *_tables(q)]
    return paragraphs(parts)


def _tables(q: Quantity) -> Iterator[str]:
    digits, unit = 4 if q.name == NATS else 2, q.unit

    def text(e: Estimate) -> str:
        return e.text(digits, q.scale)

    def plain(x: float) -> str:
        return f"{q.scale * x:.{digits}f}"

    yield table(
        f"over | n | slope | correlation | mean error, {unit} | size of error, {unit}",
        (
            f"{f.over}, {f.prediction} | {f.n} | {f.slope.text()} | {f.pearson.text()} | {text(f.error)} | "
            f"{text(f.size_of_error)}"
            for f in q.fits
        ),
    )
    yield table(
        " | ".join(["set", "heads", f"measured, {unit}", *q.sets[0].predicted]),
        (" | ".join([s.kind, str(s.size), *map(text, (s.measured, *s.predicted.values()))]) for s in q.sets),
    )
    yield table(
        f"pair, {unit} | kind | first alone | second alone | both | interaction | p | q",
        (
            f"{p.first} + {p.second} | {p.kind} | {plain(p.alone[0])} | {plain(p.alone[1])} | {text(p.measured)} | "
            f"{text(p.interaction)} | {p.p:.2g} | {p.q:.2g}"
            for p in q.pairs[:SHOWN]
        ),
    )
    yield table(
        f"head | pairs | beyond noise | mean size of interaction, {unit} | with",
        (f"{h.head} | {h.pairs} | {h.beyond_noise} | {plain(h.mean_size)} | {h.partner}" for h in q.heads[:SHOWN]),
    )
