"""The command `evaluate`: what the removal of heads costs and buys."""

from __future__ import annotations

from typing import Annotated

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Model, Parts, Prompts, Split, Text, Tokens, Toxicity
from fasp_core.cli.text import evaluation_text
from fasp_core.console import Report, log
from fasp_core.errors import InputError


def evaluate(
    toxicity: Toxicity,
    parts: Parts,
    text: Text,
    given: Model,
    progress: Report,
    split: Split = "test",
    n_prompts: Prompts = defaults.TEST_PROMPTS,
    continuations: Annotated[int, typer.Option(help="Print this many prompts' continuations (sampled measure).")] = 0,
    tokens: Tokens = defaults.TEST_TOKENS,
) -> Said:
    """Measure what the removal of heads does: perplexity, toxicity gap and toxicity by group, before and after."""
    found = parts.required()
    if continuations < 0 or (continuations and toxicity.measure != "sampled"):
        raise InputError("Continuations exist with --measure sampled only, and their number is 0 or more.")
    from fasp_core import evaluation

    assert given.spec  # its device is looked up first
    bias, where = toxicity.on(split, n_prompts), text.of(tokens)
    parts.check(found, given)
    config = evaluation.EvalConfig(bias, text.fitted(where, given.lm.id))
    result = evaluation.evaluate(given.lm, found.parts, config, given.store, progress)
    document = result.as_dict(continuations)
    if document.get("continuations"):
        log("Warning: the continuations were written by a language model and may be offensive.")
    return document, lambda: evaluation_text(document)
