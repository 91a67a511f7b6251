"""What an experiment takes out of a model: heads and neurons, or single weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.studies.contexts import weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Removal:
    """Heads and neurons of a prune set, and single weights: flat positions by projection."""

    prune_set: PruneSet = field(default_factory=PruneSet)
    weights: Mapping[weights.Place, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many parts: heads, neurons and weights."""
        return len(self.prune_set) + sum(len(at) for at in self.weights.values())

    def key(self) -> str:
        """The same for the same removal, and no other: the set as text, and a hash of the weights."""
        if not any(len(at) for at in self.weights.values()):
            return self.prune_set.format()
        found = hashlib.sha256()
        for (layer, name), at in sorted(self.weights.items()):
            found.update(f"{layer} {name} {len(at)}".encode())
            found.update(at.sort().values.long().cpu().numpy().tobytes())
        return f"{self.prune_set.format()}+{found.hexdigest()[:16]}"

    def parameters(self, lm: LanguageModel) -> int:
        """How many parameters are off, of parts that do not overlap."""
        heads, neurons = len(self.prune_set.heads), len(self.prune_set.neurons)
        count = heads * lm.head_parameters() + (neurons * lm.neuron_parameters() if neurons else 0)
        return count + len(self) - len(self.prune_set)

    @contextmanager
    def off(self, lm: LanguageModel) -> Iterator[None]:
        """All of it is off for the time of the `with` block.

        Raises
        ------
        InputError
            A head or neuron is not in the model.
        """
        with masked(lm, self.prune_set), weights.without(lm, self.weights):
            yield
