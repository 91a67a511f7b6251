"""Which parts of a model are off: `PruneSet` is the only way to say it, `forward.ablation` the only way to do it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fasp_core.errors import InputError

Head = tuple[int, int]  # (layer, head), both from 0
Neuron = tuple[int, int]  # (layer, hidden unit of its MLP), both from 0
Gain = tuple[int, int, float]  # (layer, head, what its output is multiplied by)
MAX_GAIN = 1.5
MAX_HEADS = 100_000  # of a layer, and layers: a head id sizes an array
MAX_PARTS = 1_000_000  # that one text may name
_GAIN = r"(?:\*(\d{1,3}(?:\.\d{0,12})?|\.\d{1,12}))?"
_PART = re.compile(
    rf"L(\d{{1,4}})(?:H(\d{{1,4}})(?:-(\d{{1,4}}))?{_GAIN}|N(\d{{1,6}})(?:-(\d{{1,6}}))?)", re.IGNORECASE
)


@dataclass(frozen=True)
class PruneSet:
    """Attention heads and neurons (hidden units of MLPs) to remove, and heads to scale. Hashable, of no one model.

    Attributes
    ----------
    heads, neurons : what is removed.
    gains : heads whose output is multiplied by a number from 0 to 1.5 that is neither 0 (removed) nor 1 (as it is),
        in steps of .0001.
    """

    heads: frozenset[Head] = frozenset()
    neurons: frozenset[Neuron] = frozenset()
    gains: frozenset[Gain] = frozenset()

    @classmethod
    def of(cls, heads: Iterable[Iterable[int]] = (), neurons: Iterable[Iterable[int]] = ()) -> PruneSet:
        """From any (layer, head) and (layer, unit) pairs."""
        off, units = (frozenset((int(layer), int(i)) for layer, i in parts) for parts in (heads, neurons))
        return cls(off, units)

    @classmethod
    def from_gates(cls, gates: np.ndarray, neurons: Iterable[Neuron] = ()) -> PruneSet:
        """From gates [L, H] of all heads: 0 removes a head, 1 leaves it as it is, another number scales it.

        Raises
        ------
        InputError
            A gate is not a number from 0 to 1.5.
        """
        return _of_gates({(i, j): float(g) for (i, j), g in np.ndenumerate(gates)}, frozenset(neurons))

    @classmethod
    def from_flat(cls, ids: Iterable[int], n_heads: int) -> PruneSet:
        """From flat ids of heads, `layer * n_heads + head`."""
        return cls.of(divmod(int(i), n_heads) for i in ids)

    @classmethod
    def parse(cls, text: str) -> PruneSet:
        """Read `L0H3,L2H1-4,L5N17,L6H0*0.4`: heads, neurons, ranges of a layer (both ends included), scaled heads.

        Blank is the empty set.

        Raises
        ------
        InputError
            A part is not of this form, a range runs backwards, a gain is not from 0 to 1.5 or a head is given two, or
            more is named than any model has.
        """
        gates: dict[Head, float] = {}
        neurons: set[Neuron] = set()
        named = 0
        for part in re.split(r"[,;\s]+", text.strip()):
            if not part:
                continue
            match = _PART.fullmatch(part)
            if match is None:
                raise InputError(
                    f"'{part[:40]}' is not a head: write heads as L0H3, ranges of a layer as L2H1-4, scaled ones as "
                    "L0H3*0.4, and neurons as L5N17."
                )
            layer, gate = int(match[1]), float(match[4] or 0)
            first = int(match[2] or match[5])
            last = int(match[3] or match[6] or first)
            if last < first:
                raise InputError(f"The range '{part}' runs backwards: write the lower number first.")
            named += last + 1 - first
            if named > MAX_PARTS:  # before they are made: a short text can name billions
                raise InputError(f"More than {MAX_PARTS:,} heads and neurons are named: name those of one model.")
            if match[5]:
                neurons.update((layer, i) for i in range(first, last + 1))
                continue
            for head in ((layer, i) for i in range(first, last + 1)):
                if gates.setdefault(head, gate) != gate:
                    raise InputError(
                        f"L{head[0]}H{head[1]} is given two gains, {gates[head]:g} and {gate:g}: name one."
                    )
        return _of_gates(gates, frozenset(neurons))

    def format(self) -> str:
        """The text that `parse` reads back: heads, neurons, gains; runs of three or more become ranges."""
        gains = [f"L{layer}H{head}*{gain:g}" for layer, head, gain in sorted(self.gains)]
        return ",".join([*_written(self.heads, "H"), *_written(self.neurons, "N"), *gains])

    def flat(self, n_heads: int) -> list[int]:
        """Sorted flat ids of the heads, `layer * n_heads + head`."""
        return sorted(layer * n_heads + head for layer, head in self.heads)

    def gates(self, n_layers: int, n_heads: int) -> np.ndarray:
        """[L, H] float32: 0 for removed heads, the gain of scaled ones, 1 for the others.

        Raises
        ------
        InputError
            A head lies outside the model; the message names it and the model's shape.
        """
        gates = np.ones((n_layers, n_heads), dtype=np.float32)
        for layer, head, gate in sorted([*((*head, 0.0) for head in self.heads), *self.gains]):
            if layer >= n_layers or head >= n_heads:
                raise InputError(
                    f"L{layer}H{head} does not exist: this model has layers 0 to {n_layers - 1} "
                    f"with heads 0 to {n_heads - 1}."
                )
            gates[layer, head] = gate
        return gates

    def closed(self, n_heads: int) -> dict[int, float]:
        """By flat id, how far heads are closed: 1 for removed ones, 1 minus the gain of scaled ones."""
        scaled = {layer * n_heads + head: 1 - gain for layer, head, gain in self.gains}
        return scaled | dict.fromkeys(self.flat(n_heads), 1.0)

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

    @property
    def others(self) -> PruneSet:
        """Its neurons and gains alone."""
        return PruneSet(neurons=self.neurons, gains=self.gains)

    def others_told(self) -> str:
        """Such as `3 neurons and 12 scaled heads`; empty where there are none."""
        counts = ((len(self.neurons), "neuron"), (len(self.gains), "scaled head"))
        return " and ".join(f"{n:,} {what}{'s' * (n != 1)}" for n, what in counts if n)

    def below(self, layer: int) -> PruneSet:
        """The part that decides the input of block `layer`."""
        return PruneSet(
            frozenset(x for x in self.heads if x[0] < layer),
            frozenset(x for x in self.neurons if x[0] < layer),
            frozenset(x for x in self.gains if x[0] < layer),
        )

    def toggled(self, head: Head) -> PruneSet:
        """The set with one head's membership toggled; a gain that it had is gone."""
        return PruneSet(self.heads ^ {head}, self.neurons, frozenset(x for x in self.gains if x[:2] != head))

    def __len__(self) -> int:
        """How many parts are not as they were."""
        return len(self.heads) + len(self.neurons) + len(self.gains)

    def __iter__(self) -> Iterator[Head]:
        """The removed heads in order."""
        return iter(sorted(self.heads))


def _of_gates(gates: Mapping[Head, float], neurons: frozenset[Neuron]) -> PruneSet:
    for (layer, head), gate in gates.items():
        if not 0 <= gate <= MAX_GAIN:  # NaN too
            raise InputError(f"L{layer}H{head} cannot be multiplied by {gate:g}: a gain is from 0 to {MAX_GAIN}.")
    rounded = {head: round(gate, 4) for head, gate in gates.items()}
    return PruneSet(
        frozenset(head for head, gate in rounded.items() if gate == 0),
        neurons,
        frozenset((*head, gate) for head, gate in rounded.items() if gate not in (0, 1)),
    )


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
