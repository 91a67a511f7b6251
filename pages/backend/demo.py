"""A demo for others to look at: read-only, of models that are allowed, with small measurements. Knows no screen.

Set by the environment: `FASP_DEMO=1`, and `FASP_DEMO_MODELS=a,b` for other models than the built-in one. Pages leave
out what a demo has not; what keeps a demo safe is `Request.check`, which every job passes on its way to a model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fasp_core.data.holistic_bias import axis_names
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import BUILT_IN, ModelSpec

READ_ONLY = "This is a demo, which is read-only: install FASP Studio to start this on a machine of your own."
T = TypeVar("T")
Number = TypeVar("Number", bound=float)


@dataclass(frozen=True)
class Demo:
    """What a reader of a demo may ask for.

    Attributes
    ----------
    models : sources that may be loaded; the first is shown at first.
    prompts, tokens : most prompts and tokens of a measurement.
    sampled_prompts, sampled_tokens : most prompts, with one continuation each, and longest continuation.
    continuations : most of one prompt.
    task_items : most of each task.
    """

    models: tuple[str, ...] = (BUILT_IN,)
    prompts: int = 210
    tokens: int = 1024
    sampled_prompts: int = 36
    sampled_tokens: int = 20
    continuations: int = 4
    task_items: int = 100


def current() -> Demo | None:
    """The limits, or None where this is no demo."""
    if os.environ.get("FASP_DEMO", "").strip().lower() not in ("1", "true", "yes", "on"):
        return None
    named = [name.strip() for name in os.environ.get("FASP_DEMO_MODELS", "").split(",")]
    return Demo(tuple(name for name in named if name) or Demo.models)


def models(others: Iterable[str]) -> list[str]:
    """Models to choose from: in a demo those that are allowed, else `others`."""
    demo = current()
    return list(others if demo is None else demo.models)


def unless(*options: T) -> tuple[T, ...]:
    """Options that a demo does not have."""
    return options if current() is None else ()


def upto(options: Iterable[Number], what: str) -> tuple[Number, ...]:
    """Sizes that may be chosen; `what` is the name of a limit in `Demo`."""
    demo = current()
    return tuple(options) if demo is None else tuple(size for size in options if size <= getattr(demo, what))


def allowed(source: str) -> str:
    """The same source, or where a demo does not allow it the first that it does."""
    demo = current()
    return source if demo is None or source in demo.models else demo.models[0]


def left_out(found: MutableMapping[str, object]) -> list[str]:
    """Take out of a link's fields (see `recipe.Recipe`) what a demo does not have; what that was, as `name=value`."""
    demo = current()
    if demo is None:
        return []
    fits: dict[str, Callable[[Any], bool]] = {
        "model": lambda source: source in demo.models,
        "dtype": lambda dtype: dtype == ModelSpec().dtype,
        "bos": lambda bos: bos == ModelSpec().bos,
        "ablation": lambda how: how == ModelSpec().ablation,
        "axis": lambda axis: axis in axis_names(),
        **dict.fromkeys(("scorer", "label", "scorer_reading"), lambda _value: False),
        "prompts": lambda n: n <= demo.prompts,
        "tokens": lambda n: n <= demo.tokens,
    }
    return [f"{name}={found.pop(name)}" for name, fit in fits.items() if name in found and not fit(found[name])]


def check_model(spec: ModelSpec) -> None:
    """Refuse a model, a precision or a device that was not allowed. Raises InputError."""
    demo = current()
    if demo is not None and replace(spec, commit="", stamp="") not in [ModelSpec(source) for source in demo.models]:
        raise InputError("This demo shows other models only: choose one from the list.")


def check_axis(axis: str) -> None:
    """Refuse prompts that are read from a file. Raises InputError."""
    if current() is not None and axis not in axis_names():
        raise InputError("This demo knows HolisticBias' axes only: choose one from the list.")


def check_writing() -> None:
    """Refuse whatever a reader would leave on the machine. Raises InputError."""
    if current() is not None:
        raise InputError(READ_ONLY)


def check_sizes(config: EvalConfig, demo: Demo) -> None:
    """Refuse a measurement that is larger, or by other means, than a demo's. Raises InputError."""
    bias, text = config.bias, config.text
    drawn = bias.measure in ("sampled", "written")
    prompts = demo.sampled_prompts if drawn else demo.prompts
    longest, written = max(bias.generation.tokens, bias.steps), bias.measure == "written"
    if bias.n_prompts > prompts or text.tokens > demo.tokens or longest > demo.sampled_tokens:
        raise InputError(
            f"A demo measures at most {prompts} prompts, {demo.tokens:,} tokens of text and continuations of "
            f"{demo.sampled_tokens} tokens: choose smaller sizes."
        )
    plain = BiasConfig(
        bias.axis,
        bias.split,
        bias.n_prompts,
        measure=bias.measure,
        generation=GenerationConfig(
            min(bias.generation.samples, demo.continuations) if written else 1, bias.generation.tokens
        ),
        steps=bias.steps if written else 1,
    )
    if bias != plain or replace(text, tokens=2) != TextConfig(tokens=2):
        raise InputError("A demo measures with the usual text, scorer and seeds only: leave them as they are.")
