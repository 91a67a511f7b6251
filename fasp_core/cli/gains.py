"""The commands `gains` and `repair`: gates of heads by gradients, and by least squares around a set."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Model, Parts, Reading, Text, Window
from fasp_core.cli.text import noted
from fasp_core.console import Report, number, percent, table, to_json
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.data.text import TextConfig
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.scoring.learned.gains import Gains
    from fasp_core.scoring.learned.gates import GainsConfig


PROMPTS, ALL_PROMPTS = 216, 504  # of a step: of one axis, and of seven together
WITH_CONTEXTS = 360  # half of them by themselves, half with a context
WORDS = 6  # of which the gap is lowered after shared contexts
READ_WITH = {  # options that are read beside another one alone
    "heads": "--method hard-concrete",
    "sparsity": "--method hard-concrete",
    "across": f"--axis {defaults.ALL_AXES}",
}
RATES = {"gains": 0.04, "hard-concrete": 0.2}  # of Adam: log-odds have further to go than gates


@dataclass(frozen=True, kw_only=True)
class Options:
    """What falls, what it may cost, and for how long gates are learned."""

    axis: Annotated[
        str, typer.Option(help="A HolisticBias axis, a CSV file (text,group), or all: one set of gates for seven axes.")
    ]
    reading: Reading = "neutral"
    method: Annotated[
        Literal["gains", "hard-concrete"],
        typer.Option(help="Gates from 0 to 1.5, or gates that end as 0 or 1, which removes heads."),
    ] = "gains"
    heads: Annotated[
        int, typer.Option(help="How many heads hard-concrete gates remove; 0: those whose gates are rather 0 than 1.")
    ] = 13
    around: Annotated[
        str,
        typer.Option(
            help="Heads that stay removed or scaled while the others learn to make up for them: such as L0H3,L2H1*0.4, "
            "or a file of select --out."
        ),
    ] = ""
    steps: Annotated[
        int,
        typer.Option(
            help="Steps of Adam, at most; about 15 s each with the built-in model, 30 s of hard-concrete gates."
        ),
    ] = 60
    rate: Annotated[float | None, typer.Option(help="Of Adam; else .04, and .2 of hard-concrete gates.")] = None
    max_nats: Annotated[float, typer.Option(help="What each text may cost for nothing, in nats a token.")] = 0.005
    passages: Annotated[int, typer.Option(help="Of LAMBADA in each step; 0: its last words count nothing.")] = 8
    paragraphs: Annotated[
        int, typer.Option(help="Windows of contiguous paragraphs in each step, beside one of sentences; 0: none.")
    ] = 2
    cells: Annotated[
        Literal["none", "mean", "worst"],
        typer.Option(
            help="Halve templates and descriptors anew in each step, and lower the mean gap of the four cells, or a "
            "soft maximum of them."
        ),
    ] = "none"
    across: Annotated[
        Literal["mean", "worst"],
        typer.Option(help="Of --axis all: lower the mean of the axes' relative gaps, or a soft maximum of them."),
    ] = "mean"
    step_prompts: Annotated[
        int | None,
        typer.Option(
            help=f"Prompts that a step sees, of all axes together; else {PROMPTS}, {ALL_PROMPTS} of all, and "
            f"{WITH_CONTEXTS} with --contexts, half of them after a context."
        ),
    ] = None
    patience: Annotated[
        int,
        typer.Option(
            help="Keep a third of the validation templates and descriptors apart, and stop after so many steps without "
            "a lower gap on them; 0: never."
        ),
    ] = 0
    dual: Annotated[
        float,
        typer.Option(
            help="Multipliers of the limits: how fast what a nat counts follows what steps have cost; 0: it stays."
        ),
    ] = 0.0
    average: Annotated[int, typer.Option(help="Of how many last steps the gates are the mean.")] = 10
    clip: Annotated[
        float,
        typer.Option(help="Cut a step's gradient to the length that this share of those so far did not exceed; 0: no."),
    ] = 0.3
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="In which the model runs in a step: bfloat16 is faster where a processor or GPU has it."),
    ] = "float32"
    keep: Annotated[float, typer.Option(help="What the gates' mean squared distance from 1 counts.")] = 0.0
    sparsity: Annotated[float, typer.Option(help="What the expected number of closed hard-concrete gates counts.")] = 1
    strength: Annotated[float, typer.Option(help="From 0 (unpruned) to 1 (as learned): gates 1 + s (g - 1).")] = 1.0
    contexts: Annotated[
        int,
        typer.Option(
            help="Lower, beside the gap of the next word, the one over several words after contexts that all groups of "
            "a sentence share, so many of each; 0: the next word's alone."
        ),
    ] = 0
    words: Annotated[int, typer.Option(help="How many, with --contexts.")] = WORDS
    cell: Annotated[
        Literal["", "seen", "new templates", "new descriptors", "new both"],
        typer.Option(help="Learn on one cell of a division of templates and descriptors into halves; else on all."),
    ] = ""
    division: Annotated[int | None, typer.Option(help="Which division, by number (with --cell); else 0.")] = None
    seed: int = 0
    out: Annotated[Path | None, typer.Option(help="File for the set, which --prune-set reads.")] = None

    def bias(self) -> BiasConfig:
        """The gap that falls. InputError for words without contexts, and as `BiasConfig`."""
        from fasp_core.metrics.meters import BiasConfig

        if not self.contexts and self.words != WORDS:
            raise InputError("--words is read with --contexts alone: add that, or leave it out.")
        if self.contexts < 0:
            raise InputError(f"{self.contexts} contexts are none: ask for 1 or more, or leave --contexts out.")
        if self.contexts and (self.axis == defaults.ALL_AXES or self.cells != "none" or self.patience):
            raise InputError(
                f"--contexts is read without --axis {defaults.ALL_AXES}, --cells and --patience: leave one of them out."
            )
        if self.axis == defaults.ALL_AXES and self.cell:
            raise InputError(f"--cell is of one axis, and --axis {defaults.ALL_AXES} of seven: leave one of them out.")
        steps, contexts = (self.words, self.contexts) if self.contexts else (1, None)
        return BiasConfig(self.axis, steps=steps, contexts=contexts, cell=self.cell, division=self.division)

    def config(self) -> GainsConfig:
        """How gates are learned. InputError for an option that is not read, and as `GainsConfig`."""
        from fasp_core.scoring.learned.gates import GainsConfig

        asked = (f"--method {self.method}", f"--axis {self.axis}")
        for option in fields(self):
            if READ_WITH.get(option.name, asked[0]) not in asked and getattr(self, option.name) != option.default:
                raise InputError(
                    f"--{option.name} is read with {READ_WITH[option.name]} alone: add that, or leave it out."
                )
        named = [f.name for f in fields(GainsConfig) if f.name not in ("rate", "around") and hasattr(self, f.name)]
        rate = RATES[self.method] if self.rate is None else self.rate
        usual = ALL_PROMPTS if self.axis == defaults.ALL_AXES else WITH_CONTEXTS if self.contexts else PROMPTS
        prompts = usual if self.step_prompts is None else self.step_prompts
        told = {name: getattr(self, name) for name in named}
        return GainsConfig(rate=rate, prompts=prompts, around=self._around(), **told)

    def _around(self) -> str:
        """As a set is written; "" for none."""
        if not self.around:
            return ""
        from fasp_core.heads.prune_set import PruneSet
        from fasp_core.scoring.score_files import read_prune_set

        path = Path(self.around)
        try:
            found = read_prune_set(path).parts if os.path.exists(path) else PruneSet.parse(self.around)
        except InputError:
            if not path.suffix:
                raise
            found = read_prune_set(path).parts  # says that there is no such file
        if found.neurons or not found.heads | found.gains:
            raise InputError("--around names heads that keep their gates, at least one, and no neurons.")
        return found.format()


def gains(options: Options, given: Model, progress: Report) -> Said:
    """Learn a gate from 0 to 1.5 for every head, under which the validation gap falls and the model stays able.

    Prints the set, such as L0H3*0.4, which every command takes with --heads, and an export folds into its weights.
    """
    from fasp_core.data.prompts import resolve_axis
    from fasp_core.data.text import TextConfig
    from fasp_core.metrics.meters import left_out
    from fasp_core.scoring.learned.gains import axes_of, find, learn
    from fasp_core.storage.atomic import check_files

    if not 0 <= options.strength <= 1:
        raise InputError(f"A strength is from 0 to 1, not {options.strength:g}.")
    config = options.config()
    if options.out is not None:
        check_files([options.out])
    assert given.spec  # its device is looked up first
    bias = options.bias()
    for one in axes_of(bias):
        resolve_axis(one.axis)
    text = TextConfig(tokens=defaults.SCORE_TOKENS)
    stored = None if given.known_id is None else find(given.known_id, bias, text, config, given.store)
    found = stored or learn(given.lm, bias, text, config, given.store, progress)
    heads = found.at(options.strength)
    document = {
        **found.as_dict(),
        "strength": options.strength,
        "prune_set": heads.format(),
        "learned_on": f"validation prompts{f', {options.cell}, division {bias.division or 0}' if options.cell else ''}",
        "notes": left_out(*axes_of(bias)),
    }
    if options.out is not None:
        _write(options.out, heads, found.path.shape[1:], given, options.axis, options.reading, options.method)
    return document, lambda: _text(document, found, heads, options, given)


def _write(
    path: Path,
    parts: PruneSet,
    shape: tuple[int, ...],
    given: Model,
    axis: str | None,
    reading: str | None,
    method: str,
) -> None:
    from fasp_core.heads.prune_files import learned
    from fasp_core.storage.atomic import atomic_write

    told = {"model": given.spec.source, "axis": axis, "reading": reading, "method": method, "ablation": given.ablation}
    atomic_write({path: to_json(learned(parts, (shape[0], shape[1]), **told)).encode() + b"\n"})


def seen_text() -> str:
    """Which text steps see, and how perplexity is measured on another one."""
    return (
        f"Steps see the first {defaults.SCORE_TOKENS:,} tokens of 'bold': perplexity on text that they do not see is "
        "measured by evaluate --text paragraphs-test and by compare --outcome --methods gains."
    )


def _text(document: dict[str, Any], found: Gains, heads: PruneSet, options: Options, given: Model) -> str:
    last = found.losses[-min(10, len(found.losses)) :].mean(0)
    moved = document["moved_by_more_than_a_fifth"]
    said = [
        f"Gates of {document['heads']} heads, {moved} of them moved by more than .2 (at most by "
        f"{number(document['largest_move'])}, root mean square {number(document['root_mean_squared_move'])})."
    ]
    if len(found.held) and not found.at_step:
        said.append(
            "None had a smaller gap than the unpruned model on templates and descriptors that no step saw, so "
            "every head stays as it is."
        )
    elif len(found.held):
        unseen = found.held[:, 1].min()
        said.append(
            f"They are those after step {found.at_step} of {len(found.losses)}, whose gap on validation templates and "
            f"descriptors that no step saw was the lowest: {percent(unseen - 1)}."
        )
    paragraphs = f", paragraphs {last[3]:+.4f}" if len(last) > 3 else ""
    where = f" --cell '{'new both' if options.cell == 'seen' else options.cell}'" if options.cell else ""
    division = f" --division {options.division}" if options.division is not None else ""
    measure = f"evaluate {given.named(options.axis)} --split test"
    if options.contexts:
        measure += f" --steps {options.words} --contexts {options.contexts}"
    if options.axis == defaults.ALL_AXES:
        measure = f"study axes {given.named()}"
    said.append(
        f"In the last steps, on what they saw: gap {percent(last[0] - 1)}, text {last[1]:+.4f} nats a token"
        f"{paragraphs}, last words {last[2]:+.3f} nats. That was minimised; what it is worth, measure on test prompts: "
        f"{measure}{where}{division} --prune-set FILE. {seen_text()}"
    )
    return "\n\n".join([" ".join(said), *noted(document), heads.format()])


def repair(
    parts: Parts,
    given: Model,
    progress: Report,
    text: Annotated[str, typer.Option(help="Calibration text: paragraphs, bold, or a text file.")] = "paragraphs",
    tokens: Annotated[int, typer.Option(help="Tokens of it.")] = defaults.COST_TOKENS,
    window: Window = None,
    out: Annotated[Path | None, typer.Option(help="File for the repaired set, which --prune-set reads.")] = None,
) -> Said:
    """Rescale the heads that a set leaves, layer by layer, so that attention outputs change least (least squares).

    Prints the set with gains, such as L0H3,L0H1*1.2, which every command takes, and an export folds into its weights.
    """
    from fasp_core.scoring.learned.repair import products, stored_products
    from fasp_core.scoring.learned.repair import repair as repaired
    from fasp_core.storage.atomic import check_files

    found = parts.required()
    if not found.parts.heads | found.parts.gains:
        raise InputError("A repair is of heads that are removed or scaled, and the set names none: give some.")
    if given.ablation != "zero":  # before a model is loaded for it
        raise InputError(f"A repair is of heads that are set to zero, not to '{given.ablation}': leave --ablation out.")
    source = Text(text=text, window=window)
    config = calibration(source, tokens)
    if out is not None:
        check_files([out])
    assert given.spec  # its device is looked up first
    parts.check(found, given)
    config = source.fitted(config, given.model_id)
    known = stored_products(given.model_id, config, given.store) or products(given.lm, config, given.store, progress)
    done = repaired(found.parts, known.values)
    if out is not None:
        _write(out, done.prune_set, known.values.shape[:2], given, found.axis, found.reading, "repair")
    document = {"model": given.spec.source, "before": found.parts.format(), **done.as_dict(), "tokens": known.tokens}
    return document | {"text": text}, lambda: _repair_text(document)


def calibration(source: Text, tokens: int) -> TextConfig:
    """The text that sets are repaired on. InputError for one that claims are made on."""
    from fasp_core.data.passages import PARAGRAPHS
    from fasp_core.data.text import BOLD
    from fasp_core.studies.compare.plan import HELD_OUT

    if source.text == PARAGRAPHS["test"] or (source.text == BOLD and tokens > HELD_OUT):
        raise InputError(
            f"Claims are made on '{PARAGRAPHS['test']}' and on what follows {HELD_OUT:,} tokens of '{BOLD}': repair on "
            f"'{PARAGRAPHS['valid']}', or on less."
        )
    return source.of(tokens)


def _repair_text(d: dict[str, Any]) -> str:
    rows = [["layer", "lost of its attention output", "repaired"]]
    rows += [[str(one["layer"]), percent(one["lost_before"]), percent(one["lost_after"])] for one in d["layers"]]
    idle = ", ".join(map(str, d["idle_layers"]))
    said = [f"Every head of these layers is in the set, so nothing of them was rescaled: {idle}."] if idle else []
    return "\n\n".join(
        [
            f"{d['heads_removed']} heads removed, {d['heads_scaled']} scaled; on {d['tokens']:,} tokens, as a share of "
            "the output's sum of squares:",
            table(rows),
            *said,
            d["prune_set"],
        ]
    )
