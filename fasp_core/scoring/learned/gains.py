"""Gains: a gate for each head, learned by gradients, under which groups differ less and the model is as able as before.

A prune set is gates of 0 and 1. Here every head has a gate from 0 to 1.5, all of them learned together: Adam (Kingma
and Ba 2015) on validation prompts, text and passages, and nothing else of the model moves. The loss is the gap of a
batch of whole blocks relative to the unpruned model's, plus what sentences and paragraphs cost beyond a few thousandths
of a nat, plus what LAMBADA's last words cost at all. All of it is paired: the same prompts, windows and passages under
all gates open; where steps run in bfloat16, the gap under open gates is that in float32, which differs by a hundredth
or two. With hard-concrete gates (`gates.py`) the same loss finds heads to remove.

A gate is folded into the output projection's columns on export, and costs nothing when the model runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import MAX_GAIN, PruneSet
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.provenance import provenance
from fasp_core.scoring.learned.gain_steps import Course, averaged, paragraphs_of
from fasp_core.scoring.learned.gates import LATER, GainsConfig, gates_of
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store
from fasp_core.tasks.last_words import passages
from fasp_core.typing import Floats, Report

KIND = "gains"
PAIRED = {"gap": "paired"}  # of a step, which was divided by the unpruned gap of all prompts where a key lacks it


@dataclass(frozen=True, eq=False)
class Gains:
    """What was learned.

    Attributes
    ----------
    path : [steps + 1, L, H] what Adam moved, before the first step and after each: gates, or log-odds of them.
    losses : [steps, 3 or 4] before each step, on what it saw: the gap relative to the unpruned model's, nats that
        sentences cost more, that last words cost more, and that paragraphs cost more where steps saw some.
    base_gap : of the unpruned model, on the fixed sample of validation prompts.
    held : [C, 2] (step, relative gap) on prompts that no step saw; empty without patience. Gains begin at step 0.
    words : whose gap falls: 1 of the next one alone, more of so many after shared contexts beside it.
    at_step : whose gates are taken.
    """

    config: GainsConfig
    path: Floats
    losses: Floats
    base_gap: float
    provenance: dict[str, Any]
    held: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    words: int = 1

    @property
    def at_step(self) -> int:
        return int(self.held[self.held[:, 1].argmin(), 0]) if len(self.held) else len(self.losses)

    @property
    def gates(self) -> Floats:
        """[L, H] as learned."""
        return gates_of(self.config).final(averaged(self.path[: self.at_step + 1], self.config.average))

    def at(self, strength: float) -> PruneSet:
        """The set at a strength from 0 (the unpruned model) to 1 (as learned): gates 1 + s (g - 1).

        Heads that others were learned around keep their gates at every strength.
        """
        gates = np.clip(1 + strength * (self.gates - 1), 0, MAX_GAIN)
        if self.config.around:
            kept = PruneSet.parse(self.config.around).gates(*gates.shape)
            gates = np.where(kept == 1, gates, kept)
        return PruneSet.from_gates(gates)

    def most_closed(self, most: int) -> tuple[int, ...]:
        """At most so many heads (flat ids) of the smallest gates below 1, in ascending order of their ids."""
        flat = self.gates.ravel()
        return tuple(sorted(int(head) for head in np.argsort(flat, kind="stable")[:most] if flat[head] < 1))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        moved = np.abs(self.gates - 1)
        names = ("gap_relative", "text_nats", "last_word_nats", "paragraph_nats")
        return {
            "config": asdict(self.config),
            "prune_set": self.at(1.0).format(),
            "heads": int(self.gates.size),
            "moved_by_more_than_a_fifth": int((moved > 0.2).sum()),
            "largest_move": float(moved.max()),
            "root_mean_squared_move": float(np.sqrt((moved**2).mean())),
            "base_gap": self.base_gap,
            "words": self.words,
            "steps": len(self.losses),
            "gates_of_step": self.at_step,
            "curve": [
                {"step": i + 1, **dict(zip(names, row, strict=False))} for i, row in enumerate(self.losses.tolist())
            ],
            "unseen_curve": [{"step": int(step), "gap_relative": relative} for step, relative in self.held.tolist()],
            "provenance": self.provenance,
        }


def axes_of(bias: BiasConfig) -> tuple[BiasConfig, ...]:
    """The gaps that fall: of the axis that is named, after shared contexts also that of its next word; or of every one
    of `defaults.AXES` for "all".
    """
    if bias.axis != defaults.ALL_AXES:
        return (bias, replace(bias, steps=1, contexts=None)) if bias.contexts else (bias,)
    return tuple(replace(bias, axis=axis) for axis in defaults.AXES)


def gains_key(model_id: ModelId, bias: BiasConfig, text: TextConfig, config: GainsConfig) -> dict[str, Any]:
    """Everything that shapes the gates, for the store."""
    words = passages("valid", config.pool, config.seed).digest if config.passages else ""
    told = {name: value for name, value in asdict(config).items() if LATER.get(name, ...) != value}
    more: dict[str, Any] = {}
    if config.paragraphs:
        more["paragraphs"] = ppl_key(paragraphs_of(text), model_id)
    first, *others = axes_of(bias)
    if config.fresh:
        more["pool"] = " ".join(one.pool().digest[:16] for one in (first, *others))
    if bias.axis == defaults.ALL_AXES:
        more |= {"axis": _named(bias), "prompts": " ".join(b.prompts().digest[:16] for b in (first, *others))}
    return {
        **result_key(first, model_id),
        "gains": told,
        "text": ppl_key(text, model_id),
        "passages": words,
        **PAIRED,
        **more,
    }


def course_key(model_id: ModelId, bias: BiasConfig, text: TextConfig, config: GainsConfig) -> dict[str, Any]:
    """Everything that shapes the way that gates go, however far."""
    key = gains_key(model_id, bias, text, config)
    del key["gains"]["steps"]
    if not config.patience:  # which looks at the mean on the way
        key["gains"].pop("average", None)
    return key


def _named(bias: BiasConfig) -> str:
    return bias.axis + (f", {bias.cell}, division {bias.division or 0}" if bias.cell else "")


def learn(
    lm: LanguageModel,
    bias: BiasConfig,
    text: TextConfig,
    config: GainsConfig,
    store: Store,
    progress: Report | None = None,
) -> Gains:
    """Learn a gate for every head; stored after every step.

    A stopped run goes on, and so does one of fewer steps that is asked for more; the first steps of a longer one, ended
    or not, are taken as they are.

    Parameters
    ----------
    bias, text : validation prompts (expected measure) and text that steps are drawn from; of the axis "all" those of
        every axis of `defaults.AXES`, whose relative gaps fall together.

    Raises
    ------
    InputError
        The prompts are not validation prompts, show no gap in this reading, cannot be divided although the config asks
        for it, or are measured by sampling or after contexts; as many heads are to be removed as there are.
    """
    if bias.split != "valid":
        raise InputError(f"Gates are learned on validation prompts, not on '{bias.split}': choose that split.")
    key = gains_key(lm.id, bias, text, config)

    def work() -> Any:
        started = time.monotonic()
        parts = store.parts(KIND, course_key(lm.id, bias, text, config))
        course = Course(lm, axes_of(bias), text, config, store, progress)
        course.load(parts.load("state"))
        while not course.done:
            if progress is not None:
                progress(course.step, config.steps, course.told())
            course.move()
            parts.save("state", course.state())
        arrays = {"path": np.stack(course.path).astype(np.float32), "losses": np.array(course.losses)}
        if course.held:
            arrays["held"] = np.array(course.held)
        return {
            "arrays": arrays,
            "meta": {"base_gap": course.base_gap, "provenance": provenance(lm, time.monotonic() - started)},
        }

    return store.made(KIND, key, work, read, label=f"{slug(lm.name)}--{slug(bias.axis.rsplit('/', 1)[-1])}")


def find(model_id: ModelId, bias: BiasConfig, text: TextConfig, config: GainsConfig, store: Store) -> Gains | None:
    """The stored gates; without a model."""
    return store.read(KIND, gains_key(model_id, bias, text, config), read)


def so_far(
    model_id: ModelId, bias: BiasConfig, text: TextConfig, config: GainsConfig, store: Store
) -> tuple[Floats, Floats] | None:
    """(losses, held) of a run that is not finished, as in `Gains`; None before its first step. Without a model."""
    state = store.parts(KIND, course_key(model_id, bias, text, config)).load("state")
    if state is None:
        return None
    held = state.get("held", np.zeros((0, 2)))
    return state["losses"][: config.steps], held[held[:, 0] <= config.steps]


def stored(model_id: ModelId, axis: str, reading: str, method: str, store: Store, around: bool = False) -> list[Gains]:
    """All that were learned on a whole axis with a method, in the order of their folders; without a model.

    `around`: those of heads around a set; else those of all heads.
    """
    asked = {"axis": axis} if axis == defaults.ALL_AXES else result_key(BiasConfig(axis), model_id)
    wanted = {**model_id.wanted(), "axis": asked["axis"], "split": "valid"}
    prompts = "" if asked["axis"] == axis else asked["prompts"]  # files are known by what they hold

    def fits(entry: Entry) -> bool:
        config = config_of(entry)
        kind = (config.reading, config.method, bool(config.around))
        return kind == (reading, method, around) and prompts in ("", entry.config["prompts"])

    found = (store.read(KIND, header.config, read) for header in store.find(KIND, wanted, fits))
    return [one for one in found if one is not None]


def furthest(found: Iterable[Gains]) -> Gains | None:
    """Of several gains those with cut gradients, then of most steps, then those that saw paragraphs, then of the next
    word alone, then of the lowest seed; None of none.
    """

    def order(one: Gains) -> tuple[bool, int, bool, int, int]:
        return one.config.clip > 0, len(one.losses), bool(one.config.paragraphs), -one.words, -one.config.seed

    return max(found, key=order, default=None)


def config_of(entry: Entry) -> GainsConfig:
    """What an entry was learned with."""
    return GainsConfig(**{**LATER, **entry.config["gains"]})


def read(entry: Entry) -> Gains:
    """From an entry."""
    arrays, meta = entry.arrays, entry.meta
    held = arrays.get("held", np.zeros((0, 2)))
    path = arrays["path"].astype(np.float64)
    told = meta["base_gap"], meta["provenance"]
    return Gains(config_of(entry), path, arrays["losses"], *told, held, entry.config["steps"])
