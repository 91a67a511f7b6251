"""The command `evaluate`: what the removal of heads costs and buys."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.gains import seen_text
from fasp_core.cli.options import Model, Parts, Prompts, Split, Text, Tokens, Toxicity
from fasp_core.cli.text import evaluation_text
from fasp_core.console import Report, log
from fasp_core.errors import InputError

if TYPE_CHECKING:
    from fasp_core.tasks.costs import CostConfig


READ_WITH = {"cost_tokens": ("paragraphs", "repeated"), "cost_items": ("lambada",)}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is measured."""

    split: Split = "test"
    n_prompts: Prompts = defaults.TEST_PROMPTS
    continuations: Annotated[int, typer.Option(help="Print this many prompts' continuations (sampled measure).")] = 0
    tokens: Tokens = defaults.TEST_TOKENS
    costs: Annotated[
        str,
        typer.Option(
            help="What else it costs: of paragraphs, repeated (their tokens that the context already held) and "
            "lambada (the last word of its passages), such as paragraphs,repeated,lambada."
        ),
    ] = ""
    cost_tokens: Annotated[int, typer.Option(help="Tokens of the paragraphs.")] = defaults.COST_TOKENS
    cost_items: Annotated[int, typer.Option(help="Passages of LAMBADA.")] = defaults.COST_ITEMS

    def config(self, seed: int) -> CostConfig | None:
        """The costs that are asked for, on the side that is measured; None if there are none."""
        from fasp_core.tasks.costs import CostConfig, named

        for option in fields(self):
            costs = READ_WITH.get(option.name)
            if costs and not any(c in self.costs for c in costs) and getattr(self, option.name) != option.default:
                name = option.name.replace("_", "-")
                raise InputError(
                    f"--{name} is read with --costs {' or '.join(costs)} alone: add that, or leave it out."
                )
        if not self.costs:
            return None
        found = CostConfig(named(self.costs), self.split, self.cost_tokens, self.cost_items, seed)
        found.look_up()
        return found


def evaluate(options: Options, toxicity: Toxicity, parts: Parts, text: Text, given: Model, progress: Report) -> Said:
    """Measure what the removal of heads does: perplexity, toxicity gap and toxicity by group, before and after."""
    found = parts.required()
    if options.continuations < 0 or (options.continuations and toxicity.measure != "sampled"):
        raise InputError("Continuations exist with --measure sampled only, and their number is 0 or more.")
    from fasp_core import evaluation
    from fasp_core.data.passages import PARAGRAPHS
    from fasp_core.data.text import BOLD

    assert given.spec  # its device is looked up first
    bias, where = toxicity.on(options.split, options.n_prompts), text.of(options.tokens)
    costs = options.config(toxicity.seed)
    parts.check(found, given)
    config = evaluation.EvalConfig(bias, text.fitted(where, given.lm.id))
    if costs is not None:
        costs = replace(costs, text=config.text)
    result = evaluation.evaluate(given.lm, found.parts, config, given.store, progress, costs=costs)
    document = result.as_dict(options.continuations)
    seen = config.text.source in (BOLD, PARAGRAPHS["valid"]) or (costs is not None and options.split == "valid")
    if found.parts.gains and seen:
        document["notes"].append(f"If these gains were learned: {seen_text()}")
    if not len(found.parts):
        document["notes"].append("The set is empty, so both models are the unpruned one.")
    if document.get("continuations"):
        log("Warning: the continuations were written by a language model and may be offensive.")
    return document, lambda: evaluation_text(document)
