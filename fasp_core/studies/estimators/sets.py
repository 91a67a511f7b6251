"""Sets of heads of many sizes and kinds, to be removed in an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fasp_core.errors import InputError
from fasp_core.heads.selection import HeadScores, select
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.score import GAMMA, prunable

SIZES = (5, 13, 27)  # 2, 5 and 10% of the built-in model's heads
FEWEST = 14


@dataclass(frozen=True)
class NamedSet:
    """Heads to remove (flat ids, ascending), and how they were chosen."""

    name: str
    heads: tuple[int, ...]


def sets(impacts: ImpactTable, seed: int = 0, sizes: tuple[int, int, int] = SIZES) -> list[NamedSet]:
    """At least 14 sets of different size and kind, chosen by validation scores; equal ones are one set.

    Raises
    ------
    InputError
        The model has too few heads that are not critical.
    """
    free = prunable(impacts)
    n = impacts.n_layers * impacts.n_heads
    if len(free) < max(sizes):
        raise InputError(f"Only {len(free)} heads are not critical: use sets of at most that many heads.")
    readings = impacts.bias.readings
    by = {reading: impacts.head_scores(reading) for reading in readings}
    rng = np.random.default_rng(seed)

    def pick(method: str, k: int, scores: HeadScores = by[readings[0]], seed: int = seed) -> tuple[int, ...]:
        return select(scores, method, GAMMA, k / n, seed=seed).pruned

    small, middle, large = sizes
    worst = replace(by[readings[0]], z_bias=-impacts.bias.z_bias(readings[0]))

    def fasp(k: int, reading: str) -> NamedSet:
        return NamedSet(f"FASP {k}, {reading}", pick("fasp", k, by[reading]))

    def random(k: int) -> NamedSet:
        return NamedSet(f"random {k}", pick("random", k, seed=seed + sizes.index(k)))

    def mixed(k: int) -> NamedSet:
        half = pick("fasp", k - k // 2)
        rest = rng.choice(sorted(set(free) - set(half)), k // 2, replace=False)
        return NamedSet(f"half FASP, half random {k}", tuple(sorted([*half, *map(int, rest)])))

    # the first dozen holds all kinds, for those who measure no more
    found = [fasp(k, readings[0]) for k in sizes]
    found += [fasp(k, reading) for reading in readings[1:] for k in (middle, large)]
    found += [NamedSet(f"opposite {k}", pick("fasp", k, worst)) for k in (small, middle)]
    found += [random(middle), random(large), mixed(middle)]
    found += [NamedSet(f"{method} {middle}", pick(method, middle)) for method in ("ppl-only", "bias-only")]
    found += [*(fasp(small, reading) for reading in readings[1:]), random(small), mixed(large)]
    strong = max(free, key=lambda head: abs(impacts.bias.z_bias(readings[0])[head]))
    found.append(NamedSet("one strong head", (strong,)))
    extra = seed + len(sizes)
    while len(named := _merged(found)) < FEWEST and extra < seed + 100:  # a tiny model has few sets
        found.append(NamedSet(f"random {sizes[1]}, seed {extra}", pick("random", sizes[1], seed=extra)))
        extra += 1
    return named


def _merged(found: Sequence[NamedSet]) -> list[NamedSet]:
    """Equal sets once, under all their names: the same point twice would feign agreement."""
    names: dict[tuple[int, ...], list[str]] = {}
    for s in found:
        names.setdefault(s.heads, []).append(s.name)
    return [NamedSet(" = ".join(name), heads) for heads, name in names.items()]
