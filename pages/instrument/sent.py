"""What passes between the page and the instrument's script, in both directions."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fasp_core.figures.theme import DARK, Theme, veiled
from fasp_core.heads.selection import HeadScores, Selection, orders
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import ManualEdits

STEPS = 32_767  # the log of a head's largest change of a prompt's toxicity is so many of its steps
MOST = 100  # acts at once, the first of those that are sent: the others come again; a browser may send anything


@dataclass(frozen=True)
class Rule:
    """How heads are chosen; `rule.js` says what the fields are."""

    size: int
    cost: list[int] | None
    protect: list[int] | None
    found: list[int]
    critical: list[int]

    @classmethod
    def of(cls, scores: HeadScores, method: str, seed: int) -> Rule:
        """Of a method that is an order."""
        return cls(scores.n_layers * scores.n_heads, *orders(scores, method, seed), [], [])

    @classmethod
    def fixed(cls, found: Selection) -> Rule:
        """A set that was found otherwise, which changes by hand alone."""
        size = found.n_layers * found.n_heads
        return cls(size, None, None, list(found.pruned), list(found.critical))


@dataclass(frozen=True)
class Map:
    """One map of all heads: its texts, and `fasp_core.figures.cells.CellColors`."""

    title: str
    note: str
    help: str
    unit: str
    colors: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Strength:
    """Learned gains, whose strength is a slider.

    Attributes
    ----------
    value : the strength, from 0 to 1.
    gates : [N] what was learned for each head, as `Gains.gates` has it.
    at, nats, gap : [S] ascending strengths that were measured, 0 among them, and changes of the mean NLL (nats a token)
        and of the gap, relative to that of the unpruned model; none where they were not.
    off : usual errors of perplexity and gap between them, as text; learnt: from what, in a sentence.
    """

    value: float
    gates: list[float]
    at: list[float] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    off: tuple[str, str] = ("", "")
    learnt: str = ""


@dataclass(frozen=True)
class Shown:
    """All that the script draws but the effects of heads, which do not change with the set and are sent by themselves.

    Attributes
    ----------
    effects : the name of those.
    method : how a method is called; `sliders` are range, step and whether they are read, of gamma, alpha and strength.
    prune, keep : set by hand. gains: heads that are scaled by hand, by flat id, those that are off among them. picked:
        ringed.
    means : what a click does, as on the page: toggle, prune, keep, or leave to the method.
    order : which head stands at which place, layer after layer; None: as they are numbered.
    texts : [N] what is said of a head beside its state. sure: [N] percent of resamples in which it is chosen, or None.
    base : perplexity and gap of the unpruned model, the latter in thousandths.
    taught : factors of the estimates of both, see `fasp_core.scoring.taught`; off: their usual errors, as text; learnt:
        from what, in a sentence.
    colors : of the theme, by name.
    done : number of the last act that the page has acted on.
    strength : of learned gains, where they are the method: in place of gamma and alpha.
    """

    effects: str
    layers: int
    heads: int
    method: str
    rule: Rule
    gamma: float
    alpha: float
    sliders: dict[str, tuple[float, float, bool]]
    prune: list[int]
    keep: list[int]
    gains: dict[int, float]
    picked: list[int]
    means: str
    order: list[int] | None
    texts: list[str]
    sure: list[int | None] | None
    maps: list[Map]
    base: tuple[float, float]
    taught: tuple[float, float]
    off: tuple[str, str]
    learnt: str
    colors: dict[str, Any]
    done: int
    strength: Strength | None = None

    def sent(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Act:
    """What a hand has done, and nothing else: the rest is as the page has it by then.

    Attributes
    ----------
    n : its number; later ones are higher.
    gamma, alpha, strength : None where a slider stands as it stood.
    prune, keep, leave : heads that are told anew, by flat id; to leave is to the method.
    gains : what heads are scaled by from now on, by flat id: above 0, at most 1.5; 1 is as a head is.
    head : the head that was clicked last; None if a slider was moved.
    """

    n: int
    gamma: float | None
    alpha: float | None
    prune: frozenset[int]
    keep: frozenset[int]
    leave: frozenset[int]
    gains: dict[int, float]
    head: int | None
    strength: float | None = None

    def on(self, by_hand: ManualEdits) -> ManualEdits:
        """What is set by hand after it."""
        return by_hand.set(self.leave, None).set(self.prune, True).set(self.keep, False)


@dataclass(frozen=True)
class Step:
    """A key for one step back (-1) or forth (1) among what was done before; `n` as of an act."""

    n: int
    by: int


def effects(table: ImpactTable, reading: str) -> tuple[str, bytes]:
    """Single-head effects of a reading as the script multiplies them, and a name for them, which is a hash.

    A length (four bytes), as much JSON, and [N, n] logs of factors of toxicity as whole steps in two bytes each,
    all with the low byte first.
    """
    row = table.bias.readings.index(reading)
    base = table.bias.base[row]
    change = table.bias.log_factors(reading)
    scale = np.abs(change).max(1, initial=0) / STEPS
    steps = np.divide(change, scale[:, None], out=np.zeros_like(change), where=scale[:, None] > 0)
    head = {
        "nats": np.nan_to_num(table.ppl.z_nats).tolist(),
        "meanNats": table.ppl.base.mean,
        "base": base.tolist(),
        "scale": scale.tolist(),
        "groups": table.bias.codes.tolist(),
        "count": len(table.bias.groups),
        "task": None if table.task is None else table.task.z_task.tolist(),
    }
    body = np.rint(steps).astype("<i2").tobytes()
    digest = hashlib.sha256(json.dumps(head).encode() + body).hexdigest()[:16]
    text = json.dumps({"name": digest, **head}).encode()
    text += b" " * (-len(text) % 8)  # the script reads what follows at an even place
    return digest, struct.pack("<I", len(text)) + b"\0" * 4 + text + body


def colors_of(theme: Theme) -> dict[str, Any]:
    """Colors by the names that the script and its style sheet know."""
    dark = theme is DARK
    names = ("page", "text", "faint", "line", "ink", "halo", "missing")
    return {
        **{name: getattr(theme, name) for name in names},
        "scale": list(theme.scale),
        "veiled": veiled(theme.scale[-1], theme.neutral),
        "accent": theme.series[0],
        "ring": theme.series[2],
        "worse": "#F0A35C" if dark else "#9A4A00",
        "better": "#7CC4EE" if dark else "#00629B",
        "dark": dark,
    }


def acts(told: Any, done: int, size: int) -> list[Act | Step]:
    """Acts and steps with a number above `done`, in order; what is malformed or about other heads is passed over."""
    found = {}
    for one in told[:MOST] if isinstance(told, list) else ():
        if (act := _act(one, size)) is not None and act.n > done:
            found[act.n] = act
    return [found[n] for n in sorted(found)]


def _act(one: Any, size: int) -> Act | Step | None:
    if not isinstance(one, dict) or type(one.get("n")) is not int:
        return None
    if "step" in one:
        return Step(one["n"], one["step"]) if type(one["step"]) is int and abs(one["step"]) == 1 else None
    shares: list[Any] = [one.get(name) for name in ("gamma", "alpha", "strength")]
    hand: list[Any] = [one.get(name) for name in ("prune", "keep", "leave")]
    if not all(x is None or (type(x) in (int, float) and 0 <= x <= 1) for x in shares):
        return None
    if not all(isinstance(ids, list) and all(_head(i, size) for i in ids) for ids in hand):
        return None
    prune, keep, leave = (frozenset(ids) for ids in hand)
    head, gains = one.get("head"), _gains(one.get("gains"), size)
    if gains is None or prune & keep or leave & (prune | keep) or not (head is None or _head(head, size)):
        return None
    gamma, alpha, strength = (None if x is None else round(float(x), 6) for x in shares)
    return Act(one["n"], gamma, alpha, prune, keep, leave, gains, head, strength)


def _gains(pairs: Any, size: int) -> dict[int, float] | None:
    """Gains by flat id; None if they are malformed."""
    found = {}
    for pair in pairs if isinstance(pairs, list) else [None]:
        if not isinstance(pair, list) or len(pair) != 2 or not _head(pair[0], size):
            return None
        if type(pair[1]) not in (int, float) or not 0 < pair[1] <= 1.5:  # also refuses NaN
            return None
        found[pair[0]] = round(float(pair[1]), 6)
    return found


def _head(i: Any, size: int) -> bool:
    return type(i) is int and 0 <= i < size
