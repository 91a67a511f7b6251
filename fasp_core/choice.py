"""Which heads are off, and why: the method's choice with hand-made changes on top. Pure functions.

A hand-made change is an instruction ("prune this head", "keep that one"), so it survives a move of the sliders; one
that agrees with the method's choice is no change and is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fasp_core.impacts.table import BiasImpacts, ImpactTable
from fasp_core.masks import PruneSet
from fasp_core.selection import Selection


@dataclass(frozen=True)
class ByHand:
    """Hand-made changes, as flat ids: heads to prune and heads to keep whatever the method says."""

    prune: frozenset[int] = frozenset()
    keep: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.prune | self.keep)

    def effective(self, chosen: Iterable[int]) -> frozenset[int]:
        """The changes that differ from the method's choice at present."""
        picked = set(chosen)
        return frozenset((self.prune - picked) | (self.keep & picked))

    def apply(self, chosen: Iterable[int]) -> frozenset[int]:
        """Flat ids of the heads that are off."""
        return frozenset((set(chosen) - self.keep) | self.prune)

    def toggled(self, heads: Iterable[int], chosen: Iterable[int]) -> ByHand:
        """Turn heads over: those that are off come on, those that are on go off."""
        picked, off = set(chosen), self.apply(chosen)
        prune, keep = set(self.prune), set(self.keep)
        for head in heads:
            prune.discard(head)
            keep.discard(head)
            if head in off and head in picked:
                keep.add(head)
            elif head not in off and head not in picked:
                prune.add(head)
        return ByHand(frozenset(prune), frozenset(keep))


def prune_set(selection: Selection, by_hand: ByHand) -> PruneSet:
    """What is measured."""
    return PruneSet.from_flat(by_hand.apply(selection.pruned), selection.n_heads)


def reasons(selection: Selection, by_hand: ByHand) -> list[str]:
    """[N] one clause a head: why it is or is not pruned."""
    pruned, critical = set(selection.pruned), set(selection.critical)
    out = []
    for flat in range(selection.n_layers * selection.n_heads):
        if flat in by_hand.prune - pruned:
            out.append("pruned by hand" + (", although critical" if flat in critical else ""))
        elif flat in by_hand.keep & pruned:
            out.append(f"kept by hand; {selection.method} would prune it")
        elif flat in pruned:
            out.append(f"pruned by {selection.method}")
        elif flat in critical:
            out.append(f"kept: critical, among the {selection.gamma:.0%} that matter most for perplexity")
        else:
            out.append(f"kept: not among the {selection.k} that {selection.method} prunes")
    return out


def how(exact: np.ndarray | None, otherwise: str) -> str:
    """By what estimator scores were made, where some heads were removed (`exact` [N] bool) and others were not."""
    if exact is None or exact.all():
        return "exact"
    return f"exact for {exact.sum()} of {exact.size} heads, {otherwise} for the others" if exact.any() else otherwise


def how_bias(scores: BiasImpacts) -> str:
    """The same of bias scores; those of two phases are estimates, and name the prompts on which heads were removed."""
    if scores.checked is None or scores.exact is None:
        return how(scores.exact, "first-order estimate")
    return f"two-phase estimate: {scores.exact.sum()} heads removed on {len(scores.checked)} of the prompts"


def how_removed(scores: BiasImpacts) -> str:
    """What is to be said of a removed head's score: nothing if it is exact."""
    if scores.checked is None:
        return ""
    return f", two-phase estimate: removed on {len(scores.checked)} of {len(scores.codes)}"


def hover(
    table: ImpactTable, reading: str, why: list[str], bias_se: Iterable[float], sure: np.ndarray | None = None
) -> list[str]:
    """[N] what a cell says when pointed at: both impacts with units and standard errors, and why.

    `sure` [N] is the share of resamples of the prompts in which a head is chosen.
    """
    ppl, z_bias, exact, removed = table.ppl, table.bias.z_bias(reading), table.bias.exact, how_removed(table.bias)
    out = []
    for flat, (reason, se) in enumerate(zip(why, bias_se, strict=True)):
        layer, head = divmod(flat, table.n_heads)
        lines = [
            f"L{layer}H{head}",
            reason,
            f"perplexity: {_signed(ppl.z_ppl[flat])}{_plus_minus(ppl.se_ppl[flat])} without it "
            f"({ppl.z_nats[flat]:+.4f} nats a token)" + ("" if ppl.exact[flat] else ", preview"),
            f"gap falls by {1000 * z_bias[flat]:+.3f}{_plus_minus(1000 * se)} thousandths without it"
            + (removed if exact is None or exact[flat] else ", first-order estimate"),
            "± is one standard error",
        ]
        if sure is not None:
            lines.append(f"in the chosen set in {sure[flat]:.0%} of resamples of the prompts")
        out.append("\n".join(lines))
    return out


def _plus_minus(se: float) -> str:
    return f" ± {se:.2g}" if np.isfinite(se) else ""


def _signed(x: float) -> str:
    return f"{x:+.3f}" if abs(x) < 1000 else f"{x:+.2e}"
