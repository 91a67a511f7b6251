"""What a released file holds and lacks, in sentences for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fasp_core.released.files import Floats, Published, SeedRows

NAMED = 6  # heads or rows that a sentence lists
RUNS_DIFFER = 0.01  # relative difference of perplexities of one head above which they are of several runs
ONE_GROUP = "religion"
AUTHORS_AXIS = "gender_and_sex"


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing. `severe`: some method cannot choose heads because of it, or should not be believed."""

    text: str
    severe: bool = False


def around_median(values: ArrayLike) -> tuple[Floats, float]:
    """Metrics after removal as differences from their median over the heads that have one, and that median.

    Without the unpruned model's metric there is no zero; the median head stands in for it. Shape [N] as given, NaN
    where there is no number; the median is NaN if there is none at all.
    """
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    center = float(np.median(finite)) if finite.size else float("nan")
    return array - center, center


def findings(file: Published, model: str, axis: str | None, n_heads: int) -> tuple[Finding, ...]:
    """What to know about one model and axis, the severe first.

    Parameters
    ----------
    axis : one of `file.axes(model)`; None where only baseline scores were released.
    n_heads : heads in a layer, to name heads as `L0H3`.

    Raises
    ------
    InputError
        The file holds no such model.
    """
    found = [
        *_scores(file, model, axis, n_heads),
        *(_axis(axis) if axis else ()),
        *(_rows(file, model, axis, n_heads) if axis else ()),
    ]
    return tuple(sorted(found, key=lambda finding: not finding.severe))  # a stable sort


def _scores(file: Published, model: str, axis: str | None, n_heads: int) -> Iterable[Finding]:
    scores = file.head_scores(model, axis, n_heads)
    titled = {
        "perplexity after removal": scores.z_ppl,
        "bias after removal": None if scores.z_bias is None else -scores.z_bias,
        "magnitude": scores.magnitude,
        "gradient": scores.gradient,
    }
    absent = [title for title, values in titled.items() if values is None]
    if absent:
        yield Finding(f"For this model the file has no {' and no '.join(absent)}: methods that read them cannot run.")
    for title, values in titled.items():
        if values is None:
            continue
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            named = _listed([_head(int(flat), n_heads) for flat in bad])
            verb = "has" if bad.size == 1 else "have"
            yield Finding(
                f"{bad.size} of {values.size} heads {verb} no number for {title} ({named}): methods that read it "
                "cannot choose heads.",
                severe=True,
            )
        yield from _ties(title, values[np.isfinite(values)])


def _ties(title: str, values: Floats) -> Iterable[Finding]:
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size == values.size:
        return
    shared = int(counts[counts > 1].sum())
    yield Finding(
        f"Ties: {title} takes {distinct.size} different {'value' if distinct.size == 1 else 'values'} over "
        f"{values.size:,} heads, and {shared:,} heads share theirs with another. At a threshold the authors' rule "
        "takes all that tie; the stable rule takes the lower head first and keeps to the number asked for."
    )


def _axis(axis: str) -> Iterable[Finding]:
    if axis == ONE_GROUP:
        yield Finding(
            "HolisticBias puts all prompts of religion into one group, so this score compares no groups.",
            severe=True,
        )
    if axis != AUTHORS_AXIS:
        yield Finding(
            f"The authors' own runs used the scores of {AUTHORS_AXIS} on every axis (their flag is always true): their "
            "published lists are those of that axis."
        )


def _rows(file: Published, model: str, axis: str, n_heads: int) -> Iterable[Finding]:
    if not file.rows:
        return
    for split, title in (("valid", "Validation"), ("test", "Test")):
        rows = file.seed_rows(model, axis, split)
        if rows is None:
            yield Finding(f"There are no {title.lower()} rows of this axis.", severe=split == "valid")
            continue
        yield from _missing(rows, title, n_heads)
        if rows.doubled:
            verb = "is" if rows.doubled == 1 else "are"
            yield Finding(
                f"{title} rows: {rows.doubled} {verb} there twice or more; each head's mean over them is used."
            )
    if runs := _perplexity_runs(file, model, n_heads):
        yield runs


def _missing(rows: SeedRows, title: str, n_heads: int) -> Iterable[Finding]:
    seed, head = np.nonzero(~np.isfinite(rows.bias))
    total = f"{rows.bias.size:,} ({len(rows.seeds)} {'seed' if len(rows.seeds) == 1 else 'seeds'})"
    if not seed.size:
        return
    named = _listed(
        [f"{_head(int(h), n_heads)} of seed {rows.seeds[s] or '?'}" for s, h in zip(seed, head, strict=True)]
    )
    yield Finding(
        f"{title} rows: {seed.size} of {total} {'has' if seed.size == 1 else 'have'} no number for bias ({named}). "
        "The mean of such a head is over the seeds that it has."
    )


def _perplexity_runs(file: Published, model: str, n_heads: int) -> Finding | None:
    of_model = [rows.ppl for (name, _, split), rows in file.rows.items() if name == model and split == "valid"]
    stacked = np.concatenate(of_model)
    known = np.flatnonzero(np.isfinite(stacked).any(0))
    low, high = np.nanmin(stacked[:, known], 0), np.nanmax(stacked[:, known], 0)
    apart = np.flatnonzero(high - low > RUNS_DIFFER * np.abs(low))
    if not apart.size:
        return None
    worst = apart[np.argmax((high - low)[apart])]
    return Finding(
        f"Perplexities of {apart.size} of {known.size} heads differ by more than {RUNS_DIFFER:.0%} between rows "
        f"(most for {_head(int(known[worst]), n_heads)}: {low[worst]:.1f} to {high[worst]:.1f}), so they come from "
        "several runs. The median over all rows is used."
    )


def _head(flat: int, n_heads: int) -> str:
    return f"L{flat // n_heads}H{flat % n_heads}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
