"""Of the command `report`: what it is asked, the file that it writes, and what it prints."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasp_core.cli.text import noted
from fasp_core.console import Report
from fasp_core.errors import InputError
from fasp_core.model.tokens import option_of
from fasp_core.scoring import score_files
from fasp_core.storage.atomic import write_whole

if TYPE_CHECKING:
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.model.language_model import LanguageModel
    from fasp_core.model.spec import ModelSpec

GAMMA, ALPHA = 0.3, 0.05  # as the app begins


def document(
    spec: ModelSpec,
    axis: str,
    reading: str,
    method: str | None,
    gamma: float,
    alpha: float,
    seed: int,
    given: tuple[PruneSet, tuple[int, int] | None] | None,
    force: str,
    lock: str,
    max_ppl: float,
    prompts: int,
    tokens: int,
    measure: bool,
    out: Path,
    cache: Path | None,
    load: Callable[[ModelSpec, Path | None], LanguageModel],
    progress: Report,
) -> dict[str, Any]:
    """Write the report, whole or not at all, and give its facts.

    Parameters
    ----------
    method : with a given set as well, the heads in which the two differ are changes by hand.
    given : a set, and the shape of the model that it was chosen for, where that is known.
    force, lock : heads that the method prunes, and keeps, whatever it finds.
    load : of the model, called only if something is to be measured or the weights are not known without it.

    Raises
    ------
    InputError
        No scores, a set of another model, a file that cannot be written, and whatever does not fit the model.
    """
    from fasp_core import report
    from fasp_core.data.text import TextConfig
    from fasp_core.heads.prune_files import PruneFile, check
    from fasp_core.heads.prune_set import PruneSet
    from fasp_core.metrics.meters import BiasConfig
    from fasp_core.model import loading
    from fasp_core.report.page import document as facts_document
    from fasp_core.scoring import entries
    from fasp_core.scoring.choice import ByHand
    from fasp_core.storage.store import Store
    from fasp_core.studies.compare.searching import SCORE_TEXT

    if not 0 < max_ppl < 10:
        raise InputError(f"A rise of perplexity of {max_ppl:g} is no limit: give --max-ppl .1 for at most 10%.")
    if out.is_dir():
        raise InputError(f"'{out}' is a folder: name the file, such as --out {out / 'report.html'}.")
    score_files.check_folder(out.absolute().parent)
    BiasConfig(axis, split="test", n_prompts=prompts).prompts()
    TextConfig(tokens=tokens)
    loaded: list[LanguageModel] = []

    def model() -> LanguageModel:
        if not loaded:
            loaded.append(load(spec, cache))
        return loaded[0]

    store = Store(cache)
    model_id = loading.known_id(spec) or model().id
    table = entries.best(SCORE_TEXT, BiasConfig(axis), model_id, spec.source, store)
    if table is None:
        raise InputError(
            f"There are no scores to report: run 'python -m fasp_core score --model {shlex.quote(spec.source)}"
            f"{option_of(spec.bos)} --axis {shlex.quote(axis)} --estimator refined --out scores' first."
        )
    by_hand = ByHand(*(score_files.heads_of(x, table.n_layers, table.n_heads) for x in (force, lock)))
    if len(by_hand):
        method = method or "fasp"
    if given is None:
        method = method or "fasp"
        chosen = report.origin(table, reading, method, gamma, alpha, seed, PruneSet(), by_hand)
        parts = PruneSet.of(chosen.heads)
    else:
        parts = given[0]
        check(PruneFile(*given), (table.n_layers, table.n_heads), "the prune set")
    asked = report.Asked(
        spec,
        axis,
        report.axis_title(axis),
        reading,
        parts,
        method,
        gamma,
        alpha,
        seed,
        max_ppl,
        prompts,
        tokens,
        measure,
        by_hand,
    )
    facts = report.gather(asked, table, model_id, store, model, progress)
    made = datetime.datetime.now(datetime.UTC)
    write_whole({out: report.html(facts, made).encode()})
    return {**facts_document(facts, made), "file": str(out)}


def text(d: dict[str, Any]) -> str:
    """The verdict, what stands against it, and the file."""
    lines = [d["verdict"] or d["missing"], *d["cautions"]]
    claim = d["claim"]
    if claim is not None:
        lines += [f"Claim of the stored comparison: {claim['sentence']}", *claim["cautions"]]
    lines += noted(d)
    return "\n".join([*lines, f"wrote {d['file']}"])
