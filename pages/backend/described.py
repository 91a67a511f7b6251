"""What a job is, in words: read from its key, which holds everything that shapes the result."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import asdict, dataclass, is_dataclass

from fasp_core.evaluation import EvalConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import BUILT_IN, BUILT_IN_TITLE, ModelSpec
from fasp_core.storage.catalog import short

EXPERIMENTS = {
    "search": "Joint search",
    "compare": "Comparison of methods",
    "claim": "Claim on test prompts",
    "transfer": "Transfer between axes",
    "additivity": "Do effects add up?",
    "robustness": "Other measures of bias",
    "contexts": "Contexts",
    "audit": "Audit",
    "looking": "Running one prompt",
}


@dataclass(frozen=True)
class Described:
    """A job for people: what is done, with which model, and how."""

    what: str
    model: str
    settings: dict[str, str]


def described(key: Hashable) -> Described:
    """The work behind a key; of an unknown kind only what can be read from it."""
    parts = list(_parts(key))
    spec = next((found for part in parts if isinstance(found := getattr(part, "spec", part), ModelSpec)), None)
    model = "" if spec is None else BUILT_IN_TITLE if spec.source == BUILT_IN else spec.source
    settings: dict[str, str] = {} if spec is None else {"precision": spec.dtype, "device": spec.device}
    if spec is not None and spec.bos != "auto":
        settings["beginning token"] = spec.bos
    for part in parts:
        if isinstance(part, PruneSet):
            settings["removed"] = _set(part)
        elif isinstance(part, EvalConfig):
            settings |= short(asdict(part))
            settings["tokens of text"] = settings.pop("tokens", "")
        elif is_dataclass(part) and not isinstance(part, ModelSpec | type):
            told = asdict(part)
            told.pop("spec", None)
            told.pop("prompt", None)  # what one reader typed is not for the others
            settings |= short(told)
    return Described(_what(parts), model, {name: value for name, value in settings.items() if value})


def _what(parts: list[Hashable]) -> str:
    if "load" in parts:
        return "Loading the model"
    if "scorer" in parts:
        return "Loading the scorer"
    if any(isinstance(part, EvalConfig) for part in parts):
        return "Measuring a set"
    name = next((part for part in parts if isinstance(part, str)), None)
    if name is None and any(isinstance(part, BiasConfig) for part in parts):
        return "Scoring every head"
    if name is None:  # a plan alone: it is named by the experiment that it belongs to
        plans = [type(part).__module__ for part in parts if is_dataclass(part) and not isinstance(part, ModelSpec)]
        name = plans[0].rsplit(".", 1)[-1] if plans else None
    return EXPERIMENTS.get(name or "", (name or "work").capitalize())


def _parts(key: Hashable) -> Iterator[Hashable]:
    if isinstance(key, tuple):
        for part in key:
            yield from _parts(part)
    else:
        yield key


def _set(heads: PruneSet) -> str:
    text = heads.format()
    if not text:
        return "nothing"
    return text if len(text) <= 60 else f"{len(heads.heads)} heads, {len(heads.neurons)} neurons"
