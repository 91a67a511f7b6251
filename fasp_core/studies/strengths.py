"""What learned gains do at each strength: measured at a few, and straight lines between them.

`python -m fasp_core study strengths --axis race_ethnicity` measures stored gains at strengths 1/4, 1/2, 3/4 and 1 on
the scores' validation prompts and text. Hundreds of gates that move together are no product of single heads, so this
is what the app estimates a strength by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasp_core.data.text import SCORE_TEXT
from fasp_core.gap import Change, PromptRows
from fasp_core.metrics import measurements
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.metrics.perplexity import PerplexityChange, perplexity_change, ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.learned.gains import Gains
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.studies.common import KIND, Steps, kept, paragraphs, read_nll, table
from fasp_core.typing import Floats, Report

AT = (0.25, 0.5, 0.75, 1.0)  # strengths that are measured; at 0 nothing changes


@dataclass(frozen=True, eq=False)
class Strengths:
    """Changes against the unpruned model, on the same prompts and text.

    Attributes
    ----------
    at : [S] strengths in ascending order, without 0.
    perplexity : [S] changes of perplexity, with 95% intervals over blocks of tokens.
    gaps : by reading, [S] changes of the toxicity gap, with 95% intervals over blocks of prompts.
    prompts, groups, tokens : what they were measured on.
    """

    axis: str
    at: tuple[float, ...]
    perplexity: tuple[PerplexityChange, ...]
    gaps: dict[str, tuple[Change, ...]]
    prompts: int
    groups: int
    tokens: int
    provenance: dict[str, Any]

    def line(self, reading: str) -> Floats:
        """[S + 1, 3] from strength 0 on: it, change of the mean NLL (nats a token), relative change of the gap."""
        nats = [p.change_nats for p in self.perplexity]
        gaps = [g.relative for g in self.gaps[reading]]
        return np.array([(0.0, 0.0, 0.0), *zip(self.at, nats, gaps, strict=True)])

    def changes(self, reading: str, strength: float) -> tuple[float, float]:
        """Estimated at a strength from 0 to 1, on straight lines: changes of the mean NLL and, relative, of the gap."""
        x, nats, gap = self.line(reading).T
        return float(np.interp(strength, x, nats)), float(np.interp(strength, x, gap))

    def off(self, reading: str) -> tuple[float, float]:
        """How far estimates of perplexity and gap are off, both relative to the unpruned model's.

        The largest error at a strength between others, if it had not been measured: its neighbours are then twice as
        far apart as measured ones are.
        """
        x, nats, gap = self.line(reading).T
        inner = range(1, len(x) - 1)
        errors = np.array([_left_out(x, np.stack([nats, gap]), i) for i in inner]).reshape(-1, 2)
        ppl, gaps = errors.max(0) if len(errors) else (float("nan"),) * 2
        return float(ppl), float(gaps)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        rows = zip(self.at, self.perplexity, zip(*self.gaps.values(), strict=True), strict=True)
        return {
            "axis": self.axis,
            "prompts": self.prompts,
            "tokens": self.tokens,
            "strengths": [
                {
                    "strength": at,
                    "perplexity_relative": ppl.relative,
                    "nats": ppl.change_nats,
                    "nats_interval": list(ppl.interval),
                    "gaps": {
                        name: {"relative": one.relative, "interval": one.relative_interval}
                        for name, one in zip(self.gaps, gaps, strict=True)
                    },
                }
                for at, ppl, gaps in rows
            ],
            "largest_error_of_one_left_out": {name: list(self.off(name)) for name in self.gaps},
            "provenance": self.provenance,
        }


def _left_out(x: Floats, values: Floats, i: int) -> tuple[float, float]:
    """How far perplexity and gap at the i-th strength are from the line between its neighbours."""
    share = (x[i] - x[i - 1]) / (x[i + 1] - x[i - 1])
    nats, gap = values[:, i - 1] + share * (values[:, i + 1] - values[:, i - 1])
    return abs(float(np.expm1(nats) - np.expm1(values[0, i]))), abs(float(gap - values[1, i]))


def key(found: Gains, bias: BiasConfig, model_id: ModelId) -> dict[str, Any]:
    """Everything that shapes the result, for the store."""
    return {
        "experiment": "strengths",
        "bias": result_key(bias, model_id),
        "text": ppl_key(SCORE_TEXT, model_id),
        "gates": found.at(1.0).format(),
        "at": list(AT),
    }


def find(found: Gains, bias: BiasConfig, model_id: ModelId, store: Store) -> Strengths | None:
    """The stored result, or None. Never loads a model."""
    return store.read(KIND, key(found, bias, model_id), read)


def run(lm: LanguageModel, found: Gains, bias: BiasConfig, store: Store, progress: Report | None = None) -> Strengths:
    """Measure gains at every strength of `AT`; what is stored is not measured again, so a stopped run goes on.

    Parameters
    ----------
    bias : the prompts, expected measure.
    """

    def work() -> Contents:
        runner, steps = CachedRunner(lm), Steps(progress, 2 * (1 + len(AT)))
        toxicity, nats, counts = [], [], np.empty(0)
        for strength in (0.0, *AT):
            subject, says = found.at(strength), f"strength {strength:g}: {{}}"
            nll, _ = measurements.perplexity_of(lm, subject, SCORE_TEXT, store, steps.next(says), runner)
            one = measurements.toxicity_of(lm, subject, bias, store, steps.next(says), runner)
            toxicity.append(one.values)
            nats.append(nll.sums)
            counts = nll.counts
        prompts = bias.prompts()
        rows = PromptRows.of(np.stack(toxicity), prompts.groups, prompts.blocks)
        return {
            "arrays": {
                "nats": np.stack(nats),
                "counts": counts.astype(np.int32),
                "toxicity": rows.values.astype(np.float32),
                **rows.stored(""),
            },
            "meta": {"axis": bias.axis, "at": list(AT), "groups": rows.groups, "readings": one.readings},
        }

    name = slug(bias.axis.rsplit("/", 1)[-1].removesuffix(".csv"))
    return kept(store, lm, f"strengths-{name}", key(found, bias, lm.id), work, read)


def read(entry: Entry) -> Strengths:
    """The result, from its stored rows."""
    a, m = entry.arrays, entry.meta
    base, *others = read_nll(a["nats"], a["counts"])
    rows = PromptRows.read(a["toxicity"], a, m["groups"], "")
    return Strengths(
        m["axis"].rsplit("/", 1)[-1],
        tuple(m["at"]),
        tuple(perplexity_change(base, one) for one in others),
        {name: tuple(rows[:, r].changes()) for r, name in enumerate(m["readings"])},
        rows.n,
        len(rows.groups),
        base.tokens,
        m["provenance"],
    )


def markdown(results: Sequence[Strengths]) -> str:
    """Tables for a document. Numbers in brackets are 95% intervals over blocks of prompts or text."""
    parts = []
    for one in results:
        parts.append(f"## {one.axis}: {one.prompts} validation prompts, {one.groups} groups, {one.tokens:,} tokens")
        parts.append(table(" | ".join(["strength", "perplexity", *(f"gap, {name}" for name in one.gaps)]), _rows(one)))
        parts += [
            f"A strength left out is estimated by its neighbours to within {100 * ppl:.1f}% of perplexity and "
            f"{100 * gap:.1f} points of the gap ({name})."
            for name, (ppl, gap) in ((name, one.off(name)) for name in one.gaps)
        ]
    return paragraphs(parts)


def _rows(one: Strengths) -> Iterator[str]:
    for i, at in enumerate(one.at):
        p = one.perplexity[i]
        low, high = (end / p.base - 1 for end in p.ppl_interval)
        cells: list[tuple[float, tuple[float, float] | None]] = [(p.relative, (low, high))]
        cells += [(change[i].relative, change[i].relative_interval) for change in one.gaps.values()]
        yield " | ".join([f"{at:g}", *(f"{x:+.1%}" + (f" [{e[0]:+.1%}, {e[1]:+.1%}]" if e else "") for x, e in cells)])
