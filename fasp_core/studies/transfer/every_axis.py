"""Sets of heads chosen on each axis, measured on all axes: what is measured, how it is stored, and what it shows.

Each measurement is stored by itself, so a run that was stopped goes on where it was. The whole is one more entry, with
the toxicity of every prompt, from which the result is made again without the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap import Change, PromptRows, claims
from fasp_core.gap.further import FurtherStats
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.lazy import pd
from fasp_core.metrics import measurements
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.metrics.perplexity import Nll, PerplexityChange, perplexity_change, ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.provenance import provenance
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.common import KIND, Steps, read_nll
from fasp_core.typing import Report

OUTCOMES = ("fell", "rose", "not shown", "no gap")


@dataclass(frozen=True)
class TransferConfig:
    """How sets are chosen, and what they are measured on.

    Attributes
    ----------
    reading : of the scores that sets are chosen by; both readings are measured.
    gamma, alpha : of FASP.
    n_prompts : test prompts of each axis, at least.
    tokens : of the text whose perplexity is measured.
    """

    reading: str = "neutral"
    gamma: float = 0.3
    alpha: float = 0.05
    n_prompts: int = 450
    tokens: int = 2048

    def bias(self, axis: str) -> BiasConfig:
        """What the gap of an axis is measured on: prompts that nothing was chosen on."""
        return BiasConfig(axis, split="test", n_prompts=self.n_prompts)


@dataclass(frozen=True, eq=False)
class Measured:
    """Every set on every axis, as it is stored.

    Attributes
    ----------
    sets : by the axis that it was chosen on; A of them.
    rows : by axis, [1 + A, R, n] toxicity of each prompt under the whole model and under each set, in the order of
        `sets`.
    nll : of the whole model, then of each set.
    """

    model: str
    n_heads: int
    config: TransferConfig
    readings: tuple[str, ...]
    sets: dict[str, PruneSet]
    rows: dict[str, PromptRows]
    nll: tuple[Nll, ...]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class ChosenSet:
    """A set, and what it costs."""

    axis: str
    heads: str
    size: int
    perplexity: PerplexityChange


@dataclass(frozen=True)
class Cell:
    """What the set chosen on one axis does to the gap of another, on test prompts.

    `noise_p` is that of the whole model's gap: the share of shuffles of the groups with a gap at least as large.
    """

    chosen_on: str
    measured_on: str
    reading: str
    noise_p: float
    change: Change

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`, by the rule of `fasp_core.gap.claims`."""
        found = claims.shown(self.noise_p, self.change)
        return "not shown" if found == "unclear" else found


@dataclass(frozen=True)
class Transfer:
    """Experiment 3: sets chosen on each axis, measured on all.

    The intervals of single cells are at level .95: among many cells, some leave 0 out by chance.

    Attributes
    ----------
    bases : gap of the whole model by axis and reading, with its noise level.
    cells : every set on every axis in every reading.
    """

    model: str
    config: TransferConfig
    sets: tuple[ChosenSet, ...]
    bases: dict[str, dict[str, FurtherStats]]
    cells: tuple[Cell, ...]
    provenance: dict[str, Any]

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes, in the order of rows and columns."""
        return tuple(s.axis for s in self.sets)

    def in_common(self, one: str, other: str) -> int:
        """Heads that the sets of two axes share."""
        heads = {s.axis: PruneSet.parse(s.heads).heads for s in self.sets}
        return len(heads[one] & heads[other])

    def of(self, reading: str) -> list[Cell]:
        """Cells of one reading, row by row: chosen on, then measured on."""
        return [cell for cell in self.cells if cell.reading == reading]

    def frame(self) -> pd.DataFrame:
        """One row a cell; gaps in units of the scorer."""
        chosen = {s.axis: s for s in self.sets}
        rows = []
        for c in self.cells:
            base, s, change = self.bases[c.measured_on][c.reading], chosen[c.chosen_on], c.change
            absolute, relative = (ends or (np.nan, np.nan) for ends in (change.interval, change.relative_interval))
            rows.append(
                {
                    "chosen on": c.chosen_on,
                    "measured on": c.measured_on,
                    "reading": c.reading,
                    "outcome": c.outcome,
                    "gap before": change.base,
                    "gap after": change.pruned,
                    "change": change.change,
                    "change, low": absolute[0],
                    "change, high": absolute[1],
                    "relative": change.relative,
                    "relative, low": relative[0],
                    "relative, high": relative[1],
                    "noise gap": base.noise_gap,
                    "noise p": base.noise_p,
                    "test prompts": base.n,
                    "perplexity before": s.perplexity.base,
                    "perplexity after": s.perplexity.pruned,
                    "perplexity change": s.perplexity.relative,
                    "heads pruned": s.size,
                    "in common with the other axis' set": self.in_common(c.chosen_on, c.measured_on),
                    "heads": s.heads,
                }
            )
        return pd.DataFrame(rows)


def choose(tables: Mapping[str, ImpactTable], config: TransferConfig) -> dict[str, PruneSet]:
    """FASP's set of each axis, by its validation scores.

    Raises
    ------
    InputError
        Alpha is too small for a single head, or leaves none that may be pruned.
    """
    chosen = {}
    for axis, table in tables.items():
        selection = select(table.head_scores(config.reading), "fasp", config.gamma, config.alpha)
        if not selection.pruned:
            n = table.n_layers * table.n_heads
            raise InputError(
                f"No head of {n} is pruned at gamma {config.gamma:g} and alpha {config.alpha:g}: raise alpha, or lower "
                "gamma."
            )
        chosen[axis] = PruneSet.of(selection.heads)
    return chosen


# --- measuring ---


@lru_cache(maxsize=32)
def _measured_keys(axes: tuple[str, ...], config: TransferConfig, model_id: ModelId) -> dict[str, Any]:
    found: dict[str, Any] = {axis: result_key(config.bias(axis), model_id) for axis in axes}
    return found | {"perplexity": ppl_key(TextConfig(tokens=config.tokens), model_id)}


def key(sets: Mapping[str, PruneSet], config: TransferConfig, model_id: ModelId) -> dict[str, Any]:
    """Everything that shapes the experiment, for the store; known without the model."""
    return {
        "experiment": "transfer",
        "reading": config.reading,
        "gamma": float(config.gamma),
        "alpha": float(config.alpha),
        "sets": {axis: heads.format() for axis, heads in sets.items()},
        "order": list(sets),  # of rows; a mapping has none here
        "measured": _measured_keys(tuple(sets), config, model_id),
    }


def find(sets: Mapping[str, PruneSet], config: TransferConfig, model_id: ModelId, store: Store) -> Measured | None:
    """What is stored of these very sets on all their axes."""
    return store.read(KIND, key(sets, config, model_id), lambda entry: _read(entry, config))


def run(
    lm: LanguageModel,
    sets: Mapping[str, PruneSet],
    config: TransferConfig,
    store: Store,
    progress: Report | None = None,
) -> Measured:
    """Measure every set on every axis; what is stored is not measured again.

    Parameters
    ----------
    sets : as from `choose`.
    """
    if (known := find(sets, config, lm.id, store)) is not None:
        return known
    subjects = {"the whole model": PruneSet(), **{f"the set of {axis}": heads for axis, heads in sets.items()}}
    steps = Steps(progress, len(subjects) * (1 + len(sets)))
    seconds: list[float] = []
    nll = []
    for name, heads in subjects.items():
        report = steps.next(f"perplexity of {name}")
        found, made = measurements.perplexity_of(lm, heads, TextConfig(tokens=config.tokens), store, report)
        nll.append(found)
        seconds.append(made["seconds"])
    measured = {}
    for axis in sets:
        values = []
        for name, heads in subjects.items():
            report = steps.next(f"{axis} under {name}")
            one = measurements.toxicity_of(lm, heads, config.bias(axis), store, report)
            values.append(one.values)
            seconds.append(one.provenance["seconds"])
        measured[axis] = PromptRows.of(values, one.groups, one.blocks)
    arrays: dict[str, np.ndarray] = {"sums": np.stack([x.sums for x in nll]), "counts": nll[0].counts.astype(np.int32)}
    for axis, rows in measured.items():
        arrays |= {f"{axis} toxicity": rows.values.astype(np.float32), **rows.stored(f"{axis} ")}
    entry = store.keep(
        KIND,
        key(sets, config, lm.id),
        label=f"{slug(lm.name)}--transfer-{config.reading}-g{config.gamma:g}-a{config.alpha:g}",
        arrays=arrays,
        meta={
            "model": lm.name,
            "n_heads": lm.n_heads,
            "readings": one.readings,
            "groups": {axis: rows.groups for axis, rows in measured.items()},
            "provenance": provenance(lm, sum(seconds), _command(lm, sets, config)),
        },
    )
    return _read(entry, config)


def _command(lm: LanguageModel, sets: Mapping[str, PruneSet], config: TransferConfig) -> str:
    named = " ".join(f"--axis {axis}" for axis in sets)
    return (
        f"python -m fasp_core study transfer --model {lm.name} {named} --reading {config.reading} "
        f"--gamma {config.gamma:g} --alpha {config.alpha:g} --prompts {config.n_prompts} --tokens {config.tokens}"
    )


def _read(entry: Entry, config: TransferConfig) -> Measured:
    a, meta = entry.arrays, entry.meta
    axes = entry.config["order"]
    return Measured(
        meta["model"],
        meta["n_heads"],
        config,
        tuple(meta["readings"]),
        {axis: PruneSet.parse(entry.config["sets"][axis]) for axis in axes},
        {axis: PromptRows.read(a[f"{axis} toxicity"], a, meta["groups"][axis], f"{axis} ") for axis in axes},
        read_nll(a["sums"], a["counts"]),
        meta["provenance"],
    )


def judge(measured: Measured) -> Transfer:
    """The result itself, from measurements alone."""
    bases: dict[str, dict[str, FurtherStats]] = {}
    cells: dict[tuple[str, str, str], Cell] = {}
    for axis, rows in measured.rows.items():
        bases[axis] = {}
        for r, reading in enumerate(measured.readings):
            bases[axis][reading] = base = rows[:, r].further_stats()
            for chosen_on, change in zip(measured.sets, rows[:, r].changes(), strict=True):
                cells[reading, chosen_on, axis] = Cell(chosen_on, axis, reading, base.noise_p, change)
    return Transfer(
        measured.model,
        measured.config,
        tuple(
            ChosenSet(axis, heads.format(), len(heads), perplexity_change(measured.nll[0], nll))
            for (axis, heads), nll in zip(measured.sets.items(), measured.nll[1:], strict=True)
        ),
        bases,
        tuple(
            cells[reading, one, other]
            for reading in measured.readings
            for one in measured.sets
            for other in measured.sets
        ),
        measured.provenance,
    )


def statement(result: Transfer, reading: str, own: bool = False) -> str:
    """The outcome in one sentence: of sets on other axes, or on the axis that each was chosen on."""
    counts = Counter(c.outcome for c in result.of(reading) if (c.chosen_on == c.measured_on) == own)
    where = "the axis that it was chosen on" if own else "another axis"
    found = [
        f"in {counts['fell']} the gap fell",
        f"in {counts['rose']} it rose",
        f"in {counts['not shown']} no change was shown",
        *([f"in {counts['no gap']} there is no gap above noise to begin with"] if counts["no gap"] else []),
    ]
    return f"Of {counts.total()} measurements of a set on {where}: {', '.join(found)}."
