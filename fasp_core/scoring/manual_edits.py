"""Which heads are off, and why: the method's choice around what was set by hand. Pure functions.

There is one idea for changes by hand: *prune these, keep those*. It is an instruction to whatever method chooses, so it
survives every slider, and the method chooses around it: heads ablated by hand count toward the share that is to be
pruned, and a place that opens is filled by the next best head. So the size of the set is what the slider says, and sets
with and without a change can be compared. The method "by hand only" prunes what is told and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import Selection
from fasp_core.scoring.impact_table import BiasImpacts, ImpactTable

HAND = "hand"  # the method that prunes what is told and nothing else
CRITICAL_FOR = {"perplexity": "perplexity", "task": "last words", "worse": "perplexity or last words"}
_LINE = re.compile(r"([LH])(\d{1,4})(?:-(\d{1,4}))?", re.IGNORECASE)


@dataclass(frozen=True)
class ManualEdits:
    """What was set by hand, as flat ids: heads to prune and heads to keep whatever the method says; none is in both."""

    prune: frozenset[int] = frozenset()
    keep: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.prune | self.keep)

    def set(self, heads: Iterable[int], off: bool | None) -> ManualEdits:
        """Heads to prune (True), to keep (False), or to leave to the method (None)."""
        named = frozenset(heads)
        prune, keep = self.prune - named, self.keep - named
        return ManualEdits(prune | named if off else prune, keep | named if off is False else keep)

    def toggle(self, heads: Iterable[int], choose: Choose) -> ManualEdits:
        """Toggle heads: those that are off come on, those that are on go off.

        Only what the method would not do of itself is told: a head turned twice is where it was. Since the method
        chooses around what is told, telling one head may move another; so it is looked at again until all stand.
        """
        named = set(heads)
        off = set(choose(self).pruned)
        new = self.set(named, None)
        while True:
            now = set(choose(new).pruned)
            wrong = {head for head in named if (head in now) == (head in off)}
            if not wrong:
                return new
            new = new.set(wrong - off, True).set(wrong & off, False)


Choose = Callable[[ManualEdits], Selection]


def apply_manual_edits(found: Selection, by_hand: ManualEdits) -> Selection:
    """A set that was chosen without knowing what is told, changed afterwards: nothing fills the places that open."""
    pruned = tuple(sorted((set(found.pruned) - by_hand.keep) | by_hand.prune))
    note = "The set was found without the heads that are set by hand: they were changed in it afterwards."
    differs = found.method != HAND and pruned != found.pruned
    return replace(
        found,
        pruned=pruned,
        k=len(pruned),
        notes=(*found.notes, note) if differs else found.notes,
        locked=tuple(sorted(by_hand.keep)),
        forced=tuple(sorted(by_hand.prune)),
    )


def nothing(method: str, gamma: float, alpha: float, seed: int, n_layers: int, n_heads: int) -> Selection:
    """A choice of no heads."""
    return Selection((), (), 0, 0, (), method, gamma, alpha, "stable", seed, n_layers, n_heads)


def prune_set(selection: Selection) -> PruneSet:
    """What is measured."""
    return PruneSet.from_flat(selection.pruned, selection.n_heads)


def block(first: int, last: int, n_heads: int, order: np.ndarray | None = None) -> frozenset[int]:
    """Flat ids of the rectangle of a grid between two heads, both within.

    `order` [N] says which head stands at which place of the grid, row by row; None: each at its own number.
    """
    place = np.arange(max(first, last) + 1) if order is None else np.argsort(order)
    (top, left), (bottom, right) = divmod(int(place[first]), n_heads), divmod(int(place[last]), n_heads)
    rows, columns = sorted((top, bottom)), sorted((left, right))
    places = [
        row * n_heads + column for row in range(rows[0], rows[1] + 1) for column in range(columns[0], columns[1] + 1)
    ]
    return frozenset(places if order is None else (int(order[place]) for place in places))


def heads_in(text: str, n_layers: int, n_heads: int) -> frozenset[int]:
    """Flat ids of the heads that a text names: `L0H3`, `L2H1-4`, whole layers `L5` or `L5-7`, head columns `H3`.

    Raises
    ------
    InputError
        A part that is none of these, a head outside the model, or no head at all.
    """
    found: set[int] = set()
    for part in filter(None, re.split(r"[,;\s]+", text.strip())):
        line = _LINE.fullmatch(part)
        if line is None:
            named = PruneSet.parse(part)
            if named.neurons:
                raise InputError(f"'{part}' is a neuron: only heads stand here, such as L0H3.")
            if "*" in part:
                raise InputError(f"'{part}' has a gain: heads are pruned or kept whole, so write L0H3 without one.")
            named.gates(n_layers, n_heads)  # says so if one is not there
            found.update(named.flat(n_heads))
            continue
        size, what = (n_layers, "layer") if line[1] in "lL" else (n_heads, "head column")
        first, last = int(line[2]), int(line[3] or line[2])
        if not first <= last < size:
            raise InputError(f"There is no {what} '{part[:40]}': this model has {what}s 0 to {size - 1}.")
        lines = range(first, last + 1)
        every = range(n_layers * n_heads)
        found.update(i for i in every if (i // n_heads if what == "layer" else i % n_heads) in lines)
    if not found:
        raise InputError("No head is named: write heads such as L0H3,L2H1-4, whole layers such as L5, or columns H3.")
    return frozenset(found)


def reasons(selection: Selection) -> list[str]:
    """[N] one clause a head: why it is or is not pruned."""
    pruned, critical = set(selection.pruned), set(selection.critical)
    forced, locked = set(selection.forced), set(selection.locked)
    out = []
    for flat in range(selection.n_layers * selection.n_heads):
        if flat in forced:
            out.append("pruned by hand" + (", although critical" if flat in critical else ""))
        elif flat in locked:
            out.append("kept by hand" + (", and critical" if flat in critical else ""))
        elif flat in pruned:
            out.append(f"pruned by {selection.method}")
        elif flat in critical:
            what = CRITICAL_FOR[selection.protect]
            out.append(f"kept: critical, among the {selection.gamma:.0%} that matter most for {what}")
        elif selection.method == HAND:
            out.append("kept: not named by hand")
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
    return f"two-phase estimate: {scores.exact.sum()} heads ablated on {len(scores.checked)} of the prompts"


def how_removed(scores: BiasImpacts) -> str:
    """What is to be said of a removed head's score: nothing if it is exact."""
    if scores.checked is None:
        return ""
    return f", two-phase estimate: removed on {len(scores.checked)} of {len(scores.codes)}"


def hover(
    table: ImpactTable, reading: str, why: list[str], bias_se: Iterable[float], sure: np.ndarray | None = None
) -> list[str]:
    """[N] what a cell says when pointed at: both impacts with units and standard errors, and why.

    `sure` [N] is the share of resamples of the prompts in which a head is chosen; NaN where it is not up for choice.
    """
    out = []
    for flat, (reason, text) in enumerate(zip(why, impacts(table, reading, bias_se), strict=True)):
        layer, head = divmod(flat, table.n_heads)
        lines = [f"L{layer}H{head}", reason, text]
        if sure is not None and np.isfinite(sure[flat]):
            lines.append(f"in the chosen set in {sure[flat]:.0%} of resamples of the prompts")
        out.append("\n".join(lines))
    return out


def impacts(table: ImpactTable, reading: str, bias_se: Iterable[float]) -> list[str]:
    """[N] what is known of a head whatever is chosen: its impacts with units and standard errors, on several lines."""
    ppl, z_bias, exact, removed = table.ppl, table.bias.z_bias(reading), table.bias.exact, how_removed(table.bias)
    out = []
    for flat, se in enumerate(bias_se):
        lines = [
            f"perplexity: {_signed(ppl.z_ppl[flat])}{_plus_minus(ppl.se_ppl[flat])} without it "
            f"({ppl.z_nats[flat]:+.4f} nats a token)" + ("" if ppl.exact[flat] else ", preview"),
            f"gap falls by {1000 * z_bias[flat]:+.3f}{_plus_minus(1000 * se)} thousandths without it"
            + (removed if exact is None or exact[flat] else ", first-order estimate"),
            "± is one standard error",
        ]
        if (task := table.task) is not None:
            lines.insert(-1, f"last words: {task.z_task[flat]:+.3f}{_plus_minus(task.se_task[flat])} nats without it")
        out.append("\n".join(lines))
    return out


def _plus_minus(se: float) -> str:
    return f" ± {se:.2g}" if np.isfinite(se) else ""


def _signed(x: float) -> str:
    return f"{x:+.3f}" if abs(x) < 1000 else f"{x:+.2e}"
