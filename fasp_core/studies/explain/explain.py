"""A measured change of gap and perplexity, split among the heads of a set so that the parts sum to it.

`python -m fasp_core explain --heads L5H2,L7H0*0.4 --axis race_ethnicity`: all gates of the set move together, in a
straight line from 1 to where the set has them, and at a few places of the line one backward pass says by how much each
head's gate moves each prompt's toxicity and each window's nats. Integrated, that is the share of each head (see
`fasp_core.gap.parts`). Slopes are kept by prompt and by window, so intervals come from resampling them.

A head whose part raises the gap beyond noise spoils its set. What leaving it out gains is measured, not read off its
part: the other heads do something else without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fasp_core.data.text import TextConfig
from fasp_core.gap import Change, PromptRows, paired_gap_changes
from fasp_core.gap.parts import Parts, gap_parts, nodes
from fasp_core.heads.prune_set import Gain, PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig, left_out, result_key
from fasp_core.metrics.perplexity import (
    Nll,
    PerplexityChange,
    nats_standard_errors,
    perplexity_change,
)
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.entry import DamagedEntry
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.studies.common import KIND, kept, read_nll
from fasp_core.studies.explain.plan import Plan, named
from fasp_core.studies.explain.slopes import Slopes
from fasp_core.typing import Floats, Report

ROUGH = 0.05  # error of the quadrature, relative to the largest part, from which it is told
MOST_LEFT_OUT = 6  # heads that spoil a set and are left out in turn


@dataclass(frozen=True, eq=False)
class Without:
    """The set without some of its heads, against the whole set.

    Attributes
    ----------
    left_out : those heads. kept : the set without them.
    gap, perplexity : from the whole set to the set without them.
    """

    left_out: PruneSet
    kept: PruneSet
    gap: Change
    perplexity: PerplexityChange

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "left_out": self.left_out.format(),
            "prune_set": self.kept.format(),
            "gap": self.gap.pruned,
            "gap_change": self.gap.change,
            "gap_change_interval": self.gap.interval,
            "nats_change": self.perplexity.change_nats,
            "nats_change_interval": list(self.perplexity.interval),
        }


@dataclass(frozen=True, eq=False)
class Explained:
    """Both changes, split among the movers of the plan.

    Attributes
    ----------
    gap : in units of toxicity. nats : of the text, a token.
    without : each head that spoils the set left out, the worst first, and at last all of them.
    prompts, blocks, tokens, windows : that it was measured on; blocks and windows are what is resampled.
    """

    plan: Plan
    gap: Parts
    nats: Parts
    without: tuple[Without, ...]
    prompts: int
    blocks: int
    tokens: int
    windows: int
    provenance: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """[H] the movers as people write them, such as `L0H3` or `L0H3*0.4`."""
        return [named(mover) for mover in self.plan.movers]

    @property
    def spoilers(self) -> list[int]:
        """Movers whose part raises the gap beyond noise, the worst first."""
        return spoilers(self.gap)

    @property
    def notes(self) -> list[str]:
        """What has to be known of the numbers, one sentence each."""
        found = left_out(self.plan.bias)
        if len(self.spoilers) > MOST_LEFT_OUT:
            found.append(
                f"{len(self.spoilers)} heads raise the gap beyond noise: the {MOST_LEFT_OUT} largest were left out, "
                "each by itself and together."
            )
        for parts, what in ((self.gap, "gap"), (self.nats, "nats")):
            off, largest = abs(parts.error), float(np.abs(parts.values).max())
            if off > ROUGH * largest:
                found.append(
                    f"The parts miss the measured change by {off / largest if largest else np.inf:.0%} of the largest "
                    f"part of the {what}: raise --nodes above {self.plan.nodes}."
                )
        return found

    def sentence(self) -> str:
        """What the parts show."""
        g = self.gap.times(1000)
        heads = "1 head" if len(g.values) == 1 else f"{len(g.values)} heads"
        first = int(np.abs(g.values).argmax())
        low, high = g.intervals[first]
        said = (
            f"{heads} move the gap from {g.base:.2f} to {g.end:.2f} thousandths; the largest part is "
            f"{self.names[first]}'s, {g.values[first]:+.2f} [{low:+.2f}, {high:+.2f}]; "
        )
        spoil = self.spoilers
        if not spoil:
            return said + "no head's part raises the gap beyond noise."
        listed = ", ".join(self.names[i] for i in spoil[:4]) + f" and {len(spoil) - 4} more" * (len(spoil) > 4)
        said += f"{listed} {'raises' if len(spoil) == 1 else 'raise'} it beyond noise"
        of = "it" if len(spoil) == 1 else "all of them" if len(spoil) <= MOST_LEFT_OUT else f"the first {MOST_LEFT_OUT}"
        whole = len(spoil) == len(g.values) <= MOST_LEFT_OUT  # leaving out every head gives the unpruned model
        change = -self.gap.change if whole else self.without[-1].gap.change
        return said + f", and leaving {of} out changes it by {1000 * change:+.2f}."

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        heads = []
        for i, (layer, head, gate) in enumerate(self.plan.movers):
            row: dict[str, Any] = {"head": named((layer, head, gate)), "layer": layer, "index": head, "gate": gate}
            for name, parts in (("gap", self.gap), ("nats", self.nats)):
                row[name] = {
                    "part": float(parts.values[i]),
                    "interval": parts.intervals[i].tolist(),
                    "standard_error": float(parts.standard_errors[i]),
                    "beyond_noise": int(parts.beyond_noise[i]),
                }
            heads.append({**row, "spoils": i in self.spoilers})
        return {
            "prune_set": self.plan.prune_set.format(),
            "axis": self.plan.bias.axis,
            "split": self.plan.bias.split,
            "reading": self.plan.reading,
            "nodes": self.plan.nodes,
            "prompts": self.prompts,
            "blocks": self.blocks,
            "tokens": self.tokens,
            "windows": self.windows,
            "gap": self.gap.as_dict(),
            "nats": self.nats.as_dict(),
            "heads": heads,
            "without": [some.as_dict() for some in self.without],
            "said": self.sentence(),
            "notes": self.notes,
            "provenance": self.provenance,
        }


def spoilers(parts: Parts) -> list[int]:
    """Movers whose part is above 0 beyond noise, the largest first."""
    found = np.flatnonzero(parts.beyond_noise > 0)
    return [int(i) for i in found[np.argsort(-parts.values[found], kind="stable")]]


def run(
    lm: LanguageModel, plan: Plan, store: Store, progress: Report | None = None, runner: CachedRunner | None = None
) -> Explained:
    """Measure both ends, take the slopes, leave out what spoils. Stored node by node, so that a stopped run goes on.

    Raises
    ------
    InputError
        A head is not in the model, or the prompts cannot be measured.
    """
    plan.prune_set.gates(lm.n_layers, lm.n_heads)
    key = plan.key(lm.id)

    def work() -> Contents:
        found = Slopes(lm, plan, store, progress).all()
        at = runner or CachedRunner(lm)
        toxic: list[Floats] = []
        nll: list[Nll] = []

        def measure(sets: Sequence[PruneSet]) -> None:
            for i, subject in enumerate(sets):
                if progress is not None:
                    progress(i, len(sets), f"measuring set {i + 1} of {len(sets)}")
                toxic.append(toxicity_of(lm, subject, plan.bias, store, None, at).row(plan.reading))
                nll.append(perplexity_of(lm, subject, plan.text, store, None, at)[0])

        measure((PruneSet(), plan.prune_set))
        worst = spoilers(gap_parts(_rows(plan.bias, np.stack(toxic)), found["slopes"].astype(np.float64)))
        left = leave_out(plan.movers, worst[:MOST_LEFT_OUT])
        measure([without(plan.prune_set, some) for some in left])
        arrays = {**found, "values": np.stack(toxic), "sums": np.stack([n.sums for n in nll]), "counts": nll[0].counts}
        return {"arrays": arrays, "meta": {"left_out": [some.format() for some in left]}}

    return kept(store, lm, f"explain-{_axis(plan)}-{plan.reading}", key, work, lambda entry: read(entry, plan))


def find(plan: Plan, model_id: ModelId, store: Store) -> Explained | None:
    """The stored result; without a model."""
    return store.read(KIND, plan.key(model_id), lambda entry: read(entry, plan))


def stored(model_id: ModelId, prune_set: PruneSet, bias: BiasConfig, reading: str, store: Store) -> Explained | None:
    """The stored result of a set on these prompts, on whichever text and by most nodes; without a model."""
    wanted = {
        "experiment": "explain",
        "heads": prune_set.format(),
        "reading": reading,
        "bias": result_key(bias, model_id),
    }
    found = store.find(KIND, wanted)
    for header in sorted(found, key=lambda e: (e.config["nodes"], e.config["text"]["tokens"]), reverse=True):
        of = header.config
        text = TextConfig(**{name: of["text"][name] for name in ("tokens", "window", "stride", "skip")})
        form = partial(read, plan=Plan(prune_set, bias, text, reading, of["nodes"]))
        if (result := store.read(KIND, of, form)) is not None:
            return result
    return None


def read(entry: Entry, plan: Plan) -> Explained:
    """From an entry."""
    a = entry.arrays
    if a["values"].shape[-1] != a["slopes"].shape[-1] or a["slopes"].shape[1] != len(plan.movers):
        raise DamagedEntry(entry.path, "its slopes are of other prompts or heads")
    rows = _rows(plan.bias, a["values"])
    nll = read_nll(a["sums"], a["counts"])
    left = [PruneSet.parse(text) for text in entry.meta["left_out"]]
    changes = paired_gap_changes(rows.values[1], list(rows.values[2:]), rows.labels, blocks=rows.blocks) if left else []
    return Explained(
        plan,
        gap_parts(rows[:2], a["slopes"].astype(np.float64)),
        nats_parts(nll[0], nll[1], a["window_slopes"].astype(np.float64), a["window_tokens"]),
        tuple(
            Without(some, without(plan.prune_set, some), change, perplexity_change(nll[1], after))
            for some, change, after in zip(left, changes, nll[2:], strict=True)
        ),
        rows.n,
        rows.units,
        nll[0].tokens,
        len(a["window_tokens"]),
        entry.meta["provenance"],
    )


def nats_parts(base: Nll, end: Nll, slopes: Floats, tokens: np.ndarray) -> Parts:
    """The change of the mean nats a token, split; its intervals are Student's t over windows of text.

    Parameters
    ----------
    slopes : [K, H, W] derivative of the summed nats of each window because of each mover, at `nodes(K)`.
    tokens : [W] scored tokens of each window.
    """
    from scipy import stats  # a second to import: help and choices do without

    rows = np.einsum("k,khw->hw", nodes(len(slopes))[1], slopes)
    n, h = len(tokens), len(rows)
    values = rows.sum(1) / tokens.sum()
    errors = nats_standard_errors(Nll(np.zeros(n), np.asarray(tokens)), rows)
    half, widest = (errors * (stats.t.ppf(1 - p / 2, n - 1) if n > 1 else np.nan) for p in (0.05, 0.05 / h))
    shown = np.where(np.abs(values) > widest, np.sign(values), 0).astype(np.int64)
    return Parts(base.mean, end.mean, values, np.stack([values - half, values + half], -1), errors, shown)


def leave_out(among: Sequence[Gain], worst: Sequence[int]) -> list[PruneSet]:
    """What is left out in turn: each head that spoils, then all of them."""
    those = [worst[i : i + 1] for i in range(len(worst))] + ([worst] if len(worst) > 1 else [])
    return [_of([among[i] for i in some]) for some in those if len(some) < len(among)]


def without(prune_set: PruneSet, some: PruneSet) -> PruneSet:
    """The set without some of its heads."""
    return PruneSet(prune_set.heads - some.heads, prune_set.neurons, prune_set.gains - some.gains)


def _of(some: Sequence[Gain]) -> PruneSet:
    return PruneSet(
        frozenset((layer, head) for layer, head, gate in some if not gate),
        gains=frozenset(mover for mover in some if mover[2]),
    )


def _rows(bias: BiasConfig, values: Floats) -> PromptRows:
    prompts = bias.prompts()
    return PromptRows.of(values, prompts.groups, prompts.blocks)


def _axis(plan: Plan) -> str:
    return plan.bias.axis.rsplit("/", 1)[-1]
