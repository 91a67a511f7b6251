"""The scores of all heads, as they are stored and as they are read.

Rows are kept, not only their means: with the toxicity of every prompt under every head's ablation, standard errors,
reliability and other readings of the gap need no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np

from fasp_core.errors import InputError
from fasp_core.gap import (
    Correction,
    GapStats,
    PromptRows,
    Reliability,
    choice_probability,
    gap_stats,
    head_standard_errors,
    resampled_effects,
    split_half_reliability,
    z_bias,
)
from fasp_core.gap import gap as toxicity_gap
from fasp_core.heads.selection import HeadScores
from fasp_core.lazy import pd
from fasp_core.metrics.perplexity import Nll, nats_standard_errors
from fasp_core.scoring.taught import Change, Closed, Taught, closed
from fasp_core.typing import Floats

T = TypeVar("T")
KEPT = 1000  # results a table remembers, estimates of sets among them
MOST = 1e3  # times that an estimate lets one head change the toxicity of a prompt


@dataclass(frozen=True, eq=False)
class PplImpacts:
    """Perplexity of a text with each head ablated.

    Attributes
    ----------
    base : NLL of the whole model.
    sums : [N, n_blocks] summed nats of each block of targets with head h removed; nan where not computed yet.
    magnitude, gradient : [N] scores of the two weight-based baselines.
    provenance : what made it.
    preview : [N] z_nats to be used where `sums` has none, such as approximate ones; None if there are none.
    removed : [N] bool, which entries of `preview` come from heads really removed.
    text : of what kind it is ("bold", "wikitext-2" or "file"), and how many tokens, in windows of how many, were asked
        for; 0 where that is not known.
    """

    base: Nll
    sums: np.ndarray
    magnitude: np.ndarray
    gradient: np.ndarray
    provenance: dict[str, Any]
    preview: np.ndarray | None = None
    removed: np.ndarray | None = None
    text: tuple[str, int, int] = ("bold", 0, 0)

    @cached_property
    def exact(self) -> np.ndarray:
        """[N] bool: whether the head was really removed."""
        return np.asarray(~np.isnan(self.sums).any(1)) if self.removed is None else self.removed

    @cached_property
    def z_nats(self) -> np.ndarray:
        """[N] mean NLL without h minus mean NLL, in nats a token. Positive: the head helps language modelling."""
        z = np.asarray((self.sums - self.base.sums).sum(1) / self.base.counts.sum())
        return z if self.preview is None else np.where(np.isnan(z), self.preview, z)

    @cached_property
    def se_nats(self) -> np.ndarray:
        """[N] standard errors of `z_nats` over blocks of consecutive tokens."""
        return nats_standard_errors(self.base, self.sums)

    @cached_property
    def z_ppl(self) -> np.ndarray:
        """[N] ppl(M without h) - ppl(M)."""
        return np.asarray(self.base.perplexity * np.expm1(np.minimum(self.z_nats, 700.0)))

    @cached_property
    def se_ppl(self) -> np.ndarray:
        """[N] standard errors of `z_ppl`, by the delta method with the base perplexity taken as fixed."""
        return np.asarray((self.z_ppl + self.base.perplexity) * self.se_nats)


@dataclass(frozen=True, eq=False)
class BiasImpacts:
    """Toxicity of prompts with each head ablated.

    Attributes
    ----------
    readings : names of the R readings ("neutral", "counted"; or "sampled").
    base : [R, n] toxicity of each prompt under the whole model.
    ablated : [N, R, n] the same with head h removed; nan where not computed yet.
    codes, groups : [n] group number of each prompt, and the groups' names.
    blocks : [n] block of each prompt, see `fasp_core.data.prompt_sampling.sample`; None if the prompts are in none.
    exact : [N] bool, whether the head was really removed; the other rows are first-order estimates. None: all were.
    estimator : one of `fasp_core.scoring.entries.ESTIMATORS`.
    first, checked : of two-phase scores, the first-order rows [N, R, n] of all prompts, and the positions [m] of the
        prompts on which heads were really removed. `ablated` then holds exact rows where there are any, and
        elsewhere first-order ones, moved by the mean error of their group. None for all other scores.
    """

    measure: str
    axis: str
    split: str
    scorer: str
    readings: tuple[str, ...]
    base: np.ndarray
    ablated: np.ndarray
    codes: np.ndarray
    groups: tuple[str, ...]
    provenance: dict[str, Any]
    blocks: np.ndarray | None = None
    exact: np.ndarray | None = None
    estimator: str = "exact"
    first: np.ndarray | None = None
    checked: np.ndarray | None = None

    def resampled_from(self, reading: str) -> tuple[PromptRows, Correction | None]:
        """[1 + N, n] rows that resampling begins with, the whole model's first, and what corrects them each time."""
        r = self._row(reading)
        rows, correction = self.ablated[:, r], None
        if self.first is not None and self.checked is not None:
            rows = self.first[:, r]
            correction = Correction((self.ablated[:, r] - rows)[:, self.checked], self.checked)
        return PromptRows.paired(self.base[r], rows, self.codes, self.blocks), correction

    def _row(self, reading: str) -> int:
        if reading not in self.readings:
            raise InputError(f"There is no reading '{reading}' of these scores: choose {' or '.join(self.readings)}.")
        return self.readings.index(reading)

    @cached_property
    def _kept(self) -> dict[Any, Any]:
        return {}

    def _once(self, key: Any, work: Callable[[], T]) -> T:
        """Resampling takes a moment and a page asks again at every click; what was asked for longest ago goes first."""
        found: T | None = self._kept.pop(key, None)
        value = work() if found is None else found
        self._kept[key] = value
        for old in list(self._kept)[:-KEPT]:
            self._kept.pop(old, None)
        return value

    @property
    def labels(self) -> list[str]:
        """[n] group name of each prompt."""
        return [self.groups[c] for c in self.codes]

    def z_bias(self, reading: str) -> np.ndarray:
        """[N] gap(M) - gap(M without h). Positive: removing the head lowers the gap."""
        r = self._row(reading)
        return np.asarray(z_bias(self.base[r], self.ablated[:, r], self.codes))

    @property
    def effect_size(self) -> np.ndarray:
        """[N, R] root mean square, over prompts, of the change of toxicity."""
        return np.asarray(np.sqrt(((self.ablated - self.base) ** 2).mean(-1)))

    def added_up(self, heads: Sequence[int], reading: str) -> float:
        """The gap if the heads' effects on every prompt's toxicity just added up (flat ids)."""
        r = self._row(reading)
        toxicity = np.clip(self.base[r] + (self.ablated[list(heads), r] - self.base[r]).sum(0), 0.0, 1.0)
        return float(toxicity_gap(toxicity, self.codes))

    def multiplied(self, heads: Sequence[int], reading: str) -> float:
        """The gap if each head changed every prompt's toxicity by a factor of its own, whatever else is removed."""
        r = self._row(reading)
        factors = self.ablated[list(heads), r] / np.maximum(self.base[r], 1e-12)
        return float(toxicity_gap(np.clip(self.base[r] * factors.prod(0), 0.0, 1.0), self.codes))

    def log_factors(self, reading: str) -> Floats:
        """[N, n] log of the factor by which each head's ablation changes a prompt's toxicity, `MOST` of it at most."""

        def work() -> Floats:
            r = self._row(reading)
            base, ablated = (rows[..., r, :].astype(np.float64) for rows in (self.base, self.ablated))
            factors = ablated.clip(1e-12) / base.clip(1e-12)
            return np.asarray(
                np.nan_to_num(np.log(factors.clip(1 / MOST, MOST)))
            )  # heads without a score yet: unchanged

        return self._once(("factors", reading), work)

    def estimate(self, heads: Closed, reading: str) -> float:
        """The gap if factors of single heads multiply; what fits whole sets, see `studies.additivity`."""
        by = closed(heads)
        logs = np.array(list(by.values())) @ self.log_factors(reading)[list(by)]
        toxicity = self.base[self._row(reading)] * np.exp(logs)
        return float(toxicity_gap(toxicity.clip(0.0, 1.0), self.codes))

    def standard_errors(self, reading: str, resamples: int = 1000) -> np.ndarray:
        """[N] bootstrap standard errors of `z_bias`, prompts resampled within groups."""

        def errors() -> np.ndarray:
            rows, correction = self.resampled_from(reading)
            return head_standard_errors(rows, resamples, correction=correction)

        return self._once(("se", reading, resamples), errors)

    def gap(self, reading: str) -> GapStats:
        """The whole model's gap, with what noise alone would give."""
        values = self.base[self._row(reading)]
        return self._once(("gap", reading), lambda: gap_stats(values, self.labels, blocks=self.blocks))

    def choice_probability(self, reading: str, k: int, critical: Sequence[int], resamples: int = 500) -> np.ndarray:
        """[N] share of resamples of the prompts in which a head is among the k that FASP prunes (flat ids)."""
        protected = np.zeros(len(self.ablated), dtype=bool)
        protected[list(critical)] = True

        def effects() -> np.ndarray:
            rows, correction = self.resampled_from(reading)
            return resampled_effects(rows, resamples, correction=correction)

        return np.asarray(choice_probability(self._once(("effects", reading, resamples), effects), k, protected))

    def reliability(
        self, reading: str, heads: Sequence[int] | None = None, kind: Literal["pearson", "spearman"] = "spearman"
    ) -> Reliability:
        """Split-half reliability of the ranking by z_bias, over all or some heads (flat ids)."""

        def halves() -> Reliability:
            rows, correction = self.resampled_from(reading)
            subset = None if heads is None else np.asarray(heads)
            return split_half_reliability(rows, subset, kind=kind, correction=correction)

        return self._once(("reliability", reading, None if heads is None else tuple(heads), kind), halves)


@dataclass(frozen=True, eq=False)
class TaskImpacts:
    """NLL of the last word of n passages with each head removed.

    Attributes
    ----------
    base : [n] nats, of the whole model.
    ablated : [N, n] nats, with head h removed; to first order unless `estimator` is "exact".
    rows : [n] int64, a hash of each passage.
    estimator : "exact", "first-order" or "two-phase".
    errors : [N, m] exact minus first-order, on the m passages of two-phase scores on which heads were removed.
    cut : passages that lost their beginning, the model taking no more.
    """

    base: Floats
    ablated: Floats
    rows: np.ndarray
    estimator: str
    provenance: dict[str, Any]
    errors: Floats | None = None
    cut: int = 0

    @cached_property
    def z_task(self) -> Floats:
        """[N] nats a word. Positive: the head helps."""
        z = (self.ablated - self.base).mean(1)
        return np.asarray(z if self.errors is None else z + self.errors.mean(1))

    @cached_property
    def se_task(self) -> Floats:
        """[N] standard errors of `z_task` over passages; of two phases, as if both samples were drawn apart."""
        se = _sem(self.ablated - self.base)
        return se if self.errors is None else np.hypot(se, _sem(self.errors))

    @property
    def passages(self) -> int:
        return len(self.base)

    @property
    def removed_on(self) -> int:
        """On how many of the passages every head was really removed."""
        if self.errors is not None:
            return int(self.errors.shape[1])
        return self.passages if self.estimator == "exact" else 0

    @property
    def said(self) -> str:
        """How they were made, in a few words."""
        short = f" ({self.cut:,} lost their beginning)" if self.cut else ""
        if self.errors is None:
            return f"{self.estimator}, {self.passages:,} passages{short}"
        few = f"every head removed on {self.removed_on:,} of them"
        return f"two-phase: first-order on {self.passages:,} passages{short}, {few}"


@dataclass(frozen=True, eq=False)
class ImpactTable:
    """Both impacts of every head of one model on one axis, and what a head is worth for a task, if that is known."""

    model: str
    n_layers: int
    n_heads: int
    ppl: PplImpacts
    bias: BiasImpacts
    task: TaskImpacts | None = None

    def head_scores(self, reading: str, protect: str = "perplexity") -> HeadScores:
        """What `fasp_core.heads.selection.select` chooses from; `protect` is what heads are critical by."""
        return HeadScores(
            self.n_layers,
            self.n_heads,
            z_ppl=self.ppl.z_nats,  # the same order as z_ppl, without its overflow
            z_bias=self.bias.z_bias(reading),
            magnitude=self.ppl.magnitude,
            gradient=self.ppl.gradient,
            z_task=None if self.task is None else self.task.z_task,
            protect=protect,
        )

    def added_up(self, heads: Iterable[int], reading: str) -> tuple[float, float]:
        """What a set would do if its heads' effects just added up: an estimate that ignores their interactions.

        Parameters
        ----------
        heads : flat ids.

        Returns
        -------
        estimated perplexity, and estimated gap (from the summed change of every prompt's toxicity).
        """
        ids = sorted(heads)
        nats = self.ppl.base.mean + float(self.ppl.z_nats[ids].sum())
        return float(np.exp(min(nats, 700.0))), self.bias.added_up(ids, reading)

    def estimate(
        self, heads: Closed, reading: str, taught: Taught | None = None, start: Change = (0.0, 0.0)
    ) -> tuple[float, float]:
        """Perplexity and gap of a set: effects of single heads multiplied, corrected by measured sets, beyond a start.

        `start` has changes that are known, as `estimated_changes` has them. The script of the app does the same, see
        `pages/instrument/rule.js`.
        """
        nats, change = self.estimated_changes(heads, reading)
        by = (taught or Taught()).factors
        gap = self.bias.estimate((), reading)
        nats, change = start[0] + by[0] * nats, start[1] + by[1] * change
        return float(np.exp(min(self.ppl.base.mean + nats, 700.0))), max(0.0, gap + change * gap)

    def estimated_changes(self, heads: Closed, reading: str) -> Change:
        """Changes of the mean NLL and, relative to the unpruned model's, of the gap, before any correction."""
        by = closed(heads)

        def work() -> Change:
            base = self.bias.estimate((), reading)
            change = self.bias.estimate(by, reading) / base - 1 if base else float("nan")
            return float(np.nan_to_num(self.ppl.z_nats)[list(by)] @ list(by.values())), change

        return self.bias._once(("estimated", tuple(by.items()), reading), work)

    def remainder(self, heads: Iterable[int], reading: str) -> tuple[float, float]:
        """How far `added_up` changes if effects multiply instead: the size of the second-order terms.

        Added up, a head takes away as much whatever else is removed; multiplied, as large a share. The difference
        is made of products of effects only. It says how much an estimate may be off, not by how much it is.

        Returns
        -------
        of the estimated perplexity, and of the estimated gap; both at least 0.
        """
        ids = sorted(heads)
        ppl, gap = self.added_up(ids, reading)
        plain = self.ppl.base.perplexity + float(self.ppl.z_ppl[ids].sum())
        return abs(ppl - plain), abs(gap - self.bias.multiplied(ids, reading))

    def frame(self) -> pd.DataFrame:
        """One row a head: layer, head, impacts and standard errors in every reading."""
        flat = np.arange(self.n_layers * self.n_heads)
        columns: dict[str, Any] = {
            "layer": flat // self.n_heads,
            "head": flat % self.n_heads,
            "z_ppl": self.ppl.z_ppl,
            "z_ppl_se": self.ppl.se_ppl,
            "z_nats": self.ppl.z_nats,
            "z_nats_se": self.ppl.se_nats,
        }
        for reading in self.bias.readings:
            columns[f"z_bias_{reading}"] = self.bias.z_bias(reading)
            columns[f"z_bias_{reading}_se"] = self.bias.standard_errors(reading)
        if self.task is not None:
            columns |= {"z_task": self.task.z_task, "z_task_se": self.task.se_task}
        columns["magnitude"] = self.ppl.magnitude
        columns["gradient"] = self.ppl.gradient
        return pd.DataFrame(columns)


def _sem(values: Floats) -> Floats:
    """[N] standard errors of the means of [N, n] values; nan where there is a single one."""
    n = values.shape[1]
    return np.asarray(values.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(values), np.nan))
