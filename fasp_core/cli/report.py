"""The command `report`: one HTML file on one set of heads."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fasp_core import defaults
from fasp_core.cli.command import Said
from fasp_core.cli.options import Alpha, Axis, ByHand, Gamma, MaxPpl, MethodName, Model, Parts, Prompts, Reading, limit
from fasp_core.cli.text import noted
from fasp_core.console import Report
from fasp_core.errors import InputError


def report(
    axis: Axis,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    parts: Parts,
    told: ByHand,
    given: Model,
    progress: Report,
    reading: Reading = "neutral",
    method: Annotated[
        MethodName | None,
        typer.Option(help="How the set was chosen; fasp if no heads are given. With heads, as changed by hand."),
    ] = None,
    gamma: Gamma = defaults.GAMMA,
    alpha: Alpha = defaults.ALPHA,
    seed: Annotated[int, typer.Option(help="Of the method random.")] = 0,
    max_ppl: MaxPpl = defaults.MAX_PPL,
    n_prompts: Prompts = defaults.TEST_PROMPTS,
    tokens: Annotated[int, typer.Option(help="Tokens of a text that no score was made on.")] = defaults.TEST_TOKENS,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure on test prompts, or tell only what is stored.")
    ] = True,
) -> Said:
    """Write a report on one set of heads: an HTML file that needs no network."""
    named = parts.read()
    from fasp_core import report as r
    from fasp_core.data.text import TextConfig
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.report import page
    from fasp_core.scoring import choice, entries
    from fasp_core.scoring.score_files import check_folder
    from fasp_core.storage.atomic import write_whole
    from fasp_core.studies.compare.searching import SCORE_TEXT

    assert given.spec  # its device is looked up first
    limit(max_ppl)
    if out.is_dir():
        raise InputError(f"'{out}' is a folder: name the file, such as --out {out / 'report.html'}.")
    check_folder(out.absolute().parent)
    BiasConfig(axis, split="test", n_prompts=n_prompts).prompts()
    TextConfig(tokens=tokens)
    table = entries.best(SCORE_TEXT, BiasConfig(axis), given.model_id, given.spec.source, given.store)
    if table is None:
        raise InputError(
            f"There are no scores to report: run 'python -m fasp_core score {given.named(axis)} --estimator refined "
            "--out scores' first."
        )
    if named is not None:
        parts.check(named, given)
    by_hand = choice.ByHand(*told.flat(table.n_layers, table.n_heads))
    if named is None or len(by_hand):
        method = method or "fasp"
    asked = r.Asked(
        given.spec,
        axis,
        r.axis_title(axis),
        reading,
        PruneSet() if named is None else named.parts,
        method,
        gamma,
        alpha,
        seed,
        max_ppl,
        n_prompts,
        tokens,
        measure,
        by_hand,
    )
    if named is None:
        asked = replace(asked, parts=PruneSet.of(r.origin(asked, table).heads))
    facts = r.gather(asked, table, given.model_id, given.store, lambda: given.lm, progress)
    made = datetime.datetime.now(datetime.UTC)
    write_whole({out: page.html(facts, made).encode()})
    document = {**page.document(facts, made), "file": str(out)}
    return document, lambda: text(document)


def text(d: dict[str, Any]) -> str:
    """The verdict, what stands against it, and the file."""
    lines = [d["verdict"] or d["missing"], *d["cautions"]]
    claim = d["claim"]
    if claim is not None:
        lines += [f"Claim of the stored comparison: {claim['sentence']}", *claim["cautions"]]
    lines += noted(d)
    return "\n".join([*lines, f"wrote {d['file']}"])
