"""What a toggle of one head costs: the estimate from stored rows, and the measurement with a runner."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _page
from benchmarks._common import AXIS, Clock, Unavailable, about, say
from fasp_core.data.text import SCORE_TEXT, TextConfig
from fasp_core.evaluation import EvalConfig, Evaluation, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.looks import SoFar
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.entries import find
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.score import score
from fasp_core.storage.store import Store


def run(
    lm: LanguageModel | None = None,
    config: EvalConfig | None = None,
    store: Store | None = None,
    toggles: int = 50,
    pruned: int = 13,
    worst: int = 3,
    plain: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Milliseconds of the estimate and seconds of the measurement after each of many toggles of one head.

    A toggle changes one head of the set that was measured before, the first one a FASP set. So no set comes twice.

    Parameters
    ----------
    config : what is measured; default: 1,024 tokens and 216 validation prompts.
    store : where scores may lie; measurements go to a temporary one, which holds the unpruned model's alone.
    toggles : how many heads, drawn from all; as many are seen in the upper half of the layers.
    pruned : size of the FASP set.
    worst : further toggles in layer 0, from where on all is run again.
    plain : how many of the sets are measured without a desk too, in turn with it.

    Of the built-in model, where none is handed in, the same is timed on the page, see `_page`, before all else; without
    a browser a sentence says so.
    """
    seen = _on_page() if lm is None else {}
    lm, source = lm or load(ModelSpec()), store or Store()
    config = config or EvalConfig(BiasConfig(AXIS, n_prompts=216), TextConfig(tokens=1024))
    measure, upper, layer_0, no_desk, first_measured, pair = (Clock() for _ in range(6))
    with tempfile.TemporaryDirectory() as folder:
        table = _table(lm, config, source, Store(Path(folder) / "scores"))
        current = _fasp(table, pruned)
        tried = CachedRunner(lm)
        stores = {"desk": _fresh(source, folder, "desk"), "plain": _fresh(source, folder, "plain")}
        first = Clock()
        with first.lap():
            evaluate(lm, current, config, stores["desk"], runner=tried)
        evaluate(lm, PruneSet(), config, stores["plain"])
        difference, estimates = 0.0, Clock()
        _estimate(table, current, Clock())  # what a page has asked for before any toggle

        plan = _plan(lm, toggles, worst, seed)
        for i, (flat, kind) in enumerate(plan):
            current = current.toggled(divmod(flat, lm.n_heads))
            _estimate(table, current, estimates)
            lap, shown, both = Clock(), list[float](), list[float]()
            began = time.perf_counter()

            def show(known: SoFar, began: float = began, shown: list[float] = shown, both: list[float] = both) -> None:
                shown.append(time.perf_counter() - began)
                if known.gaps and known.perplexity is not None and known.perplexity.interval is not None:
                    both.append(shown[-1])

            with lap.lap():
                found = evaluate(lm, current, config, stores["desk"], runner=tried, show=show)
            first_measured.laps.append(shown[0] if shown else lap.seconds)
            pair.laps.append(both[0] if both else lap.seconds)
            if kind == "random":
                measure.laps += lap.laps
            if kind == "worst":
                layer_0.laps += lap.laps
            if 2 * (flat // lm.n_heads) >= lm.n_layers:
                upper.laps += lap.laps
            if i < plain:
                with no_desk.lap():
                    again = evaluate(lm, current, config, stores["plain"])
                difference = max(difference, _difference(found, again))
            if i % 20 == 19:
                say(f"live: {i + 1} of {len(plan)} toggles")
    return {
        "estimate_p50_ms": 1000 * estimates.percentile(50),
        "estimate_p95_ms": 1000 * estimates.percentile(95),
        "measure_p50_s": measure.percentile(50),
        "measure_p95_s": measure.percentile(95),
        "measure_upper_p50_s": upper.percentile(50),
        "measure_upper_p95_s": upper.percentile(95),
        "measure_max_s": max(measure.laps + layer_0.laps),
        "measure_layer_0_s": layer_0.laps,
        "first_measured_p50_s": first_measured.percentile(50),
        "first_measured_p95_s": first_measured.percentile(95),
        "pair_measured_p50_s": pair.percentile(50),
        "pair_measured_p95_s": pair.percentile(95),
        **seen,
        "without_desk_p50_s": no_desk.percentile(50),
        "max_abs_diff_without_desk": difference,
        "first_measurement_s": first.seconds,
        "toggles": len(measure.laps),
        "upper_toggles": len(upper.laps),
        "estimates": len(estimates.laps),
        "fasp_heads": min(pruned, lm.size),
        "tokens": config.text.tokens,
        "prompts": len(config.bias.prompts()),
        "estimate_prompts": table.bias.base.shape[1],
        "estimate_scores": table.bias.estimator,
        "what": "An estimate is perplexity and gap of a set, in both readings. A measurement is both of them measured, "
        "with intervals and noise levels, and stored, with looks at what is known on the way: first_measured_* is the "
        "time to the first number of both models with its interval, over all toggles, pair_measured_* that to both "
        "numbers. page_first_measured_* is what a person waits on the page for both, from the hand's rest. "
        "first_measurement_s holds the "
        "unpruned model too.",
        **about(lm),
    }


def _on_page() -> dict[str, Any]:
    try:
        return _page.run()
    except Unavailable as error:
        return {"page_first_measured": str(error)}


def _fresh(source: Store, folder: str, name: str) -> Store:
    """A store without measurements. Word values are made once for a model, whatever is measured."""
    words = source.root / "words"
    if words.is_dir():
        shutil.copytree(words, Path(folder) / name / "words")
    return Store(Path(folder) / name)


def _table(lm: LanguageModel, config: EvalConfig, source: Store, spare: Store) -> ImpactTable:
    """Stored scores as the page shows them, else quick ones: an estimate takes the same time on either."""
    page = replace(config.bias, n_prompts=BiasConfig(AXIS).n_prompts)
    stored = find(SCORE_TEXT, page, lm.id, lm.name, source)
    return stored or score(lm, config.text, config.bias, spare, estimator="first-order")


def _fasp(table: ImpactTable, heads: int) -> PruneSet:
    scores = table.head_scores(table.bias.readings[0])
    size = table.n_layers * table.n_heads
    return PruneSet.of(select(scores, alpha=min(1.0, (heads + 0.5) / size)).heads)


def _plan(lm: LanguageModel, toggles: int, worst: int, seed: int) -> list[tuple[int, str]]:
    """Different heads in a random order: any, then upper ones up to as many, then some of layer 0."""

    def is_upper(flat: int) -> bool:
        return 2 * (flat // lm.n_heads) >= lm.n_layers

    order = np.random.default_rng(seed).permutation(lm.size).tolist()
    drawn, others = order[:toggles], order[toggles:]
    more = [h for h in others if is_upper(h)][: max(0, toggles - sum(map(is_upper, drawn)))]
    low = [h for h in others if h < lm.n_heads][:worst]
    return [(h, "random") for h in drawn] + [(h, "upper") for h in more] + [(h, "worst") for h in low]


def _estimate(table: ImpactTable, prune_set: PruneSet, clock: Clock) -> None:
    with clock.lap():
        for reading in table.bias.readings:
            table.estimate(prune_set.flat(table.n_heads), reading)


def _difference(one: Evaluation, other: Evaluation) -> float:
    """The larger of the differences in nats and in any prompt's toxicity."""
    nats = abs(one.perplexity.change_nats - other.perplexity.change_nats)
    return max(nats, float(np.abs(one.pruned.values - other.pruned.values).max()))
