"""What an audit says, as one document: scenario by scenario, and of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasp_core.studies.answers import distributions, measures
from fasp_core.studies.answers.distributions import QUANTILES, Distributions, moved
from fasp_core.studies.answers.measures import Answers, Disparity
from fasp_core.studies.answers.testing import DEALS, Tested, significance
from fasp_core.studies.contexts.audit import Exact, Replies, disparity
from fasp_core.studies.contexts.scenarios import labels

Asked = Sequence[Replies | Exact]  # of several scenarios, about the same people


def scenarios_of(
    subjects: Sequence[Asked],
    gaps: Sequence[Disparity],
    winsorise: float,
    pairs: NDArray[np.int64] | None = None,
    second: str = "pruned",
    comparisons: int = 1,
) -> tuple[list[dict[str, Any]], Tested]:
    """What is said of each scenario, and the test of all of them.

    Parameters
    ----------
    subjects : answers of the whole model and, if one was asked, of a second one.
    gaps : `disparity` of each.
    pairs : of names that are matched.
    second : what the second is, at the end of the names of what is said of it: `pruned`, or `beside` for another model.
    comparisons : of groups, for whose number p values are corrected.
    """
    groups, titles = subjects[0][0].groups, labels([r.scenario for r in subjects[0]])
    given = measures.parsed_differences([r.answers for r in subjects[0]], pairs=pairs)
    tested = significance([r.numbers(winsorise) for r in subjects[0]], pairs, comparisons=comparisons)
    rows = []
    for i, base in enumerate(subjects[0]):
        row = {"scenario": titles[i]} | _scenario(base, gaps[0], i, winsorise, pairs)
        more = measures.more_often(given[i])
        row |= {"parsed_difference": estimate(given[i]), "parsed_more": None if more is None else groups[more]}
        row |= {"p": float(tested.each[i]), "p_adjusted": float(tested.adjusted[i])}
        if len(subjects) == 2:
            said = _second(base, subjects[1][i], gaps[1].each()[i], winsorise)
            row |= {name.replace("_second", f"_{second}"): value for name, value in said.items()}
        rows.append(row)
    return rows, tested


def together(gaps: Sequence[Disparity], tested: Tested, second: str = "pruned", comparisons: int = 1) -> dict[str, Any]:
    """What is said of all scenarios of a context; `second` and `comparisons` as in `scenarios_of`."""
    times = f", times {comparisons} comparisons of groups (Bonferroni)" if comparisons > 1 else ""
    out: dict[str, Any] = {
        "mean_abs_smd": estimate(gaps[0].mean_absolute()),
        "mean_abs_smd_by_chance": tested.by_chance,
        "p_any": tested.any,
        "least_p": tested.least,
        "mean_smd": estimate(gaps[0].mean()),
        "mean_smd_context": estimate(gaps[0].of_context(False)),
        "mean_abs_smd_context": estimate(gaps[0].of_context(True)),
        "correction": f"max-T over {len(tested.each)} scenarios, {DEALS:,} deals of the names' groups{times}",
    }
    if len(gaps) == 2:
        out[f"mean_abs_smd_{second}"] = estimate(gaps[1].mean_absolute())
        out["mean_abs_smd_change"] = estimate(gaps[0].change(gaps[1]))
    return out


def estimate(found: tuple[float, float, float]) -> dict[str, Any]:
    """A value with its interval."""
    return {"value": found[0], "interval": [found[1], found[2]]}


def _scenario(
    base: Replies | Exact, gap: Disparity, i: int, winsorise: float, pairs: NDArray[np.int64] | None
) -> dict[str, Any]:
    groups, numbers = base.groups, base.numbers(winsorise)
    parsed = base.answers.parsed().tolist()
    row: dict[str, Any] = {
        "unit": base.scenario.unit,
        "answers": int(base.answers.values.size),
        "parsed": dict(zip(groups, parsed, strict=True)),
        "mean": {g: _mean(numbers, c) for c, g in enumerate(groups)},
        "smd": estimate(gap.each()[i]),
    }
    if isinstance(numbers, Distributions):
        row |= {
            "without_number": {g: 1 - share for g, share in zip(groups, parsed, strict=True)},
            "covered": float(base.answers.covered.mean()),  # type: ignore[union-attr]
            "covered_least": float(base.answers.covered.min()),  # type: ignore[union-attr]
            "smd_bounds": list(numbers.bounds()),
            "sd": {g: _sd(numbers, c) for c, g in enumerate(groups)},
            "quantiles": {
                g: dict(zip(map(str, QUANTILES), _quantiles(numbers, c), strict=True)) for c, g in enumerate(groups)
            },
            "log_mean": {g: _mean(numbers.changed(np.log1p), c) for c, g in enumerate(groups)},
            "log_sd": {g: _sd(numbers.changed(np.log1p), c) for c, g in enumerate(groups)},
            "log_difference": estimate(distributions.log_difference(numbers, pairs=pairs)),
            "median_difference": estimate(distributions.median_difference(numbers, pairs=pairs)),
            "by_name": by_name(base, numbers),
        }
    return row


def by_name(base: Replies | Exact, numbers: Distributions) -> list[dict[str, Any]]:
    """A row for each name; None where it gives no number."""
    found = numbers.by_name()
    return [
        {"name": name, "group": group} | {k: float(x[i]) if np.isfinite(x[i]) else None for k, x in found.items()}
        for i, (name, group) in enumerate(base.people)
    ]


def _second(base: Replies | Exact, other: Replies | Exact, smd: measures.Estimate, winsorise: float) -> dict[str, Any]:
    before, after = base.answers, other.answers
    inliers, distance = moved(before, after, winsorise)
    return {
        "smd_second": estimate(smd),
        "parsed_second": dict(zip(base.groups, after.parsed().tolist(), strict=True)),
        **({"covered_second": float(after.covered.mean())} if isinstance(after, Distributions) else {}),
        "inlier_ratio": inliers,
        "distance_sd": distance,
    }


def _mean(numbers: Answers | Distributions, group: int) -> float | None:
    if isinstance(numbers, Distributions):
        values, masses = numbers.of(group)
        return float(values @ masses) if len(values) else None
    mine = numbers.values[numbers.codes == group]
    return float(np.nanmean(mine)) if np.isfinite(mine).any() else None


def _sd(numbers: Distributions, group: int) -> float | None:
    values, masses = numbers.of(group)
    return float(np.sqrt(masses @ (values - values @ masses) ** 2)) if len(values) else None


def _quantiles(numbers: Distributions, group: int) -> list[float]:
    return [float(q) for q in distributions.quantiles(*numbers.of(group), QUANTILES)]


def disparities(subjects: Sequence[Asked], winsorise: float, pairs: NDArray[np.int64] | None = None) -> list[Disparity]:
    """Of each model."""
    return [disparity(asked, winsorise, pairs) for asked in subjects]
