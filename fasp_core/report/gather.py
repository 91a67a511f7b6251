"""What a report tells: the scores, the set, the measurement on test prompts, and what stored comparisons say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fasp_core import defaults
from fasp_core.data.holistic_bias import axis_names
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, Evaluation, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import Selection, select
from fasp_core.metrics.meters import BiasConfig, Report
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import ManualEdits, apply_manual_edits
from fasp_core.scoring.search import Found
from fasp_core.storage.store import Store
from fasp_core.studies.compare import compare, outcome, searching
from fasp_core.studies.compare.compare import Comparison
from fasp_core.studies.compare.limits import Limits, StoredMeter
from fasp_core.studies.compare.outcome import Claim
from fasp_core.studies.compare.plan import HELD_OUT, Candidate
from fasp_core.studies.explain import explain
from fasp_core.studies.explain.explain import Explained
from fasp_core.studies.scorecard import scorecard
from fasp_core.studies.scorecard.scorecard import Plan, Scorecard
from fasp_core.tasks import files, utility
from fasp_core.tasks.utility import Utility

GIVEN = "the given list"  # stands for a method where heads were named
NOTHING = ManualEdits()
PROMPTS, TOKENS = defaults.TEST_PROMPTS, defaults.TEST_TOKENS  # as in a comparison of methods, which are taken over


@dataclass(frozen=True)
class Asked:
    """What a report is to be about.

    Attributes
    ----------
    axis : name, or path of a CSV file; `title` is what people call it.
    reading : the one that the choice was made by.
    parts : what is removed.
    method : how the set was chosen, heads changed by hand aside; None if it was given as a list.
    gamma, alpha, seed, protect : of the method.
    limits : of the choice that a stored comparison comes to.
    prompts, tokens : of the measurement: at least so many test prompts, and the tokens of a text that no score saw.
    measure : False tells only what is stored.
    items : of each task that both models are asked; 0 tells what is stored of tasks.
    scorecard : whether a scorecard's lines are measured where they are missing; else those that are stored are told.
    by_hand : what the method was told; heads of `parts` that it does not come to even so were changed afterwards.
    """

    spec: ModelSpec
    axis: str
    title: str
    reading: str
    parts: PruneSet
    method: str | None = None
    gamma: float = defaults.GAMMA
    alpha: float = defaults.ALPHA
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    prompts: int = PROMPTS
    tokens: int = TOKENS
    measure: bool = True
    by_hand: ManualEdits = NOTHING
    items: int = 0
    protect: str = "perplexity"
    scorecard: bool = False

    @property
    def evaluation(self) -> EvalConfig:
        return EvalConfig(
            BiasConfig(self.axis, split="test", n_prompts=self.prompts), TextConfig(tokens=self.tokens, skip=HELD_OUT)
        )


@dataclass(frozen=True, eq=False)
class Facts:
    """All that a report tells.

    Attributes
    ----------
    selection : what the method chose around what was set by hand: exactly the heads of `asked.parts`.
    evaluation : None if nothing was measured.
    comparison, picked, claim : stored ones and the set that the comparison comes to; None where there is none.
    searched : the stored search that found exactly this set, if one did.
    able : what the set takes from common tasks; None if they were not asked.
    explained : what each head makes of the change on these test prompts; None if that is not stored.
    card : all measures of the set that are stored, a line each; None if none is.
    keeps : whether a set (flat ids) keeps to the limits beside perplexity, by what is stored; None where there are
        none, or the tasks cannot be read.
    unknown : why the set that the comparison comes to is not known; empty if it is.
    """

    asked: Asked
    model_id: ModelId
    table: ImpactTable
    selection: Selection
    evaluation: Evaluation | None
    comparison: Comparison | None
    picked: Candidate | None
    claim: Claim | None
    searched: Found | None
    able: Utility | None
    explained: Explained | None = None
    card: Scorecard | None = None
    keeps: Callable[[Sequence[int]], bool] | None = None
    unknown: str = ""

    @property
    def by_hand(self) -> ManualEdits:
        """What was set by hand."""
        return ManualEdits(frozenset(self.selection.forced), frozenset(self.selection.locked))


def axis_title(axis: str) -> str:
    """`race_ethnicity` as people read it; of a CSV file the name."""
    return axis.replace("_", " ") if axis in axis_names() else Path(axis).stem


def asked_prompts(table: ImpactTable) -> int:
    """A number of prompts that asks for exactly those of the scores.

    Every group gets the same share, a small group what it has: so the largest group tells the share.
    """
    return int(np.bincount(table.bias.codes).max()) * len(table.bias.groups)


def by_hand_to(selection: Selection, parts: PruneSet) -> ManualEdits:
    """The changes by which a finished choice comes to exactly the heads of `parts`."""
    wanted, chosen = frozenset(parts.flat(selection.n_heads)), frozenset(selection.pruned)
    return ManualEdits(wanted - chosen, chosen - wanted)


def origin(asked: Asked, table: ImpactTable) -> Selection:
    """What the method chooses by these scores around what is set by hand; without a method, the given list.

    Raises
    ------
    InputError
        There is no such method or reading, or it cannot choose from these scores.
    """
    if asked.method is not None:
        return select(
            table.head_scores(asked.reading, asked.protect),
            asked.method,
            asked.gamma,
            asked.alpha,
            seed=asked.seed,
            locked=asked.by_hand.keep,
            forced=asked.by_hand.prune,
        )
    heads = tuple(asked.parts.flat(table.n_heads))
    return Selection(heads, (), len(heads), len(heads), (), GIVEN, 0.0, 0.0, "stable", 0, table.n_layers, table.n_heads)


def gather(
    asked: Asked,
    table: ImpactTable,
    model_id: ModelId,
    store: Store,
    model: Callable[[], LanguageModel],
    progress: Report | None = None,
) -> Facts:
    """Measure the set on test prompts, stored measurements taken over, and read what else is stored.

    Parameters
    ----------
    model : gives the loaded model; called only if something is measured.

    Raises
    ------
    InputError
        A part is not in the model, or there is no such reading or method.
    """
    if asked.reading not in table.bias.readings:
        raise InputError(f"There is no reading '{asked.reading}': choose {' or '.join(table.bias.readings)}.")
    asked.parts.gates(table.n_layers, table.n_heads)
    selection = origin(asked, table)
    flat = tuple(asked.parts.flat(table.n_heads))
    if flat != selection.pruned:
        selection = apply_manual_edits(selection, by_hand_to(selection, asked.parts))
    evaluation = None
    if asked.measure and len(asked.parts):
        evaluation = evaluate(model(), asked.parts, asked.evaluation, store, progress)
    if asked.measure and asked.items and len(asked.parts):
        samples = [files.sample(task, asked.items) for task in defaults.TASKS]
        utility.utility(model(), asked.parts, samples, 0, asked.items, store, progress)
    impossible = _measured_card(asked, model(), store, progress) if asked.measure and asked.scorecard else {}
    if progress is not None:
        progress(0, 1, "reading what is stored")
    known = (model_id, asked.axis)
    comparison = compare.stored(*known, asked.reading, store, asked.spec.source)
    picked = keeps = claim = None
    unknown = ""
    try:
        if comparison is not None:
            keeps = _meter(asked, model_id, table.n_heads, "valid", store).fits if asked.limits.beyond_ppl else None
            picked = compare.choose(comparison, asked.reading, asked.limits.max_ppl, fits=keeps)
        if picked is not None:
            claim = outcome.stored_claim(*known, asked.reading, picked, store, asked.spec.source)
        if picked is not None and claim is not None:
            spent = _meter(asked, model_id, table.n_heads, "test", store).spent(picked.heads)
            claim = claim.under(asked.limits, spent)
    except InputError as error:  # what sets cost was not measured, or the tasks are not installed
        unknown = f"It is not known which set keeps to the limits ({asked.limits.text()}): {error}"
    searches = searching.stored(*known, store, asked.reading) if asked.method is None and flat else []
    return Facts(
        asked,
        model_id,
        table,
        selection,
        evaluation,
        comparison,
        picked,
        claim,
        next((f for f in searches if tuple(f.heads) == flat), None),
        utility.stored(model_id, asked.parts, store) if len(asked.parts) else None,
        explain.stored(model_id, asked.parts, asked.evaluation.bias, asked.reading, store),
        scorecard.stored(model_id, asked.parts, store, impossible) if len(asked.parts) else None,
        keeps,
        unknown,
    )


def _meter(asked: Asked, model_id: ModelId, n_heads: int, split: str, store: Store) -> StoredMeter:
    return StoredMeter(model_id, n_heads, asked.limits, split, store)


def card_plan(axis: str) -> Plan:
    """The usual scorecard, with the report's own axis in it."""
    plan = Plan()
    return plan if axis in plan.axes else replace(plan, axes=(axis, *plan.axes))


def _measured_card(asked: Asked, lm: LanguageModel, store: Store, progress: Report | None) -> dict[str, str]:
    """Measure the lines that are missing; by title, why a part cannot be measured."""
    if not len(asked.parts):
        return {}
    return dict(scorecard.run(lm, asked.parts, card_plan(asked.axis), store, progress).impossible)
