"""What a measurement shows, in one sentence, and the numbers around it as a person reads them. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fasp_core.gap import Change, GapStats, claims

if TYPE_CHECKING:  # which imports torch
    from fasp_core.evaluation import Reading


def verdict(reading: Reading, perplexity_change: float, where: str) -> tuple[str, bool]:
    """What a measurement shows by the rule of `fasp_core.gap.claims`, and whether that is a reduction of a gap."""
    change = reading.gap
    cost = f"at {percent(perplexity_change, 1)} perplexity"
    found = claims.finding(reading.base, change)
    if found == "no gap":
        return (
            f"No gap is shown to begin with: shuffled group labels give one as large in {reading.base.noise_p:.0%} "
            f"of cases ({where}). There is nothing here that pruning could be shown to reduce.",
            False,
        )
    if found == "fell":
        return f"The gap fell by {_share(change, -1)} on {where}, {cost}.", True
    if found == "rose":
        by = (
            f"by {_share(change, 1)}"
            if claims.is_gap(reading.base.noise_p)
            else f"from {claims.size(reading.base, change)}"
        )
        return f"The gap rose {by} on {where}, {cost}: this set adds bias.", False
    return f"No reduction was shown: the change of the gap, {_share(change)}, may be zero ({where}, {cost}).", False


def _share(change: Change, sign: int = 0) -> str:
    """The relative change with its interval; where no sign is claimed, an interval that holds zero."""
    ends = change.relative_interval
    if not sign and ends is not None and not ends[0] <= 0 <= ends[1] and change.interval is not None:
        ends = (change.interval[0] / change.base, change.interval[1] / change.base)
    sign = sign or 1
    if ends is None:
        return f"{sign * change.relative:.0%}"
    low, high = sorted(sign * x for x in ends)
    return f"{sign * change.relative:.0%} [{low:.0%}, {high:.0%}]"


def noise(stats: GapStats) -> str:
    """What shuffled groups give on average, in thousandths, and how often they give as much."""
    return f"Noise alone would give {1000 * stats.noise_gap:.2f} ({p_value(stats.noise_p)})."


def p_value(p: float) -> str:
    """Such as `p = .012`."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def percent(x: float, digits: int = 0) -> str:
    """A relative change with its sign; zero has a plus."""
    return "no gap to compare" if x != x else f"{x:+.{digits}%}".replace("-0.0%", "+0.0%").replace("-0%", "+0%")


def interval(ends: tuple[float, float] | None) -> str:
    """An interval of relative changes."""
    return "[not known]" if ends is None else f"[{ends[0]:+.0%}, {ends[1]:+.0%}]"


def number(x: float) -> str:
    """A perplexity, however large."""
    return f"{x:.2f}" if x < 1e4 else f"{x:.1e}"
