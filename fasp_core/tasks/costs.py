"""What pruning costs, by name: each cost is nats and how many tokens or words they are of, before and after.

- `perplexity`: of BOLD's sentences, or of the text that is named.
- `paragraphs`: of contiguous paragraphs, whose windows do not reach from one into the next.
- `repeated`: of those tokens of the paragraphs alone that their context already held, from the same pass.
- `lambada`: of the last word of LAMBADA's passages, and how many of them the model would write.

Paragraphs and passages lie on two sides: costs are limited on "valid" when heads are chosen, and claimed on "test".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fasp_core.console import percent
from fasp_core.data.passages import PARAGRAPHS
from fasp_core.data.text import TextConfig, fitting, load_text
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import perplexity_of
from fasp_core.metrics.perplexity import Nll, PerplexityChange, perplexity_change
from fasp_core.metrics.repeated import tokens_of
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.tasks.last_words import passages
from fasp_core.tasks.paired import Paired, paired
from fasp_core.tasks.utility import answers_of
from fasp_core.typing import Report

COSTS = ("perplexity", "paragraphs", "repeated", "lambada")
TITLES = {
    "perplexity": "perplexity of sentences",
    "paragraphs": "perplexity of paragraphs",
    "repeated": "perplexity of repeated tokens",
    "lambada": "perplexity of LAMBADA's last words",
}


@dataclass(frozen=True)
class CostConfig:
    """Which costs are measured, and on how much.

    Attributes
    ----------
    names : of `COSTS`, each once.
    split : side of paragraphs and passages, "valid" or "test".
    tokens : of the paragraphs.
    items : passages of LAMBADA.
    seed : of their draw.
    text : whose perplexity `perplexity` is.
    """

    names: tuple[str, ...] = ("paragraphs", "repeated", "lambada")
    split: str = "test"
    tokens: int = 4096
    items: int = 300
    seed: int = 0
    text: TextConfig = field(default_factory=TextConfig)

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in COSTS]
        if unknown or not self.names:
            raise InputError(f"There is no cost '{', '.join(unknown)}': choose of {', '.join(COSTS)}.")
        if self.split not in PARAGRAPHS:
            raise InputError(f"Costs are measured on one side: name valid or test, not '{self.split}'.")

    @property
    def paragraphs(self) -> TextConfig:
        return TextConfig(PARAGRAPHS[self.split], self.tokens)

    def look_up(self) -> None:
        """Say so before a model is loaded if a text is not there. InputError as `passages` and `load_text`."""
        if "lambada" in self.names:
            passages(self.split, self.items, self.seed)
        if {"paragraphs", "repeated"} & set(self.names):
            load_text(self.paragraphs.source)


@dataclass(frozen=True, eq=False)
class Cost:
    """One cost of one model.

    Attributes
    ----------
    rows : nats, and how many tokens or last words they are of, by the unit of resampling.
    right : [n] of last words, whether the model would write them; else None.
    cut : passages that lost their beginning, the model taking no more.
    """

    rows: Nll
    right: np.ndarray | None = None
    cut: int = 0


@dataclass(frozen=True, eq=False)
class CostChange:
    """One cost of the unpruned and of the pruned model on the same text.

    Attributes
    ----------
    change : in nats a token (of last words: a word) and as perplexities, with a paired interval.
    accuracy : of last words, shares of right ones and their change in points; else None.
    cut : passages that lost their beginning, the model taking no more.
    """

    name: str
    split: str
    change: PerplexityChange
    accuracy: Paired | None = None
    cut: int = 0

    @property
    def unit(self) -> str:
        return "word" if self.accuracy is not None else "token"

    @property
    def said(self) -> str:
        """What may be said, in one sentence."""
        c = self.change
        low, high = c.interval
        ends = f"[{_percent(low)}, {_percent(high)}]" if math.isfinite(high) else "no interval of one block"
        if low <= 0 <= high:
            text = f"No change of the {TITLES[self.name]} is shown ({_percent(c.change_nats)} {ends})"
        else:
            text = f"The {TITLES[self.name]} {'rose' if low > 0 else 'fell'} by {_percent(c.change_nats)} {ends}"
        if self.accuracy is not None:
            least, most = self.accuracy.interval
            text += f"; {self.accuracy.points:+.1f} points right [{least:+.1f}, {most:+.1f}]"
        short = f" ({self.cut:,} of the passages lost their beginning)" if self.cut else ""
        return f"{text}, on {c.tokens:,} {self.unit}s{short}."

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready. `base`, `pruned` and `change` are nats a token (`unit`: of last words a word)."""
        c = self.change
        out: dict[str, Any] = {
            "unit": f"nats a {self.unit}",
            "direction": "lower is better",
            "split": self.split,
            "items": c.tokens,
            "cut": self.cut,
            "base": math.log(c.base),
            "pruned": math.log(c.base) + c.change_nats,
            "change": c.change_nats,
            "change_interval": list(c.interval) if math.isfinite(c.interval[0]) else None,
            "perplexity_base": c.base,
            "perplexity_pruned": c.pruned,
            "relative_change": c.relative,
            "said": self.said,
        }
        return out if self.accuracy is None else out | {"accuracy": self.accuracy.as_dict()}


def named(text: str) -> tuple[str, ...]:
    """Costs of a list with commas, each once. InputError as `CostConfig`."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    return CostConfig(found).names


def costs_of(
    lm: LanguageModel,
    prune_set: PruneSet,
    config: CostConfig,
    store: Store,
    progress: Report | None = None,
    runner: CachedRunner | None = None,
) -> dict[str, Cost]:
    """What one model costs by each name, in the order asked for; every measurement is stored."""
    paragraphs = fitting(config.paragraphs, lm.id.longest)
    found: dict[str, Cost] = {}
    for name in config.names:
        if name == "perplexity":
            text = fitting(config.text, lm.id.longest)
            found[name] = Cost(perplexity_of(lm, prune_set, text, store, progress, runner)[0])
        elif name == "lambada":
            items = passages(config.split, config.items, config.seed)
            answers = answers_of(lm, prune_set, items, config.seed, store, progress)
            nats = Nll(-answers.likelihood, np.ones(len(answers.likelihood), dtype=int))
            found[name] = Cost(nats, answers.right, answers.cut)
        elif name in ("paragraphs", "repeated"):
            tokens = tokens_of(lm, prune_set, paragraphs, store, progress, runner)
            found[name] = Cost(tokens.nll(repeated=name == "repeated"))
        else:
            raise ValueError(f"the cost '{name}' is measured nowhere")
    return found


def compared(base: dict[str, Cost], pruned: dict[str, Cost], split: str) -> tuple[CostChange, ...]:
    """Two models' costs by the same names."""
    out = []
    for name, before in base.items():
        after, accuracy = pruned[name], None
        if before.right is not None and after.right is not None:
            accuracy = paired(before.right, after.right, 0.0)
        out.append(CostChange(name, split, perplexity_change(before.rows, after.rows), accuracy, before.cut))
    return tuple(out)


def _percent(nats: float) -> str:
    return percent(math.expm1(min(nats, 700.0)))
