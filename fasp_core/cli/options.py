"""Options that several commands share, in the groups in which they are taken, and what they stand for.

Everything is looked up and checked before a model is loaded. torch takes seconds to import, so it is imported late.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fasp_core import defaults
from fasp_core.console import log
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.data.text import TextConfig
    from fasp_core.heads.prune_files import PruneFile
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.model.identity import ModelId
    from fasp_core.model.language_model import LanguageModel
    from fasp_core.model.spec import ModelSpec
    from fasp_core.storage.store import Store
    from fasp_core.studies.compare.limits import Limits

FIRST_AXES = ("race_ethnicity",)  # of most studies where none is named
WINDOW = 512  # tokens, where the model takes as many and no other number is named
READ_BY = {  # measures that read an option of toxicity; the others are read by all
    "steps": ("expected", "written"),
    "contexts": ("expected",),
    "samples": ("written", "sampled"),
    "length": ("sampled",),
    "scored": ("sampled",),
}

Alpha = Annotated[float, typer.Option(help="Share of all heads to remove.")]
Axis = Annotated[str, typer.Option(help="A HolisticBias axis, such as gender_and_sex, or a CSV file (text,group).")]
Axes = Annotated[list[str] | None, typer.Option("--axis", help="An axis, or a CSV file; may be given more than once.")]
Cache = Annotated[Path | None, typer.Option(help="Folder of stored results; else FASP_CACHE, else cache/.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, mps, or spread: over all GPUs, and main memory if need be.")
]
Dtype = Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Precision of the weights.")]
Gamma = Annotated[float, typer.Option(help="Share of all heads that fasp keeps as critical.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
MaxPpl = Annotated[float, typer.Option(help="Rise of validation perplexity, at most: .1 is 10%.")]
MaxLambadaPoints = Annotated[
    float | None, typer.Option(help="Right answers lost on LAMBADA, at most, in points, such as 2.")
]
MaxLambadaNats = Annotated[
    float | None, typer.Option(help="Rise of the negative log-likelihood of LAMBADA's last word, at most, such as .1.")
]
MaxTaskPoints = Annotated[
    float | None, typer.Option(help="Points lost in the mean accuracy of LAMBADA, ARC-easy and PIQA, at most.")
]
LimitItems = Annotated[
    int | None,
    typer.Option(help=f"Items of each task that these are measured on, a side; else {defaults.COST_ITEMS}."),
]
MethodName = Literal["fasp", "magnitude", "gradient", "ppl-only", "bias-only", "random"]
Protect = Annotated[
    Literal["perplexity", "task", "worse"],
    typer.Option(help="What heads are critical by: perplexity, LAMBADA's last words (task), or the worse of the two."),
]
Prompts = Annotated[int, typer.Option("--prompts", help="At least this many, the same number from every group.")]
Reading = Annotated[
    Literal["neutral", "counted"], typer.Option(help="Identity terms masked or counted, in scores and choice.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(envvar="FASP_SCHEDULER", help="Address of a Dask cluster that runs it, such as tcp://10.0.0.5:8786."),
]
Split = Annotated[Literal["valid", "test", "all"], typer.Option(help="valid: to choose on; test: only to measure.")]
TaskItems = Annotated[
    int | None,
    typer.Option("--items", help=f"Of each task (--utility, --methods); {defaults.TASK_ITEMS} unless told."),
]
ScoredPrompts = Annotated[int, typer.Option(help="Prompts of the stored scores.")]
ScoredTokens = Annotated[int, typer.Option(help="Tokens of the stored perplexity scores.")]
Tested = Annotated[int | None, typer.Option("--prompts", help="Test prompts of each axis, at least.")]
Tokens = Annotated[int, typer.Option(help="Tokens of the text for perplexity.")]
Window = Annotated[
    int | None, typer.Option(help="Tokens of a window of that text; else 512, or as many as the model takes.")
]
Winsorise = Annotated[float, typer.Option(help="Share of the answers at either end that is moved inwards.")]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Where results are kept."""

    cache: Cache = None

    @cached_property
    def store(self) -> Store:
        from fasp_core.storage.store import Store

        return Store(self.cache)


@dataclass(frozen=True, kw_only=True)
class Weights(Kept):
    """A model by its name, how its weights are held, and where its results are kept."""

    model: Annotated[
        str, typer.Option(help="built-in, a hub id (org/name@revision/folder), a local folder or a .gguf file.")
    ] = "built-in"
    dtype: Dtype = "float32"
    device: Device = "auto"
    ablation: Annotated[
        str,
        typer.Option(
            help="What a head becomes where it is taken out: zero, mean (its mean output over a calibration text), or "
            "resample (its output at one token of that text; resample-7 is another draw)."
        ),
    ] = "zero"

    @cached_property
    def spec(self) -> ModelSpec:
        """The model that is meant; the device is looked up."""
        from fasp_core.model.devices import passed_over, pick_device
        from fasp_core.model.spec import ModelSpec

        pick_device(self.device)
        if (note := passed_over(self.device)) is not None:
            log(note)
        begun = getattr(self, "bos", "auto")
        found = ModelSpec(self.model, self.dtype, self.device, begun, ablation=self.ablation)
        if self.ablation != "zero":
            log(f"Heads are taken out by '{self.ablation}', not by zero.")
        return found

    @cached_property
    def lm(self) -> LanguageModel:
        """Loaded when it is first asked for."""
        return load_model(self.spec, self.cache)

    @cached_property
    def known_id(self) -> ModelId | None:
        """What is known of the weights without loading them."""
        from fasp_core.model.loading import known_id

        return known_id(self.spec)

    @cached_property
    def model_id(self) -> ModelId:
        """The same, if need be by loading them."""
        return self.known_id or self.lm.id


@dataclass(frozen=True, kw_only=True)
class Model(Weights):
    """The same of a model that reads prompts and text."""

    bos: Annotated[
        Literal["auto", "yes", "no"],
        typer.Option(help="A beginning token before prompts and windows of text; auto: as the model's tokenizer does."),
    ] = "auto"

    def named(self, axis: str = "") -> str:
        """Model, and axis if there is one, as options of a command."""
        begun = () if self.spec.bos == "auto" else ("--bos", self.spec.bos)
        taken_out = () if self.ablation == "zero" else ("--ablation", self.ablation)
        of = ("--axis", axis) if axis else ()
        return shlex.join(["--model", self.spec.source, *begun, *taken_out, *of])


@dataclass(frozen=True, kw_only=True)
class Toxicity:
    """What the gap is measured by, the prompts aside."""

    axis: Axis
    measure: Annotated[
        Literal["expected", "written", "sampled"],
        typer.Option(help="Toxicity of the next word, of each word that is written, or of whole continuations."),
    ] = "expected"
    steps: Annotated[
        int, typer.Option(help="Positions that are looked at (expected, written measure); 1 is the next word.")
    ] = 1
    contexts: Annotated[
        int | None, typer.Option(help="Contexts that groups share (expected measure, more than 1 step); else none is.")
    ] = None
    samples: Annotated[int, typer.Option(help="Continuations a prompt (written, sampled measure).")] = 1
    length: Annotated[int, typer.Option(help="Longest continuation, in tokens (sampled measure).")] = 20
    scorer: Annotated[
        str, typer.Option(help="offline, or a toxicity classifier of the hub (org/name@revision) or folder.")
    ] = "offline"
    label: Annotated[str | None, typer.Option(help="Which label of the scorer is read; else toxicity or toxic.")] = None
    scorer_reading: Annotated[
        Literal["sigmoid", "softmax"] | None,
        typer.Option(help="Labels of the classifier independent (sigmoid) or competing; else as its config says."),
    ] = None
    scored: Annotated[
        Literal["continuation", "prompt+continuation"], typer.Option(help="What the scorer reads (sampled measure).")
    ] = "continuation"
    seed: Annotated[int, typer.Option(help="Of the choice of prompts and of sampling.")] = 0
    cell: Annotated[
        Literal["", "seen", "new templates", "new descriptors", "new both"],
        typer.Option(help="Prompts of one cell of a division of templates and descriptors into halves; else of all."),
    ] = ""
    division: Annotated[int | None, typer.Option(help="Which division, by number (with --cell); else 0.")] = None

    def on(self, split: str, prompts: int) -> BiasConfig:
        """The config, its prompts and its scorer looked up before a model is loaded.

        Raises InputError for an option that the measure does not read, and as `BiasConfig`.
        """
        for option in fields(self):
            measures = READ_BY.get(option.name, (self.measure,))
            if self.measure not in measures and getattr(self, option.name) != option.default:
                raise InputError(
                    f"The {self.measure} measure does not read --{option.name}: leave it out, or add --measure "
                    f"{' or '.join(measures)}."
                )
        from fasp_core.forward.sampling import GenerationConfig
        from fasp_core.metrics.meters import BiasConfig, scorer_of

        config = BiasConfig(
            self.axis,
            split,
            prompts,
            self.seed,
            self.measure,
            self.scorer,
            self.label,
            self.scored,
            GenerationConfig(self.samples, self.length, seed=self.seed),
            self.steps,
            self.scorer_reading,
            self.contexts,
            self.cell,
            self.division,
        )
        config.prompts()
        for note in getattr(scorer_of(config), "notes", ()):
            log(note)
        return config


@dataclass(frozen=True, kw_only=True)
class Text:
    """The text for perplexity, the number of tokens aside."""

    text: Annotated[
        str,
        typer.Option(help="For perplexity: bold, paragraphs (or paragraphs-test), wikitext-2 (hub) or a text file."),
    ] = "bold"
    window: Window = None

    def of(self, tokens: int) -> TextConfig:
        """The text, looked up; in windows of 512 tokens where no other number is named."""
        from fasp_core.data.text import TextConfig, load_text

        size = WINDOW if self.window is None else self.window
        config = TextConfig(self.text, tokens, size, stride=size)
        load_text(self.text)
        return config

    def fitted(self, config: TextConfig, model_id: ModelId) -> TextConfig:
        """The text in windows that fit the model. InputError as `window_within`."""
        from fasp_core.data.text import fitting

        window_within(self.window, model_id.longest, f" after {model_id.bos}" if model_id.begun else "")
        return fitting(config, model_id.longest)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which parts are removed, as a text or from a file."""

    heads: Annotated[
        str | None, typer.Option(help="Parts to remove or to scale, such as L0H3,L2H1-4,L5N17,L6H0*0.4.")
    ] = None
    prune_set: Annotated[Path | None, typer.Option(help="File of select --out, or a text file of parts.")] = None

    def read(self) -> PruneFile | None:
        """What is named; None if nothing is. InputError for both options, no parts, or a file that cannot be used."""
        from fasp_core.heads.prune_files import PruneFile
        from fasp_core.heads.prune_set import PruneSet
        from fasp_core.scoring.score_files import read_prune_set

        if self.heads is not None and self.prune_set is not None:
            raise InputError("What is removed is said once: give either --heads or --prune-set.")
        if self.prune_set is not None:
            return read_prune_set(self.prune_set)
        return None if self.heads is None else PruneFile(PruneSet.parse(self.heads))

    def required(self) -> PruneFile:
        """The same where there has to be a set."""
        found = self.read()
        if found is None:
            raise InputError("It is not said what is removed: give either --heads or --prune-set.")
        return found

    def check(self, found: PruneFile, given: Weights) -> None:
        """That it is a set of this model, the built-in one not being loaded for it. InputError if it is not."""
        from fasp_core.heads.prune_files import check
        from fasp_core.model.spec import BUILT_IN, BUILT_IN_SHAPE

        shape = BUILT_IN_SHAPE if given.model == BUILT_IN else (given.lm.n_layers, given.lm.n_heads)
        check(found, shape, str(self.prune_set or "--heads"))
        if found.ablation not in (None, given.ablation):
            log(f"This set was learned with heads taken out by '{found.ablation}': --ablation says how they are now.")


@dataclass(frozen=True, kw_only=True)
class MoreLimits:
    """What a choice may cost beside perplexity."""

    max_lambada_points: MaxLambadaPoints = None
    max_lambada_nats: MaxLambadaNats = None
    max_task_points: MaxTaskPoints = None
    limit_items: LimitItems = None

    def with_ppl(self, max_ppl: float) -> Limits:
        """All limits. InputError if one is none."""
        from fasp_core.studies.compare.limits import Limits

        items = defaults.COST_ITEMS if self.limit_items is None else self.limit_items
        most = self.max_lambada_points, self.max_lambada_nats, self.max_task_points
        found = Limits(limit(max_ppl), *most, items=items)
        if self.limit_items is not None and not found.beyond_ppl:
            raise InputError(
                "--limit-items says on how many items tasks are limited: add such a limit, or leave it out."
            )
        return found


@dataclass(frozen=True, kw_only=True)
class ManualEdits:
    """What a method is told beforehand."""

    force: Annotated[str, typer.Option(help="Heads to remove whatever the method finds, such as L0H3.")] = ""
    lock: Annotated[str, typer.Option(help="Heads never to remove.")] = ""

    def flat(self, n_layers: int, n_heads: int) -> tuple[frozenset[int], frozenset[int]]:
        """Flat ids of the heads to remove and of those to keep. InputError as `score_files.heads_of`."""
        from fasp_core.scoring.score_files import heads_of

        return heads_of(self.force, n_layers, n_heads), heads_of(self.lock, n_layers, n_heads)


def window_within(window: int | None, longest: int | None, after: str = "") -> int:
    """The window that was named, else 512 tokens or as many as a model takes.

    Raises
    ------
    InputError
        A window was named, and the model does not take so many tokens.
    """
    if window is None or longest is None:
        return window or min(WINDOW, longest or WINDOW)
    if window > longest:
        raise InputError(
            f"Windows of {window:,} tokens do not fit: this model takes at most {longest:,}{after}. Name no more with "
            "--window, or leave it out."
        )
    return window


def named(**settings: Any) -> dict[str, Any]:
    """What was named; the rest is as the configuration has it."""
    return {name: value for name, value in settings.items() if value is not None}


def limit(max_ppl: float) -> float:
    """A limit on the rise of perplexity. InputError if it is none."""
    if not 0 < max_ppl < 10:
        raise InputError(f"A rise of perplexity of {max_ppl:g} is no limit: give --max-ppl .1 for at most 10%.")
    return max_ppl


def items_of(utility: bool, items: int | None) -> int:
    """How many items of each task --utility asks, 0 without it. InputError if that is no number, or asks nothing."""
    if not utility and items is not None:
        raise InputError("--items says how many items of each task are asked: add --utility.")
    if items is not None and items < 1:
        raise InputError(f"{items} items measure nothing: ask for 1 or more.")
    return (items or defaults.TASK_ITEMS) if utility else 0


def load_model(spec: ModelSpec, cache: Path | None) -> LanguageModel:
    """Load it, and say so where that takes longer than usual."""
    from fasp_core.model import loading as m

    if spec.source == m.BUILT_IN and not m.built_in_converted(cache):
        log("The built-in model is converted at first use: about half a minute.")
    lm = m.load(spec, cache)
    for note in lm.notes:
        log(note)
    if spec.ablation == "zero":
        return lm
    from fasp_core.metrics.calibration import ready
    from fasp_core.storage.store import Store

    return ready(lm, Store(cache))
