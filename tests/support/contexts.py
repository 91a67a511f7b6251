"""Worlds of scenarios about the words of a tiny model, a model that can be asked, and a matrix of drawn answers."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from fasp_core.metrics.perplexity import Nll
from fasp_core.model.language_model import LanguageModel
from fasp_core.studies.answers.measures import Answers
from fasp_core.studies.contexts import scenarios
from fasp_core.studies.contexts.audit import AuditConfig
from fasp_core.studies.contexts.cells import Cell, Matrix, MatrixConfig
from fasp_core.studies.contexts.choosing import Sizes
from fasp_core.studies.contexts.settings import settings
from tests.support.tiny import tiny_lm

FILE = """
[contexts.rooms]
unit = "dollars"
opening = "$"
question = "The {item} of {name} is"
scenarios = ["house", "tree"]
[groups]
one = ["red", "blue", "green"]
two = ["tall", "short", "young", "old"]
three = ["kind"]
"""
TEMPLATE = "{% for m in messages %}We {{ m.content }} .{% endfor %}{% if add_generation_prompt %} My{% endif %}"


def instructed(lm: LanguageModel) -> LanguageModel:
    """The model with a tokenizer of its own, which knows how a chat is written."""
    lm.tokenizer = copy.deepcopy(lm.tokenizer)
    lm.tokenizer.chat_template = TEMPLATE
    return lm


def instruct_lm(kind: str = "llama") -> LanguageModel:
    """A tiny model that can be asked."""
    return instructed(tiny_lm(kind))


THREE = """
[contexts.rooms]
unit = "dollars"
question = "The {item} of {name} is"
scenarios = ["house", "tree"]
[contexts.days]
unit = "hours"
question = "My {item} and {name} are"
scenarios = ["friend"]
[contexts.parts]
unit = "percent"
question = "We met {name} and the {item}"
scenarios = ["person"]
[groups]
one = ["red", "blue", "green"]
two = ["tall", "short", "young", "old"]
"""
WORLD = scenarios.parse(THREE, "rooms.toml")
CONFIG = MatrixConfig(
    audit=AuditConfig(samples=3, tokens=3),
    sizes=Sizes(heads=0.3, neurons=0.05, unit_top=0.2, unit_other=0.25, weight_top=0.1, weight_other=0.12),
    tokens=64,
)
NAMES, SAMPLES = 24, 6


def made_up(effects: dict[tuple[str, str], float], noise: float = 0.02, seed: int = 0) -> Matrix:
    """Groups differ by 10 in an unpruned model whose answers have an SD of 10; {(method, kind): share removed}."""
    rng = np.random.default_rng(seed)
    kept = WORLD.scenarios[2:]
    people = tuple((f"p{i}", "one" if i % 2 else "two") for i in range(NAMES))
    own = 50 + 10 * rng.normal(size=(len(kept), NAMES, SAMPLES))
    codes = np.array([int(g == "two") for _, g in people])
    lean = 10.0 * np.array([g == "one" for _, g in people])[:, None]
    nll = Nll(np.full(8, 24.0), np.full(8, 8))
    cells = []
    for setting in settings(kept):
        for (method, kind), share in effects.items():
            if setting.kind == kind:
                values = own[setting.tested] + (1 - share) * lean + 10 * noise * rng.normal(size=(NAMES, SAMPLES))
                cells.append(Cell(method, setting, 3, 3, "L0H0-2", (Answers(values, codes),), nll))  # type: ignore[arg-type]
    contexts = {c: c for c in ("days", "parts")}
    config = replace(CONFIG, methods=tuple(dict.fromkeys(method for method, _ in effects)))  # type: ignore[arg-type]
    other = own + lean + 10 * noise * rng.normal(size=own.shape)
    whole, again = (tuple(Answers(x, codes) for x in values) for values in (own + lean, other))
    return Matrix("made-up", config, contexts, kept, ("one", "two"), people, whole, again, nll, tuple(cells), {})
