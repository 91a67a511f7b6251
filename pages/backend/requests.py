"""What jobs are asked for: a frozen dataclass for each kind of job, with everything that shapes its result.

Equal requests are one job. A request also says what it is in words, and what a demo allows of it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass, is_dataclass

from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import BUILT_IN, BUILT_IN_TITLE, ModelSpec
from fasp_core.storage.catalog import short
from fasp_core.studies.explain.plan import Plan
from pages.backend import demo

USUAL = {("first", "0"), ("within", "False"), ("choose", "mean")}  # not worth a word


class Request:
    """One piece of work, as it is asked for.

    Attributes
    ----------
    title : what is done, for people.
    spec : the model that it is done with, if any.
    """

    title: str
    spec: ModelSpec | None

    def allowed_in_demo(self, limits: demo.Demo) -> None:
        """Refuse what lies outside the limits of a demo; unless a kind says otherwise, all of it. Raises InputError."""
        raise InputError(demo.READ_ONLY)

    def check(self) -> None:
        """Refuse what this server does not do. Raises InputError."""
        if (limits := demo.current()) is not None:
            self.allowed_in_demo(limits)

    @property
    def model(self) -> str:
        """The model's name for people."""
        if self.spec is None:
            return ""
        return BUILT_IN_TITLE if self.spec.source == BUILT_IN else self.spec.source

    def settings(self) -> dict[str, str]:
        """How it is done, as names and short values; without words, which a reader may have typed."""
        said = _said(*vars(self).values()).items()
        return {
            name: value for name, value in said if value and (name, value) not in USUAL and not name.endswith("stamp")
        }


@dataclass(frozen=True)
class Load(Request):
    """Load a model."""

    spec: ModelSpec
    title = "Loading the model"

    def allowed_in_demo(self, limits: demo.Demo) -> None:
        demo.check_model(self.spec)


@dataclass(frozen=True)
class LoadScorer(Request):
    """Load the scorer that measures toxicity."""

    scorer: str
    label: str | None
    reading: str | None
    stamp: str = ""
    title = "Loading the scorer"
    spec = None


@dataclass(frozen=True)
class Measure(Request):
    """Measure a prune set against the unpruned model."""

    spec: ModelSpec
    heads: PruneSet
    config: EvalConfig
    title = "Measuring a set"

    def allowed_in_demo(self, limits: demo.Demo) -> None:
        demo.check_model(self.spec)
        demo.check_axis(self.config.bias.axis)
        demo.check_sizes(self.config, limits)


@dataclass(frozen=True)
class Score(Request):
    """Score every head."""

    spec: ModelSpec
    config: BiasConfig
    title = "Scoring every head"
    lane = "scoring"


@dataclass(frozen=True)
class OnePrompt(Request):
    """Run one prompt, of which nothing is stored."""

    spec: ModelSpec
    prompt: str
    title = "Running one prompt"

    def allowed_in_demo(self, limits: demo.Demo) -> None:
        demo.check_model(self.spec)


@dataclass(frozen=True)
class Able(Request):
    """Ask both models the same items of tasks."""

    spec: ModelSpec
    heads: PruneSet
    tasks: tuple[str, ...]
    items: int
    title = "Asking what the model can still do"

    def allowed_in_demo(self, limits: demo.Demo) -> None:
        demo.check_model(self.spec)
        if self.items > limits.task_items:
            raise InputError(f"A demo asks at most {limits.task_items} items of each task: choose fewer.")

    def settings(self) -> dict[str, str]:
        return super().settings() | {"tasks": ", ".join(self.tasks), "items of each": f"{self.items:,}"}


@dataclass(frozen=True)
class Explain(Request):
    """Split what a set does among its heads."""

    spec: ModelSpec
    heads: PruneSet
    config: EvalConfig
    reading: str
    title = "Splitting a change among heads"

    @property
    def plan(self) -> Plan:
        """What is split. InputError if it cannot be."""
        return Plan(self.heads, self.config.bias, self.config.text, self.reading)

    def allowed_in_demo(self, limits: demo.Demo) -> None:
        Measure(self.spec, self.heads, self.config).allowed_in_demo(limits)


@dataclass(frozen=True)
class HeadWrites(Request):
    """Read what the heads of a layer write straight to the logits."""

    spec: ModelSpec
    bias: BiasConfig
    layer: int
    title = "Reading what heads write"

    def allowed_in_demo(self, limits: demo.Demo) -> None:
        Measure(self.spec, PruneSet(), EvalConfig(self.bias)).allowed_in_demo(limits)


@dataclass(frozen=True)
class Gather(Request):
    """Read all that is stored of a model on an axis, and resample it."""

    spec: ModelSpec
    axis: str
    reading: str
    title = "Reading what was measured"

    def allowed_in_demo(self, limits: demo.Demo) -> None:
        demo.check_model(self.spec)
        demo.check_axis(self.axis)


@dataclass(frozen=True)
class Experiment(Request):
    """Many measurements that answer one question; `parts` is all that shapes the answer beside the model."""

    spec: ModelSpec
    title: str
    parts: tuple[Hashable, ...]
    lane = "experiments"


def _said(*parts: Hashable) -> dict[str, str]:
    said: dict[str, str] = {}
    for part in parts:
        if isinstance(part, tuple):
            said |= _said(*part)
        elif isinstance(part, ModelSpec):
            begins = "" if part.bos == "auto" else part.bos
            said |= {"precision": part.dtype, "device": part.device, "beginning token": begins}
            said |= {} if part.ablation == ModelSpec().ablation else {"pruned heads become": part.ablation}
        elif isinstance(part, PruneSet):
            said["removed"] = _set(part)
        elif isinstance(part, EvalConfig):
            said |= short(asdict(part))
            said["tokens of text"] = said.pop("tokens", "")
        elif is_dataclass(part) and not isinstance(part, type):
            said |= short({name: value for name, value in asdict(part).items() if name != "spec"})
    return said


def _set(heads: PruneSet) -> str:
    text = heads.format()
    if not text:
        return "nothing"
    if len(text) <= 60:
        return text
    return f"{len(heads.heads)} heads" + f", {heads.others_told()}" * bool(heads.others)
