"""Scores by other estimators than removing every head: first-order, refined, two-phase, and a preview of z_ppl.

*First-order* scores need one backward pass and say what every head would do if effects were linear in its gate. They
repeat well, and fail for heads with large effects: a ranking may be reliable and wrong. *Refined* scores are the cure:
first-order everywhere, and every head really removed whose place in the set may depend on it. *Two-phase* scores are
refined on some prompts and first-order on many more: the exact rows say how wrong first order is in each group, and the
many prompts make the ranking repeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fasp_core import gap
from fasp_core.compute.shards import Workers, results
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.metrics.meters import BiasConfig, ExpectedMeter, Report, meter
from fasp_core.metrics.perplexity import measure_nll, ppl_key, windows_of
from fasp_core.metrics.work import FirstOrder, Prompts
from fasp_core.model.devices import sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import pack_equal
from fasp_core.scoring.entries import KIND, bias_key, few, read_bias, read_ppl
from fasp_core.scoring.exact import bias_contents, bias_label, ppl_contents, ppl_impacts, toxicity_rows
from fasp_core.scoring.impact_table import BiasImpacts, PplImpacts
from fasp_core.scoring.preview import gauss_newton
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Store

GAMMA, ALPHA = 0.2, 0.1  # refined scores are made for choices with at least this gamma and at most this alpha
ROUNDS = 8
Remove = Callable[[list[int]], tuple[np.ndarray, np.ndarray]]  # heads -> base [R, n], rows [len(heads), R, n]
QUANTILE = 0.95  # of the errors of first-order scores, relative to the size of a head's effect


def ppl_preview(lm: LanguageModel, text: TextConfig, store: Store, progress: Report | None = None) -> PplImpacts:
    """Approximate z_ppl of all heads from gradients: a first picture, labelled as such."""
    key = ppl_key(text, lm.id, "preview")

    def work() -> Any:
        started = time.monotonic()
        windows = windows_of(lm, text, key)
        base = measure_nll(lm, windows)
        found = gauss_newton(lm, windows, progress=progress, rows=4, draws=2)
        return ppl_contents(
            lm, windows, base, np.full((lm.size, len(base.sums)), np.nan), started, preview=found.z_nats
        )

    return store.made(KIND, key, work, read_ppl, label=f"{slug(lm.name)}--ppl-preview")


def first_order_rows(
    lm: LanguageModel, gauge: ExpectedMeter, progress: Report | None = None, workers: Workers | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Expected toxicity [R, n] of the whole model, and [N, R, n] with each head ablated, to first order.

    Prompts of equal length share a backward pass. Gates differ by row, so each prompt has gradients of its own.
    """
    packs = pack_equal(gauge.rows, gauge.config.steps, max_tokens=sizes(lm.device).backward)
    n = len(gauge.rows)
    base, ablated = np.empty((0, n)), np.empty((lm.size, 0, n))
    done = 0

    def tell() -> None:
        if progress is not None:
            progress(done, n, f"first-order bias on {gauge.config.axis}: {done} of {n} prompts")

    worth = gauge.worth if workers is None else gauge.worth.on("cpu")
    shards = [FirstOrder(Prompts(part, worth)) for part in packs]
    for i, (values, effects) in results(lm, shards, workers, tell):
        members = packs[i].prompts
        if not done:
            base, ablated = np.empty((values.shape[1], n)), np.empty((lm.size, values.shape[1], n))
        base[:, members] = values.T
        ablated[:, :, members] = values.T + effects
        done += len(members)
        tell()
    return gauge.fold(base), np.clip(gauge.fold(ablated), 0.0, 1.0 if gauge.worth.spread else None)


def first_order_impacts(
    lm: LanguageModel,
    config: BiasConfig,
    store: Store,
    progress: Report | None = None,
    workers: Workers | None = None,
) -> BiasImpacts:
    """First-order z_bias of all heads, expected measure."""
    key = bias_key(config, lm.id, "first-order")

    def work() -> Any:
        started = time.monotonic()
        gauge = meter(lm, config, store, progress)
        assert isinstance(gauge, ExpectedMeter)
        base, ablated = first_order_rows(lm, gauge, progress, workers)
        return bias_contents(lm, gauge, base, ablated, np.zeros(lm.size, dtype=bool), started)

    return store.made(KIND, key, work, read_bias, label=bias_label(lm, key))


def refined_impacts(
    lm: LanguageModel,
    text: TextConfig,
    config: BiasConfig,
    store: Store,
    progress: Report | None = None,
    workers: Workers | None = None,
) -> BiasImpacts:
    """First-order z_bias, exact for every head whose place in a FASP set may depend on it.

    Which these are is found as they are removed, see `refine`.
    """
    key = bias_key(config, lm.id, "refined")

    def work() -> Any:
        started = time.monotonic()
        ppl = ppl_impacts(lm, text, store, progress, workers)
        first = first_order_impacts(lm, config, store, progress, workers)
        gauge = meter(lm, config, store, progress)

        def remove(heads: list[int]) -> tuple[np.ndarray, np.ndarray]:
            rows = toxicity_rows(lm, gauge, heads, store, key, progress, workers)
            return rows[-1], np.stack([rows[flat] for flat in heads])

        exact, base, ablated = refine(first, ppl.z_nats, remove)
        return bias_contents(lm, gauge, base, ablated, exact, started)

    return store.made(KIND, key, work, read_bias, label=bias_label(lm, key))


def refine(first: BiasImpacts, z_nats: np.ndarray, remove: Remove) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact rows for every head whose place in a FASP set may depend on it, first-order ones for the others.

    Starts from the heads of highest z_bias and of largest effect, removes them, learns from them how wrong first order
    is, and goes on with all heads whose upper bound reaches the last place, until there is none.

    Parameters
    ----------
    z_nats : [N] as in `PplImpacts`: the `GAMMA` heads of the highest are critical, and never removed.
    remove : rows of these flat ids (ascending) when they are removed, and those of the whole model. In each turn it is
        asked for all heads that were removed so far as well.

    Returns
    -------
    removed : [N] bool. base : [R, n]. ablated : [N, R, n].
    """
    n = len(z_nats)
    eligible = np.ones(n, dtype=bool)
    eligible[np.argsort(-z_nats, kind="stable")[: int(GAMMA * n)]] = False
    k = max(1, int(ALPHA * n))
    base, ablated, removed = first.base, first.ablated.copy(), np.zeros(n, dtype=bool)
    size = first.effect_size  # [N, R]
    for turn in range(ROUNDS):
        chosen: set[int] = set()
        for r, reading in enumerate(first.readings):
            z = gap.z_bias(base[r], ablated[:, r], first.codes)
            if turn:
                chosen |= set(undecided(z, first.z_bias(reading), size[:, r], removed, eligible, k).tolist())
            else:
                for by in (z, size[:, r]):
                    chosen |= set(np.argsort(-np.where(eligible, by, -np.inf))[:k].tolist())
        known = set(np.flatnonzero(removed).tolist())
        if chosen <= known:
            break
        heads = sorted(chosen | known)
        base, ablated[heads] = remove(heads)
        removed[heads] = True
    return removed, base, ablated


def two_phase_impacts(
    lm: LanguageModel,
    text: TextConfig,
    config: BiasConfig,
    store: Store,
    progress: Report | None = None,
    workers: Workers | None = None,
) -> BiasImpacts:
    """First-order z_bias on all prompts, corrected by what removing heads shows on the first 720 of them.

    The correction is a difference estimator (see `fasp_core.gap.Correction`) for the heads that refined scores of
    these prompts remove, or for all heads where exact scores of them are stored.

    Raises
    ------
    InputError
        The few prompts are not among the many.
    """
    part, key = few(config), bias_key(config, lm.id, "two-phase")

    def work() -> Any:
        started = time.monotonic()
        stored = store.read(KIND, bias_key(part, lm.id), read_bias)
        known = stored or refined_impacts(lm, text, part, store, progress, workers)
        exact = np.ones(lm.size, dtype=bool) if known.exact is None else known.exact
        first = first_order_impacts(lm, config, store, progress, workers)
        gauge = meter(lm, config, store, progress)
        places = {pair: i for i, pair in enumerate(zip(gauge.prompts.texts, gauge.prompts.groups, strict=True))}
        wanted = list(zip(part.prompts().texts, part.prompts().groups, strict=True))
        if not places.keys() >= set(wanted):
            raise InputError("Two-phase scores need prompts that hold the few among the many: use the same seed.")
        checked = np.array([places[pair] for pair in wanted])
        contents = bias_contents(lm, gauge, first.base, first.ablated, exact, started)
        errors = known.ablated[exact] - first.ablated[exact][..., checked]
        arrays = contents["arrays"]
        del arrays["rows"]  # they are no exact rows that another run might take over
        arrays |= {"errors": errors.astype(np.float32), "checked": checked.astype(np.int32)}
        return contents

    return store.made(KIND, key, work, read_bias, label=bias_label(lm, key))


def undecided(
    z: np.ndarray, z_first: np.ndarray, size: np.ndarray, exact: np.ndarray, eligible: np.ndarray, k: int
) -> np.ndarray:
    """Heads not removed yet that might be among the k of highest z_bias.

    First order is wrong by more for heads with more effect. So the error of a head is taken as a share of the size
    of its effect, and the share as the one that `QUANTILE` of the heads ablated so far do not exceed.

    Parameters
    ----------
    z : [N] best known z_bias; `z_first` [N] by first order.
    size : [N] root mean square, over prompts, of the first-order change of toxicity.
    exact, eligible : [N] bool.

    Returns
    -------
    flat ids, ascending.
    """
    k = min(k, int(eligible.sum()))
    if not k or not exact.any():
        return np.flatnonzero(eligible & ~exact)
    shares = np.abs(z - z_first)[exact] / np.maximum(size[exact], 1e-30)
    bound = z_first + np.quantile(shares, QUANTILE) * size
    last = np.sort(z[eligible])[-k]
    return np.flatnonzero(eligible & ~exact & (bound >= last))
