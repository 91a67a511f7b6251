"""What a comparison draws: one point for each method and alpha, and the best set of each method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fasp_core.heads.selection import METHODS
from fasp_core.lazy import pd
from fasp_core.studies.compare.compare import Comparison, choose
from fasp_core.studies.compare.plan import SEARCH, Side

ORDER = (*METHODS, SEARCH)  # of the methods, wherever they are listed
_VALUES = ("ppl", "gap")


def curves(
    comparison: Comparison, side: Side, reading: str, gamma: float | None = None, max_ppl: float = 0.1
) -> pd.DataFrame:
    """One row for each method and alpha.

    Of several seeds it is their mean, and low and high are the smallest and the largest of them; otherwise they are
    the ends of the 95% interval of the change, added to the unpruned model's value.

    Parameters
    ----------
    reading : of the gap that is drawn.
    gamma : of FASP; None: at each alpha the one that `best_gammas` chooses.

    Returns
    -------
    method, gamma, alpha, heads, seeds, and ppl, gap with _low and _high; by method in `ORDER`, then alpha.
    """
    frame = values(comparison, side, reading)
    if gamma is None:
        best = best_gammas(comparison, max_ppl)
        wanted = frame.alpha.map(best)
    else:
        wanted = pd.Series(gamma, index=frame.index)
    frame = frame[(frame.method != "fasp") | np.isclose(frame.gamma, wanted)]
    rows: list[dict[str, Any]] = []
    for (method, alpha), group in frame.groupby(["method", "alpha"]):
        row: dict[str, Any] = {"method": method, "alpha": alpha, "gamma": group.gamma.iloc[0], "seeds": len(group)}
        row["heads"] = group.heads.mean()
        for name in _VALUES:
            drawn, several = group[name], len(group) > 1
            row |= {
                name: drawn.mean(),
                f"{name}_low": drawn.min() if several else group[f"{name}_low"].iloc[0],
                f"{name}_high": drawn.max() if several else group[f"{name}_high"].iloc[0],
            }
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["method", "alpha"], key=_in_order, ignore_index=True)


def values(comparison: Comparison, side: Side, reading: str) -> pd.DataFrame:
    """`Comparison.frame` with the gap of one reading and perplexity, each with its interval in its own unit.

    The ends of the relative change of perplexity are ppl_change_low and ppl_change_high here.
    """
    frame = comparison.frame(side).rename(columns={f"ppl_{end}": f"ppl_change_{end}" for end in ("low", "high")})
    base_gap, base_ppl = comparison.base_gap_value(side, reading), comparison.sides[side].nll[0].perplexity
    return frame.assign(
        gap=frame[f"gap_{reading}"],
        gap_low=np.maximum(base_gap * (1 + frame[f"low_{reading}"]), 0.0),
        gap_high=base_gap * (1 + frame[f"high_{reading}"]),
        ppl_low=base_ppl * (1 + frame.ppl_change_low),
        ppl_high=base_ppl * (1 + frame.ppl_change_high),
    )


def both_sides(comparison: Comparison) -> pd.DataFrame:
    """One row a candidate: what it is, then all that was measured, of validation and of test."""
    frames = {side: comparison.frame(side) for side in comparison.sides}
    what = ["method", "gamma", "alpha", "seed", "heads", "set"]
    parts = [frame.drop(columns=what).add_suffix(f"_{side}") for side, frame in frames.items()]
    return pd.concat([frames["valid"][what], *parts], axis=1)


def best_gammas(comparison: Comparison, max_ppl: float) -> dict[float, float]:
    """FASP's gamma at each alpha: the lowest validation gap, in the reading of the plan, within the limit.

    Where no gamma keeps to the limit on perplexity it is the one of the lowest validation perplexity.
    """
    frame = comparison.frame("valid")
    out = {}
    for alpha, group in frame[frame.method == "fasp"].groupby("alpha"):
        inside = group[group.ppl_change <= max_ppl]
        best = (
            inside.nsmallest(1, f"gap_{comparison.plan.reading}") if len(inside) else group.nsmallest(1, "ppl_change")
        )
        out[float(alpha)] = float(best.gamma.iloc[0])  # type: ignore[arg-type]
    return out


def best_of_each(
    comparison: Comparison, max_ppl: float, fits: Callable[[Sequence[int]], bool] | None = None
) -> pd.DataFrame:
    """The choice that each method's own candidates would come to, on validation, and what it does on both sides.

    One row a method that has candidates. Columns: method, gamma, alpha, seed, heads (nan where nothing is within
    the limits), and of each side `ppl_SIDE` and, for each reading, `READING_SIDE`: relative changes.

    Parameters
    ----------
    fits : the other limits, as of `choose`.
    """
    rows = []
    for method in ORDER:
        if all(c.method != method for c in comparison.candidates):
            continue
        row: dict[str, Any] = {"method": method}
        if (chosen := choose(comparison, comparison.plan.reading, max_ppl, [method], fits=fits)) is not None:
            row |= {"gamma": chosen.gamma, "alpha": chosen.alpha, "seed": chosen.seed, "heads": len(chosen.heads)}
            for side in comparison.sides:
                row[f"ppl_{side}"] = comparison.perplexity(chosen, side).relative
                for reading in comparison.readings:
                    row[f"{reading}_{side}"] = comparison.change(chosen, side, reading).relative
        rows.append(row)
    columns = ["method", "gamma", "alpha", "seed", "heads"]
    for side in comparison.sides:
        columns += [f"ppl_{side}", *(f"{reading}_{side}" for reading in comparison.readings)]
    return pd.DataFrame(rows, columns=columns).astype({c: float for c in columns[1:]})


def _in_order(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.map(ORDER.index) if column.name == "method" else column
