"""Which cost, or which two, foretell what a set of heads takes from a model's answers on tasks.

`python -m fasp_core study costs`: many sets are really removed (of FASP, the baselines and the search, as a stored
comparison has them, and random ones of several sizes), and each is measured twice: by every cost of
`fasp_core.tasks.costs`, on text and passages to choose on, and by its answers on a panel of tasks, LAMBADA's passages
being those to claim on. Spearman's rank correlation of the cost with the loss on the tasks, over sets, says how well a
limit on that cost would protect; its interval is a bootstrap over sets. Two costs together are the mean of their ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap.estimates import Estimate, correlation_interval, interval, spearman
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.keys import digest
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.common import RESAMPLES, Steps, as_text, kept
from fasp_core.studies.compare import compare
from fasp_core.studies.compare.plan import SEARCH, Candidate
from fasp_core.tasks import files
from fasp_core.tasks.costs import COSTS, CostConfig, costs_of
from fasp_core.tasks.files import Items
from fasp_core.tasks.last_words import TASK, passages
from fasp_core.tasks.utility import answers_of
from fasp_core.typing import Floats, Report

Heads = tuple[int, ...]
SIZES = (4, 8, 13, 20, 27, 40)  # of 270 heads; of other models the same shares
BASELINES = ("magnitude", "gradient", "ppl-only", "bias-only")
TARGETS = {
    "accuracy": "accuracy, mean of all tasks",
    "accuracy_others": "accuracy, mean of the tasks but LAMBADA",
    "likelihood": "log-likelihood of right answers, mean of all tasks",
    "likelihood_others": "the same, but LAMBADA",
}
SINGLE = [(name,) for name in COSTS]
PAIRS = list(combinations(COSTS, 2))


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    axis, reading : of the stored comparison whose sets are taken.
    sets : how many in all; what the comparison does not give is random.
    tokens : of sentences and of paragraphs.
    passages : of LAMBADA as a cost.
    tasks : the panel, with `items` of each.
    seed : of random sets and of the draw of items.
    """

    axis: str = "race_ethnicity"
    reading: str = "neutral"
    sets: int = 40
    tokens: int = 2500
    passages: int = 50
    tasks: tuple[str, ...] = (TASK, "arc_easy", "piqa", "sciq")
    items: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sets < 5 or not self.tasks:
            raise InputError("Costs are compared over at least 5 sets and one task: name more.")

    @property
    def costs(self) -> CostConfig:
        return CostConfig(COSTS, "valid", self.tokens, self.passages, self.seed, TextConfig(tokens=self.tokens))

    def samples(self) -> list[Items]:
        """Items of each task; of LAMBADA those that no cost is measured on."""
        return [
            passages("test", self.items, self.seed) if task == TASK else files.sample(task, self.items, self.seed)
            for task in self.tasks
        ]


@dataclass(frozen=True)
class Foretold:
    """How well a cost, or two of them, foretell the loss by one target.

    Attributes
    ----------
    costs : one name or two.
    target : a key of `TARGETS`, or a task.
    rho : Spearman's correlation of cost and loss, over sets.
    beyond : the same minus that of perplexity alone, on the same resamples of the sets.
    """

    costs: tuple[str, ...]
    target: str
    rho: Estimate
    beyond: Estimate


@dataclass(frozen=True, eq=False)
class Costs:
    """A finished study.

    Attributes
    ----------
    sets : a row each: heads, what chose them, change of each cost in nats, and by task the change of accuracy (a share)
        and of the mean log-likelihood of the right answer.
    base : the same of the unpruned model, as they are.
    """

    plan: Plan
    sets: pd.DataFrame
    base: dict[str, float]
    provenance: dict[str, Any]

    def losses(self) -> dict[str, Floats]:
        """[S] by target: by how much a set lowers it."""
        others = [task for task in self.plan.tasks if task != TASK]
        found: dict[str, Floats] = {}
        for what in ("accuracy", "likelihood"):
            for name, tasks in ((what, self.plan.tasks), (f"{what}_others", others)):
                if tasks:
                    found[name] = -self.sets[[f"{what}_{task}" for task in tasks]].to_numpy(float).mean(1)
        return found | {task: -self.sets[f"accuracy_{task}"].to_numpy(float) for task in self.plan.tasks}

    def foretold(self, resamples: int = RESAMPLES) -> list[Foretold]:
        """Every cost and every two, by every target."""
        from scipy.stats import rankdata  # a second to import: help and choices do without

        n = len(self.sets)
        drawn = np.random.default_rng(0).integers(0, n, (resamples, n))
        at = np.vstack([np.arange(n), drawn]).T  # [n, 1 + B]; first all sets as they are
        measured = [name for name in COSTS if name in self.sets]  # an earlier study lacks a cost that came later
        ranks = {name: rankdata(self.sets[name].to_numpy(float)[at], axis=0) for name in measured}
        asked = [costs for costs in (*SINGLE, *PAIRS) if set(costs) <= set(measured)]
        mixed = {costs: np.mean([ranks[name] for name in costs], 0) for costs in asked}
        out = []
        for target, loss in self.losses().items():
            rho = {costs: spearman(values, loss[at]) for costs, values in mixed.items()}
            alone = rho["perplexity",]
            for costs, values in rho.items():
                more = values - alone
                out.append(
                    Foretold(
                        costs,
                        target,
                        correlation_interval(float(values[0]), values[1:]),
                        interval(float(more[0]), more[1:]),
                    )
                )
        return out

    def best(self, target: str, found: Sequence[Foretold]) -> tuple[Foretold, Foretold]:
        """The cost, and the companion of perplexity, that foretell a target best."""
        mine = [one for one in found if one.target == target]
        beside = [one for one in mine if len(one.costs) == 2 and "perplexity" in one.costs]
        return max((one for one in mine if len(one.costs) == 1), key=_rho), max(beside, key=_rho)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = self.foretold()
        return {
            "plan": asdict(self.plan),
            "sets": self.sets.to_dict("records"),
            "unpruned": self.base,
            "correlations": [{**asdict(one), "costs": list(one.costs)} for one in found],
            "outcome": self.outcome(found),
            "provenance": self.provenance,
        }

    def outcome(self, found: Sequence[Foretold]) -> str:
        """What the study comes to, in two sentences."""
        target = "accuracy"
        single, beside = self.best(target, found)
        (other,) = [name for name in beside.costs if name != "perplexity"]
        said = "is shown" if beside.beyond.low > 0 else "is not shown"
        return (
            f"Over {len(self.sets)} sets, the loss of accuracy (mean of {', '.join(self.plan.tasks)}) goes with "
            f"{single.costs[0]} most (rank correlation {single.rho.text()}). Beside perplexity, {other} foretells it "
            f"best: {beside.rho.text()} together; that this is more than perplexity alone {said} "
            f"({beside.beyond.text()})."
        )


def _rho(one: Foretold) -> float:
    return -np.inf if np.isnan(one.rho.value) else one.rho.value


def chosen_sets(
    plan: Plan, known: compare.Comparison | None, n_heads: int, size: int
) -> list[tuple[str, tuple[int, ...]]]:
    """(what chose it, flat ids) of `plan.sets` different sets, the comparison's first.

    Parameters
    ----------
    known : a stored comparison; without one, all sets are random.
    n_heads, size : heads of a layer, and of the whole model.
    """
    found: dict[Heads, str] = {}
    for candidate in () if known is None else _representative(known.candidates):
        if candidate.heads and len(found) < plan.sets // 2 + 2:
            found.setdefault(candidate.heads, candidate.title)
    rng = np.random.default_rng(plan.seed)
    tries = 0
    while len(found) < plan.sets and tries < 100 * plan.sets:
        k = max(1, round(SIZES[tries % len(SIZES)] * size / 270))
        heads = tuple(sorted(map(int, rng.choice(size, min(k, size - 1), replace=False))))
        found.setdefault(heads, f"random, {k} heads")
        tries += 1
    return [(title, heads) for heads, title in found.items()]


def _representative(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The search's sets, and of each method some sizes; in this order."""
    searched = [c for c in candidates if c.method == SEARCH]
    by_alpha = {0.04, 0.06, 0.1, 0.16}
    fasp = [c for c in candidates if c.method == "fasp" and c.gamma in (0.3, 0.6) and c.alpha in by_alpha]
    others = [c for c in candidates if c.method in BASELINES and c.alpha in (0.04, 0.1)]
    return [*searched[:6], *fasp, *others]


def find(plan: Plan, model_id: ModelId, store: Store) -> Costs | None:
    """A finished study, without the model; None if there is none."""
    headers = store.find("experiments", {"experiment": "costs", **model_id.wanted(), "plan": _plain(plan)})
    return next((one for h in headers if (one := store.read("experiments", h.config, read)) is not None), None)


def stored(model_id: ModelId, axis: str, reading: str, store: Store) -> Costs | None:
    """The finished study with the most sets of an axis' comparison, without the model; None if there is none."""

    def fits(entry: Entry) -> bool:
        plan = entry.config["plan"]
        return bool((plan["axis"], plan["reading"]) == (axis, reading))

    headers = store.find("experiments", {"experiment": "costs", **model_id.wanted()}, fits)
    found = [one for h in headers if (one := store.read("experiments", h.config, read)) is not None]
    return max(found, key=lambda one: len(one.sets), default=None)


def run(lm: LanguageModel, plan: Plan, store: Store, progress: Report | None = None) -> Costs:
    """Measure every set; what is stored is not measured again, so a stopped run goes on.

    Raises
    ------
    InputError
        A task does not exist, or the data package is missing.
    """
    samples, config = plan.samples(), plan.costs
    known = compare.stored(lm.id, plan.axis, plan.reading, store, lm.name)
    sets = chosen_sets(plan, known, lm.n_heads, lm.size)
    key = {
        "experiment": "costs",
        **lm.id.key(),
        "plan": _plain(plan),
        "sets": digest([heads for _, heads in sets]),
        "data": digest([items.digest for items in samples]),
        "texts": _texts(config, lm.id),
    }

    def work() -> Any:
        steps = Steps(progress, 1 + len(sets))

        def measured(heads: Heads, what: str) -> dict[str, float]:
            subject = PruneSet.from_flat(heads, lm.n_heads)
            parts = Steps(steps.next(f"{what}: {{}}"), 1 + len(samples))
            report = parts.next()
            row = {name: cost.rows.mean for name, cost in costs_of(lm, subject, config, store, report).items()}
            for items in samples:
                answers = answers_of(lm, subject, items, plan.seed, store, parts.next())
                row[f"accuracy_{items.task}"] = float(answers.right.mean())
                row[f"likelihood_{items.task}"] = float(answers.likelihood.mean())
            return row

        base = measured((), "the unpruned model")
        rows = []
        for i, (title, heads) in enumerate(sets, 1):
            row = measured(heads, f"set {i} of {len(sets)}")
            changes = {name: value - base[name] for name, value in row.items()}
            rows.append({"heads": as_text(heads), "chosen": title, "size": len(heads), **changes})
        return {"tables": {"sets": pd.DataFrame(rows)}, "meta": {"base": base, "compared": known is not None}}

    return kept(store, lm, "costs", key, work, read)


def _texts(config: CostConfig, model_id: ModelId) -> str:
    """Digest of what costs are measured on."""
    words = passages(config.split, config.items, config.seed)
    return digest([ppl_key(config.text, model_id), ppl_key(config.paragraphs, model_id), words.digest])


def read(entry: Entry) -> Costs:
    """A finished study from its entry."""
    given = entry.config["plan"]
    plan = Plan(**{**given, "tasks": tuple(given["tasks"])})
    return Costs(plan, entry.table("sets"), dict(entry.meta["base"]), entry.meta["provenance"])


def _plain(plan: Plan) -> dict[str, Any]:
    return {**asdict(plan), "tasks": list(plan.tasks)}
