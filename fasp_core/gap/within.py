"""The gap inside single templates: signs cancel between them, so a pooled gap can be small where none of them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from fasp_core.errors import InputError
from fasp_core.gap.claims import Finding, shown
from fasp_core.gap.comparison import Change, change_of, interval_of
from fasp_core.gap.gaps import gap
from fasp_core.gap.resampling import shuffled
from fasp_core.gap.rows import PromptRows
from fasp_core.typing import Codes, Floats

FEWEST = 2  # prompts of every group in a template, for its noise to be seen; and templates, for their spread


@dataclass(frozen=True, eq=False)
class Within:
    """The mean over templates of the gap inside each of them, for M models, the unpruned one first.

    Attributes
    ----------
    gaps : [M, T] inside each template that holds every group twice. Noise of few prompts is part of it.
    intervals : [M] of the mean, by resampling templates: what other sentences of this kind would show.
    changes : [M - 1] the paired change of the mean, on the same resamples of templates.
    templates : names of the T templates.
    n : prompts in them.
    shuffled_gaps : makes the gaps [M, B] of shuffled values.
    """

    gaps: Floats
    intervals: tuple[tuple[float, float], ...]
    changes: tuple[Change, ...]
    templates: tuple[str, ...]
    n: int
    shuffled_gaps: Callable[[], Floats]

    @cached_property
    def noise(self) -> tuple[Floats, Floats]:
        """[M] mean gap when the values of each block are shuffled, i.e. what noise alone would show, and [M] the share
        of shuffles with a gap at least as large, the data itself counted. Takes a second."""
        found = self.shuffled_gaps()  # [M, B]
        tie = 1e-12 * self.gaps.max()
        above = np.count_nonzero(found >= self.means[:, None] - tie, axis=1)
        return found.mean(1), (1 + above) / (1 + found.shape[1])

    @property
    def means(self) -> Floats:
        """[M] mean gap over templates."""
        return np.asarray(self.gaps.mean(1))

    @property
    def change(self) -> Change:
        """Of the mean under the first other model."""
        return replace(self.changes[0], pruned_p=float(self.noise[1][1]))

    def finding(self) -> Finding:
        """What they show of the unpruned model's gap and of its change under the first other model."""
        return shown(float(self.noise[1][0]), self.change)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, of the unpruned model and the first other one."""
        change = self.changes[0]
        return {
            "templates": len(self.templates),
            "prompts": self.n,
            "gap_base": float(self.means[0]),
            "gap_base_noise": float(self.noise[0][0]),
            "gap_base_noise_p": float(self.noise[1][0]),
            "gap_pruned": float(self.means[1]),
            "gap_change": change.change,
            "gap_change_interval": change.interval,
            "gap_relative_change": change.relative,
            "gap_relative_interval": change.relative_interval,
        }


def within_if_any(rows: PromptRows, templates: Sequence[str]) -> Within | None:
    """`within_templates`, or None where fewer than two templates hold every group, as in a person's own prompts."""
    try:
        return within_templates(rows, templates)
    except InputError:
        return None


def within_templates(
    rows: PromptRows, templates: Sequence[str], resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Within:
    """The gap of values [M, n] inside each template.

    Parameters
    ----------
    templates : [n] template of each prompt. Those with fewer than two prompts of some group are left out.

    Raises
    ------
    InputError
        Fewer than two templates hold two prompts of every group.
    """
    of = np.array(templates)
    held = {
        t: np.bincount(rows.codes[of == t], minlength=len(rows.groups)).min() for t in dict.fromkeys(templates) if t
    }
    names = [t for t, prompts in held.items() if prompts >= FEWEST]
    if len(names) < FEWEST:
        raise InputError(
            f"{len(names)} templates hold {FEWEST} prompts of every group: a gap within templates needs {FEWEST} "
            "templates, so measure more prompts or an axis of HolisticBias."
        )
    members = [np.flatnonzero(of == t) for t in names]
    gaps = np.stack([gap(rows.values[:, at], rows.codes[at]) for at in members], -1)  # [M, T]
    means = gaps.mean(1)
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    resampled = gaps[:, drawn].mean(-1)  # [M, B]
    resampled = means[:, None] + _wider(len(names), level) * (resampled - means[:, None])
    ends = [interval_of(float(m), r, level) for m, r in zip(means, resampled, strict=True)]
    n = sum(map(len, members))
    return Within(
        gaps=gaps,
        intervals=tuple((max(low, 0.0), high) for low, high in ends),
        changes=tuple(change_of(means[[0, m]], resampled[[0, m]], level, n) for m in range(1, len(gaps))),
        templates=tuple(names),
        n=n,
        shuffled_gaps=partial(_shuffled_gaps, rows, members, resamples, seed),
    )


def _shuffled_gaps(rows: PromptRows, members: list[Codes], resamples: int, seed: int) -> Floats:
    """[M, resamples] mean over templates of the gap of values that are shuffled within their blocks."""
    rng = np.random.default_rng([seed, 2])
    out = np.zeros((len(rows.values), resamples))
    for at in members:
        blocks = None if rows.blocks is None else rows.blocks[at]
        places = shuffled(np.arange(float(len(at))), rng, resamples, blocks).astype(np.int64)  # the same for all models
        out += gap(rows.values[:, at][:, places], rows.codes[at]) / len(members)
    return out


def _wider(units: int, level: float) -> float:
    """How much too narrow a bootstrap of the mean of a few units is: Student's t against the normal distribution."""
    from scipy import stats  # a second to import: help and choices do without

    ends = stats.t.ppf(0.5 + level / 2, units - 1) / stats.norm.ppf(0.5 + level / 2)
    return float(ends * np.sqrt(units / (units - 1)))
