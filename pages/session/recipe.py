"""What a view of the app is made of, as plain text: what a link carries, and what undoing goes back to.

A recipe holds the settings of the sidebar and what was set by hand; scores and settings together are the set. Here are
its fields, how each is written and read, and the steps that can be undone. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from urllib.parse import urlencode

from fasp_core.data.classifiers import READINGS as CLASSIFIER_READINGS
from fasp_core.data.holistic_bias import axis_names
from fasp_core.defaults import ALPHA, GAMMA, MAX_PPL, TEST_TOKENS
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import METHODS, PROTECTS
from fasp_core.metrics.expected import READINGS
from fasp_core.model.spec import ABLATIONS, BUILT_IN, DTYPES
from fasp_core.model.tokens import BEGINNINGS
from fasp_core.scoring.manual_edits import HAND
from fasp_core.studies.compare.plan import SEARCH

OWN_CSV = "my own prompts (CSV)"
GAINS = "gains"  # the method that scales heads by what was learned
ALL_METHODS = (*METHODS, SEARCH, GAINS, HAND)
PROMPTS, TOKENS = (90, 210, 450, 900), (512, 1024, 2048, 4096)
READING_TITLES = {"neutral": "identity terms masked", "counted": "identity terms scored"}
BOS_TITLES = {"auto": "automatic", "yes": "yes", "no": "no"}
ABLATION_TITLES = {"zero": "zero", "mean": "its mean output"}  # drawn ones cannot be exported
PROTECT_TITLES = {"perplexity": "perplexity", "task": "last words (LAMBADA)", "worse": "the worse of the two"}
SPLIT_TITLES = {"valid": "validation", "test": "test"}
METHOD_TITLES = {
    "fasp": "FASP",
    "magnitude": "smallest weights",
    "gradient": "smallest gradients",
    "ppl-only": "perplexity only",
    "bias-only": "bias only",
    "random": "random",
    SEARCH: "joint search",
    GAINS: "learned gains",
    HAND: "by hand only",
}
OFFLINE = "offline"  # the scorer that comes with the program
LONGEST = 30_000  # characters of a value in a link: some thousand neurons by name
LONGEST_LINK = 60_000  # characters of a whole link: servers end what a browser asks for at 65,536
MOST = 200_000  # parts that ranges in a link may name: a short text must not fill the memory
STEPS = 200  # that can be undone


@dataclass(frozen=True)
class Recipe:
    """All that a link carries. Field names are the names in the address, and the keys of the widgets.

    `bos` says whether texts begin with a token of the tokenizer's; `ablation` what heads that are taken out become;
    `prune` and `keep` are heads set by hand, written as L0H3,L2H1-4; `limit` is in percent, of the joint search alone;
    `lambada_points` and `task_points` are the most that the search and the comparison of methods may lose, 0 being no
    limit; `protect` is what FASP's heads are critical by.
    """

    model: str = BUILT_IN
    dtype: str = DTYPES[0]
    bos: str = BEGINNINGS[0]
    ablation: str = ABLATIONS[0]
    axis: str = "race_ethnicity"
    reading: str = READINGS[0]
    method: str = "fasp"
    gamma: float = GAMMA
    alpha: float = ALPHA
    protect: str = PROTECTS[0]
    limit: int = round(100 * MAX_PPL)
    lambada_points: float = 0.0
    task_points: float = 0.0
    seed: int = 0
    neurons: str = ""
    strength: float = 1.0  # of learned gains
    scorer: str = OFFLINE
    label: str = ""
    scorer_reading: str = ""
    prune: str = ""
    keep: str = ""
    split: str = "valid"
    prompts: int = 210
    tokens: int = TEST_TOKENS

    def of_set(self) -> Recipe:
        """Without what only says how a set is measured."""
        plain = Recipe()
        return replace(self, **{name: getattr(plain, name) for name in MEASURING})

    def query(self) -> dict[str, str]:
        """As the address has it: what is as at first is left out."""
        plain, out = Recipe(), {}
        for field in fields(Recipe):
            value = getattr(self, field.name)
            if value != getattr(plain, field.name):
                out[field.name] = f"{value:.6g}" if isinstance(value, float) else str(value)
        return out

    def text(self) -> str:
        """The method in a few words."""
        if self.method == HAND:
            return "by hand"
        if self.method == GAINS:
            return f"learned gains, strength {self.strength:g}" + (", by hand" if self.prune or self.keep else "")
        said = METHOD_TITLES[self.method]
        said += f", γ {self.gamma:g}" if self.method == "fasp" else ""
        if self.method == "fasp" and self.protect != PROTECTS[0]:
            said += f" by {PROTECT_TITLES[self.protect]}"
        said += f", seed {self.seed}" if self.method in ("random", SEARCH) else ""
        return f"{said}, α {self.alpha:g}" + (", by hand" if self.prune or self.keep else "")


MEASURING = ("split", "prompts", "tokens")
NAMES = tuple(field.name for field in fields(Recipe))


def _one_of(options: tuple[str, ...], titles: Mapping[str, str]) -> Callable[[str], str]:
    """An option by its name or, as older links have it, by its title."""
    named = {**{title: name for name, title in titles.items()}, **{name: name for name in options}}
    return lambda text: named[text]


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = round(float(text), 6)
        if not low <= value <= high:  # also refuses NaN
            raise ValueError(text)
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return read


def _some(options: tuple[int, ...]) -> Callable[[str], int]:
    return lambda text: {str(option): option for option in options}[text]


def _parts(kind: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        spans = re.findall(r"(\d+)-(\d+)", text)
        if sum(int(last) - int(first) for first, last in spans) > MOST:
            raise ValueError(text)
        found = PruneSet.parse(text)
        if len(found.others) if kind == "heads" else found.heads:
            raise ValueError(text)
        return found.format()

    return read


def _model(text: str) -> str:
    if not text.strip() or len(text) > 300 or not text.isprintable():
        raise ValueError(text)
    return text.strip()


def _axes() -> tuple[str, ...]:
    return (*axis_names(), OWN_CSV)


_READ: dict[str, Callable[[str], object]] = {
    "model": _model,
    "dtype": _one_of(DTYPES, {}),
    "bos": _one_of(BEGINNINGS, {}),
    "ablation": _one_of(tuple(ABLATION_TITLES), {}),
    "axis": lambda text: _one_of(_axes(), {name: name.replace("_", " ") for name in axis_names()})(text),
    "reading": _one_of(READINGS, READING_TITLES),
    "method": _one_of(ALL_METHODS, METHOD_TITLES),
    "gamma": _number(0, 1),
    "alpha": _number(0, 0.4),
    "protect": _one_of(PROTECTS, PROTECT_TITLES),
    "limit": _whole(1, 30),
    "lambada_points": _number(0, 100),
    "task_points": _number(0, 100),
    "seed": _whole(0, 999),
    "neurons": _parts("neurons"),
    "strength": _number(0, 1),
    "scorer": _model,
    "label": _model,
    "scorer_reading": _one_of(CLASSIFIER_READINGS, {}),
    "prune": _parts("heads"),
    "keep": _parts("heads"),
    "split": _one_of(tuple(SPLIT_TITLES), SPLIT_TITLES),
    "prompts": _some(PROMPTS),
    "tokens": _some(TOKENS),
}


def fits(query: Mapping[str, str]) -> bool:
    """Whether a link with these fields can be opened again."""
    return max(map(len, query.values()), default=0) <= LONGEST and len(urlencode(query)) <= LONGEST_LINK


def read(query: Mapping[str, str]) -> tuple[dict[str, object], list[str]]:
    """Fields that an address names, and, as `name=value`, those that cannot be read; other names are not ours."""
    found: dict[str, object] = {}
    ignored = []
    for name in NAMES:
        if name not in query:
            continue
        try:
            if len(query[name]) > LONGEST:
                raise ValueError(name)
            found[name] = _READ[name](query[name])
        except (ValueError, KeyError, InputError):
            shown = " ".join(query[name][:200].split())  # on one line
            shown = shown if len(shown) <= 40 else shown[:39] + "…"
            ignored.append(f"{name}={shown}")
    return found, ignored


@dataclass(frozen=True)
class Trail:
    """Steps that can be undone and done again. `now` is None before the first."""

    past: tuple[Recipe, ...] = ()
    now: Recipe | None = None
    future: tuple[Recipe, ...] = ()

    def moved(self, to: Recipe) -> Trail:
        """After a step; the same recipe again is none."""
        if self.now is None or to == self.now:
            return replace(self, now=to)
        return Trail((*self.past, self.now)[-STEPS:], to)

    def back(self) -> Trail:
        """After undoing; as it is where nothing can be undone."""
        if not self.past or self.now is None:
            return self
        return Trail(self.past[:-1], self.past[-1], (self.now, *self.future))

    def forth(self) -> Trail:
        """After doing again what was undone."""
        if not self.future or self.now is None:
            return self
        return Trail((*self.past, self.now), self.future[0], self.future[1:])
