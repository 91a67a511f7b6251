"""Which parts of a model are off: `PruneSet` is the only way to say it, `forward.ablation` the only way to do it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fasp_core.errors import InputError

Head = tuple[int, int]  # (layer, head), both from 0
Neuron = tuple[int, int]  # (layer, hidden unit of its MLP), both from 0
MAX_HEADS = 100_000  # of a layer, and layers: a head id sizes an array
MAX_PARTS = 1_000_000  # that one text may name
_PART = re.compile(r"L(\d{1,4})(?:H(\d{1,4})(?:-(\d{1,4}))?|N(\d{1,6})(?:-(\d{1,6}))?)", re.IGNORECASE)


@dataclass(frozen=True)
class PruneSet:
    """Attention heads and neurons (hidden units of MLPs) to remove. Hashable, ordered when listed, of no one model."""

    heads: frozenset[Head] = frozenset()
    neurons: frozenset[Neuron] = frozenset()

    @classmethod
    def of(cls, heads: Iterable[Iterable[int]] = (), neurons: Iterable[Iterable[int]] = ()) -> PruneSet:
        """From any (layer, head) and (layer, unit) pairs."""
        return cls(*(frozenset((int(layer), int(i)) for layer, i in parts) for parts in (heads, neurons)))

    @classmethod
    def from_flat(cls, ids: Iterable[int], n_heads: int) -> PruneSet:
        """From flat ids of heads, `layer * n_heads + head`."""
        return cls.of(divmod(int(i), n_heads) for i in ids)

    @classmethod
    def parse(cls, text: str) -> PruneSet:
        """Read `L0H3,L2H1-4,L5N17`: heads, neurons, ranges of a layer (both ends included). Blank: the empty set.

        Raises
        ------
        InputError
            A part is not of this form, a range runs backwards, or more is named than any model has.
        """
        heads: set[Head] = set()
        neurons: set[Neuron] = set()
        named = 0
        for part in re.split(r"[,;\s]+", text.strip()):
            if not part:
                continue
            match = _PART.fullmatch(part)
            if match is None:
                raise InputError(
                    f"'{part[:40]}' is not a head: write heads as L0H3, ranges of a layer as L2H1-4, and neurons as "
                    "L5N17."
                )
            layer, found = int(match[1]), heads if match[2] else neurons
            first = int(match[2] or match[4])
            last = int(match[3] or match[5] or first)
            if last < first:
                raise InputError(f"The range '{part}' runs backwards: write the lower number first.")
            named += last + 1 - first
            if named > MAX_PARTS:  # before they are made: a short text can name billions
                raise InputError(f"More than {MAX_PARTS:,} heads and neurons are named: name those of one model.")
            found.update((layer, i) for i in range(first, last + 1))
        return cls(frozenset(heads), frozenset(neurons))

    def format(self) -> str:
        """The shortest text that `parse` reads back, heads first: runs of three or more become ranges."""
        return ",".join([*_written(self.heads, "H"), *_written(self.neurons, "N")])

    def flat(self, n_heads: int) -> list[int]:
        """Sorted flat ids of the heads, `layer * n_heads + head`."""
        return sorted(layer * n_heads + head for layer, head in self.heads)

    def gates(self, n_layers: int, n_heads: int) -> np.ndarray:
        """[L, H] float32: 0 for removed heads, 1 for the others.

        Raises
        ------
        InputError
            A head lies outside the model; the message names it and the model's shape.
        """
        gates = np.ones((n_layers, n_heads), dtype=np.float32)
        for layer, head in sorted(self.heads):
            if layer >= n_layers or head >= n_heads:
                raise InputError(
                    f"L{layer}H{head} does not exist: this model has layers 0 to {n_layers - 1} "
                    f"with heads 0 to {n_heads - 1}."
                )
            gates[layer, head] = 0.0
        return gates

    def neuron_gates(self, n_layers: int, n_neurons: int) -> dict[int, np.ndarray]:
        """By layer in which neurons are removed: [F] float32, 0 for those and 1 for the others.

        Raises
        ------
        InputError
            A neuron lies outside the model; the message names it and the model's shape.
        """
        gates: dict[int, np.ndarray] = {}
        for layer, unit in sorted(self.neurons):
            if layer >= n_layers or unit >= n_neurons:
                raise InputError(
                    f"L{layer}N{unit} does not exist: this model has layers 0 to {n_layers - 1} "
                    f"with neurons 0 to {n_neurons - 1}."
                )
            gates.setdefault(layer, np.ones(n_neurons, dtype=np.float32))[unit] = 0.0
        return gates

    def below(self, layer: int) -> PruneSet:
        """The part that decides the input of block `layer`."""
        return PruneSet(*(frozenset(x for x in parts if x[0] < layer) for parts in (self.heads, self.neurons)))

    def toggled(self, head: Head) -> PruneSet:
        """The set with one head's membership toggled."""
        return PruneSet(self.heads ^ {head}, self.neurons)

    def __len__(self) -> int:
        return len(self.heads) + len(self.neurons)

    def __iter__(self) -> Iterator[Head]:
        """The heads in order."""
        return iter(sorted(self.heads))


def _written(parts: Iterable[tuple[int, int]], kind: str) -> list[str]:
    out: list[str] = []
    run: list[tuple[int, int]] = []
    for part in [*sorted(parts), (-1, -1)]:
        if run and part == (run[-1][0], run[-1][1] + 1):
            run.append(part)
            continue
        if len(run) > 2:
            out.append(f"L{run[0][0]}{kind}{run[0][1]}-{run[-1][1]}")
        else:
            out += [f"L{layer}{kind}{i}" for layer, i in run]
        run = [part]
    return out
