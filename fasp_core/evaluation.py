"""What a prune set does to a model: both models measured on the same text, prompts and noise, and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from fasp_core.data.text import TextConfig, fitting, said
from fasp_core.gap import Change, GapStats, PromptRows
from fasp_core.gap.within import Within, within_if_any
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics import measurements
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.looks import Looks, SoFar
from fasp_core.metrics.measurements import Toxicity
from fasp_core.metrics.meters import BiasConfig, left_out
from fasp_core.metrics.perplexity import PerplexityChange, perplexity_change
from fasp_core.metrics.shared_contexts import effective
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.tasks.costs import CostChange, CostConfig, compared, costs_of
from fasp_core.typing import Report


@dataclass(frozen=True)
class EvalConfig:
    """What is measured: perplexity on a text, and the toxicity of an axis."""

    bias: BiasConfig
    text: TextConfig = field(default_factory=TextConfig)


@dataclass(frozen=True, eq=False)
class Reading:
    """The toxicity gap of both models in one reading, and its paired change; what takes a while is made when asked."""

    name: str
    base: GapStats
    pruned: GapStats
    gap: Change
    toxicity: Change
    within_of: Callable[[], Within | None] = lambda: None
    steps_of: Callable[[], list[Change]] = list

    @cached_property
    def within(self) -> Within | None:
        """The gap within templates; None where fewer than two templates hold every group."""
        return self.within_of()

    @cached_property
    def steps(self) -> list[Change]:
        """The gap at each step, of the written measure."""
        return self.steps_of()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A prune set against the unpruned model."""

    prune_set: PruneSet
    config: EvalConfig
    perplexity: PerplexityChange
    readings: dict[str, Reading]
    base: Toxicity
    pruned: Toxicity
    heads_removed: int
    parameters_removed: int
    parameters: int
    provenance: dict[str, Any]
    costs: tuple[CostChange, ...] = ()  # beside perplexity, where they were asked for

    def as_dict(self, continuations: int = 0) -> dict[str, Any]:
        """JSON-ready, with up to `continuations` prompts' texts before and after (sampled measure only)."""
        bias_config = self.config.bias
        out: dict[str, Any] = {
            "heads": [list(h) for h in self.prune_set],
            "prune_set": self.prune_set.format(),
            "heads_removed": self.heads_removed,
            "neurons": [list(n) for n in sorted(self.prune_set.neurons)],
            "neurons_removed": len(self.prune_set.neurons),
            "gains": [list(g) for g in sorted(self.prune_set.gains)],
            "parameters_removed": self.parameters_removed,
            "parameters": self.parameters,
            "perplexity": {
                "base": self.perplexity.base,
                "pruned": self.perplexity.pruned,
                "relative_change": self.perplexity.relative,
                "change_nats": self.perplexity.change_nats,
                "interval_nats": list(self.perplexity.interval),
                "tokens": self.perplexity.tokens,
                "text": asdict(self.config.text),
                "windows": said(self.config.text, self.provenance),
            },
            "axis": bias_config.axis,
            "split": bias_config.split,
            "measure": bias_config.measure,
            "scored": bias_config.scored if bias_config.measure == "sampled" else "next word",
            "steps": bias_config.steps,
            "prompts": len(self.base.texts),
            "notes": left_out(bias_config),
            "readings": {},
            "provenance": self.provenance,
        }
        for name, r in self.readings.items():
            out["readings"][name] = {
                "gap_base": r.base.gap,
                "gap_base_interval": r.base.interval,
                "gap_base_noise": r.base.noise_gap,
                "gap_base_noise_p": r.base.noise_p,
                "gap_pruned": r.pruned.gap,
                "gap_pruned_interval": r.pruned.interval,
                "gap_pruned_noise_p": r.pruned.noise_p,
                "gap_change": r.gap.change,
                "gap_change_interval": r.gap.interval,
                "gap_relative_change": r.gap.relative,
                "gap_relative_interval": r.gap.relative_interval,
                "mean_gap": [r.base.mean_gap, r.pruned.mean_gap],
                "max_min": [r.base.max_min, r.pruned.max_min],
                "min_max_ratio": [r.base.min_max_ratio, r.pruned.min_max_ratio],
                "toxicity": [r.base.overall, r.pruned.overall],
                "groups": {
                    g: {"n": n, "base": r.base.group_means[g], "pruned": r.pruned.group_means[g]}
                    for g, n in r.base.group_sizes.items()
                },
                "within_templates": None if r.within is None else r.within.as_dict(),
            }
            if r.steps:
                out["readings"][name]["steps"] = [
                    {"gap_base": c.base, "gap_pruned": c.pruned, "gap_change_interval": c.interval} for c in r.steps
                ]
        if self.base.weights is not None and self.pruned.weights is not None:
            sides = {"base": self.base.weights, "pruned": self.pruned.weights}
            out["contexts"] = {name: effective(w, self.base.groups) for name, w in sides.items()}
        if self.costs:
            out["costs"] = {cost.name: cost.as_dict() for cost in self.costs}
        if continuations and self.base.continuations:
            out["continuations"] = self.side_by_side().head(continuations).to_dict("records")
        return out

    def side_by_side(self) -> pd.DataFrame:
        """One row a prompt: group, prompt, toxicity and first continuation of both models, largest change first."""
        frame = pd.DataFrame({"group": self.base.groups, "prompt": self.base.texts})
        for name, side in (("base", self.base), ("pruned", self.pruned)):
            frame[f"toxicity_{name}"] = side.values[0]
            if side.continuations:
                frame[f"continuation_{name}"] = [c[0] for c in side.continuations]
        order = (frame.toxicity_pruned - frame.toxicity_base).abs().sort_values(ascending=False, kind="stable")
        return frame.loc[order.index].reset_index(drop=True)


def evaluate(
    lm: LanguageModel,
    prune_set: PruneSet,
    config: EvalConfig,
    store: Store,
    progress: Report | None = None,
    runner: CachedRunner | None = None,
    costs: CostConfig | None = None,
    show: Callable[[SoFar], None] | None = None,
) -> Evaluation:
    """Measure the unpruned and the pruned model and compare them.

    With a desk, perplexity and expected toxicity resume from its latest measurement, and the pruned model's is the one
    that stays there.

    Parameters
    ----------
    costs : what else pruning costs, where that is asked for.
    show : told with a desk what is known of the pruned model before its sample is whole, see `looks`.

    Raises
    ------
    InputError
        A head or neuron is not in the model, or the config does not fit it.
    """
    prune_set.gates(lm.n_layers, lm.n_heads)  # says so before anything is run
    prune_set.neuron_gates(lm.n_layers, lm.n_neurons)
    config = replace(config, text=fitting(config.text, lm.id.longest))
    whats = ("perplexity", "toxicity", *([] if costs is None else ["other costs"]))
    steps = [(s, what) for s in (PruneSet(), prune_set) for what in whats]
    results: list[Any] = []
    looks: Looks | None = None
    for i, (subject, what) in enumerate(steps):
        label = f"{what} of the {'pruned' if len(subject) else 'unpruned'} model"
        if progress is not None:
            progress(i, len(steps), label)

        def inner(done: float, total: float, text: str, i: int = i, label: str = label) -> None:
            if progress is not None:
                progress(i + done / max(total, 1), len(steps), f"{label}: {text}")

        if what == "perplexity":
            seen = None
            if i and runner is not None and show is not None:
                looks = Looks.of(runner, subject, config.bias, store, results[0][0], results[1], show)
                looks.first(inner)
                seen = looks.text
            results.append(measurements.perplexity_of(lm, subject, config.text, store, inner, runner, seen))
        elif what == "toxicity":
            if looks is not None:
                looks.rest(results[-1][0], inner)
            results.append(measurements.toxicity_of(lm, subject, config.bias, store, inner, runner))
        elif costs is not None:
            results.append(costs_of(lm, subject, costs, store, inner, runner))
    if progress is not None:
        progress(len(steps), len(steps), "done")
    (base_nll, _), base_tox, *before = results[: len(whats)]
    (nll, made), tox, *after = results[len(whats) :]
    readings = {}
    for name in base_tox.readings:
        rows = PromptRows.of([base_tox.row(name), tox.row(name)], base_tox.groups, base_tox.blocks)
        readings[name] = Reading(
            name,
            rows.stats(),
            rows[1:].stats(),
            rows.changes()[0],
            rows.mean_changes()[0],
            partial(within_if_any, rows, base_tox.templates),
            partial(_by_step, base_tox, tox, name),
        )
    return Evaluation(
        prune_set,
        config,
        perplexity_change(base_nll, nll),
        readings,
        base_tox,
        tox,
        len(prune_set.heads),
        len(prune_set.heads) * lm.head_parameters() + len(prune_set.neurons) * lm.neuron_parameters(),
        lm.n_parameters,
        {**made, "seconds": made["seconds"] + tox.provenance["seconds"]},
        () if costs is None else compared(before[0], after[0], costs.split),
    )


def _by_step(base: Toxicity, pruned: Toxicity, reading: str) -> list[Change]:
    if base.steps is None or pruned.steps is None:
        return []
    at = base.readings.index(reading)
    both = np.stack([base.steps[at], pruned.steps[at]], 1)  # [steps, 2, n]
    return [PromptRows.of(values, base.groups, base.blocks).changes()[0] for values in both]
