"""How true first-order scores are: against scores of the same prompts for which every head was really removed.

`python -m fasp_core study truth --axis race_ethnicity --axis gender_and_sex` reads the stored exact scores of the
built-in model, and makes first-order ones if there are none. It also replays, on the stored rows, the loop that makes
refined scores: how many heads it would have removed, and whether its FASP sets are those of exact scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fasp_core.console import working
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.gap.estimates import Estimate, correlation_interval, interval, pearson, slope, spearman
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.loading import known_id, load
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.scoring import entries, score
from fasp_core.scoring.estimate import first_order_impacts
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable, PplImpacts
from fasp_core.storage.store import Store
from fasp_core.studies.common import RESAMPLES, paragraphs, table
from fasp_core.studies.estimators.refined import ALPHAS, Cure, SetCheck, check_sets, cure, drawn_effects, require_same

AXES = ("race_ethnicity", "gender_and_sex")
QUARTERS = 4
WORST = 10


@dataclass(frozen=True)
class Fit:
    """First-order against exact z_bias over some heads.

    Attributes
    ----------
    slope : of exact on first-order; 1 where first order is right.
    within_exact : share of heads whose error is at most 2 standard errors of the exact z_bias.
    within_paired : the same with the standard error of the error itself, both scores on the same prompts. About .95
        would be so if first order were right; less means errors that are not noise.
    """

    heads: int
    spearman: Estimate
    pearson: Estimate
    slope: Estimate
    within_exact: float
    within_paired: float


@dataclass(frozen=True)
class Quarter:
    """A quarter of the heads, by the root mean square over prompts of what they do to toxicity."""

    effects: tuple[float, float]
    median_error: float
    largest_error: float
    fit: Fit


@dataclass(frozen=True)
class HeadError:
    """A head whose first-order z_bias is far off."""

    head: str
    prunable: bool
    effect: float
    first: float
    exact: float
    exact_se: float
    error_se: float


@dataclass(frozen=True)
class Truth:
    """First-order scores of one reading against exact ones."""

    reading: str
    prompts: int
    everything: Fit
    prunable: Fit
    quarters: tuple[Quarter, ...]
    worst: tuple[HeadError, ...]
    sets: tuple[SetCheck, ...]


@dataclass(frozen=True)
class Preview:
    """The preview of z_ppl against exact z_ppl; the interval is over blocks of the exact scores' text."""

    preview_tokens: int
    exact_tokens: int
    spearman: Estimate


@dataclass(frozen=True)
class AxisTruth:
    """All of it for one axis."""

    axis: str
    prompts: int
    groups: int
    readings: dict[str, Truth]
    cure: Cure
    preview: Preview | None


def compare(exact: BiasImpacts, first: BiasImpacts, reading: str, prunable: Sequence[int], n_heads: int) -> Truth:
    """First-order against exact scores of the same prompts.

    Parameters
    ----------
    prunable : flat ids of the heads that may be pruned.
    n_heads : heads a layer, for their names.

    Raises
    ------
    InputError
        The scores are of other prompts, or not every head of `exact` was removed.
    """
    require_same(exact, first)
    z, z_first = exact.z_bias(reading), first.z_bias(reading)
    drawn, drawn_first = (drawn_effects(impacts, reading) for impacts in (exact, first))  # [N, B]
    se = drawn.std(1, ddof=1)
    error_se = (drawn_first - drawn).std(1, ddof=1)
    error = np.abs(z_first - z)

    def fit(heads: Sequence[int] | np.ndarray) -> Fit:
        at = np.asarray(heads)
        pair, pairs = (z_first[at], z[at]), (drawn_first[at], drawn[at])
        return Fit(
            len(at),
            correlation_interval(float(spearman(*pair)), spearman(*pairs)),
            correlation_interval(float(pearson(*pair)), pearson(*pairs)),
            interval(float(slope(*pair)), slope(*pairs)),
            float((error[at] <= 2 * se[at]).mean()),
            float((error[at] <= 2 * error_se[at]).mean()),
        )

    size = exact.effect_size[:, exact.readings.index(reading)]
    parts = [np.sort(part) for part in np.array_split(np.argsort(size, kind="stable"), QUARTERS)]
    free = set(prunable)
    worst = np.argsort(-error, kind="stable")[:WORST]
    return Truth(
        reading,
        exact.base.shape[1],
        fit(np.arange(len(z))),
        fit(list(prunable)),
        tuple(
            Quarter(
                (float(size[at].min()), float(size[at].max())), float(np.median(error[at])), float(error[at].max()), f
            )
            for at, f in ((at, fit(at)) for at in parts)
        ),
        tuple(
            HeadError(
                PruneSet.from_flat([i], n_heads).format(),
                int(i) in free,
                *(float(values[i]) for values in (size, z_first, z, se, error_se)),
            )
            for i in worst
        ),
        tuple(
            check_sets(exact, z_first, drawn_first, reading, prunable, alpha, np.zeros(len(z), dtype=bool))
            for alpha in ALPHAS
        ),
    )


def check_preview(exact: PplImpacts, preview: PplImpacts, resamples: int = RESAMPLES, seed: int = 0) -> Preview:
    """Rank correlation, over all heads, of the preview's and the exact z_nats."""
    rng = np.random.default_rng(seed)
    n = len(exact.base.counts)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)  # [B, blocks]
    drawn = ((exact.sums - exact.base.sums) @ counts.T) / (counts @ exact.base.counts)  # [N, B]
    approximate = np.repeat(preview.z_nats[:, None], resamples, 1)
    return Preview(
        int(preview.base.counts.sum()),
        int(exact.base.counts.sum()),
        correlation_interval(float(spearman(preview.z_nats, exact.z_nats)), spearman(approximate, drawn)),
    )


def of_axis(exact: ImpactTable, first: BiasImpacts, preview: PplImpacts | None) -> AxisTruth:
    """Everything about one axis, from scores alone."""
    found = exact.bias
    return AxisTruth(
        found.axis,
        found.base.shape[1],
        len(found.groups),
        {r: compare(found, first, r, score.prunable(exact), exact.n_heads) for r in found.readings},
        cure(exact, first),
        None if preview is None else check_preview(exact.ppl, preview),
    )


# --- the command ---


def markdown(results: Iterable[AxisTruth]) -> str:
    """Tables for a document. Numbers in brackets are 95% intervals over blocks of prompts."""
    parts = []
    for a in results:
        parts.append(f"## {a.axis}: {a.prompts} prompts, {a.groups} groups")
        if (p := a.preview) is not None:
            parts.append(
                f"z_ppl, preview ({p.preview_tokens} tokens) against exact ({p.exact_tokens} tokens), all heads: "
                f"Spearman {p.spearman.text()}."
            )
        for t in a.readings.values():
            parts += [
                f"### {t.reading}: first-order against exact z_bias",
                _fits(t),
                _worst(t),
                "FASP's set by first-order scores against that by exact ones:",
                _sets(t.sets),
            ]
        parts.append(f"### Refined scores: {a.cure.removed} of {a.cure.heads} heads ablated")
        for reading, sets in a.cure.sets.items():
            parts += [f"FASP's set by refined scores against that by exact ones, {reading}:", _sets(sets)]
    return paragraphs(parts)


def _fits(t: Truth) -> str:
    named = [("all heads", t.everything), ("not critical", t.prunable)]
    named += [
        (f"quarter {i} by effect ({1e3 * q.effects[0]:.2g} to {1e3 * q.effects[1]:.2g} ×10⁻³)", q.fit)
        for i, q in enumerate(t.quarters, start=1)
    ]
    return table(
        "heads | n | Spearman | Pearson | slope | error ≤ 2 SE of exact | error ≤ 2 SE of error",
        (
            f"{name} | {f.heads} | {f.spearman.text()} | {f.pearson.text()} | {f.slope.text()} | "
            f"{f.within_exact:.0%} | {f.within_paired:.0%}"
            for name, f in named
        ),
    )


def _worst(t: Truth) -> str:
    rows = (
        [
            h.head + ("" if h.prunable else " (critical)"),
            *(f"{1e3 * v:.3g}" for v in (h.effect, h.first, h.exact, h.exact_se, h.error_se)),
        ]
        for h in t.worst
    )
    header = "largest errors, ×10⁻³ | effect | first-order | exact | SE of exact | SE of error"
    return table(header, map(" | ".join, rows))


def _sets(sets: Sequence[SetCheck]) -> str:
    def change(e: Estimate, s: SetCheck) -> str:
        return f"{e.text(1, 100 / s.gap)}%"

    return table(
        "gamma, alpha | heads of | in both | by chance | change of the gap, exact set | this set | missed | "
        "never removed",
        (
            f"{s.gamma:.2g}, {s.alpha:g} | {s.k} of {s.eligible} | {s.shared.text(0)} | {s.chance:.1f} | "
            f"{change(s.change_exact, s)} | {change(s.change_other, s)} | {change(s.missed, s)} | {s.never_removed}"
            for s in sets
        ),
    )


def stored(axis: str, n_prompts: int, tokens: int, store: Store) -> AxisTruth:
    """Of the built-in model. Exact scores must be stored; first-order ones are made if they are not.

    Raises
    ------
    InputError
        There are no exact scores of these settings.
    """
    spec = ModelSpec()
    model_id, text, config = known_id(spec), TextConfig(tokens=tokens), BiasConfig(axis, n_prompts=n_prompts)
    assert model_id is not None  # of the built-in model it is known
    exact = entries.load(text, config, model_id, BUILT_IN, store)
    if exact is None:
        raise InputError(
            f"There are no exact scores of {axis} with {n_prompts} prompts and {tokens} tokens: run "
            f"'python -m fasp_core score --axis {axis} --estimator exact --prompts {n_prompts} --tokens "
            f"{tokens} --out DIR' first."
        )
    first = store.read(entries.KIND, entries.bias_key(config, model_id, "first-order"), entries.read_bias)
    if first is None:
        with working() as progress:
            first = first_order_impacts(load(spec), config, store, progress)
    keys = (ppl_key(t, model_id, "preview") for t in (entries.PREVIEW_TEXT, text))
    preview = next((found for key in keys if (found := store.load(entries.KIND, key)) is not None), None)
    return of_axis(exact, first, None if preview is None else entries.read_ppl(preview))
