"""What is split among which heads, and what it is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import Gain, PruneSet
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.identity import ModelId

MOST_NODES = 32


@dataclass(frozen=True)
class Plan:
    """What is split, and what it is measured on.

    Attributes
    ----------
    prune_set : heads removed or scaled.
    bias, reading : prompts, by the expected measure, and which of its readings.
    text : whose nats are split.
    nodes : places on the line at which slopes are taken.
    """

    prune_set: PruneSet
    bias: BiasConfig
    text: TextConfig
    reading: str = "neutral"
    nodes: int = defaults.NODES

    def __post_init__(self) -> None:
        if self.prune_set.neurons or not len(self.prune_set):
            raise InputError("A change is split among heads: name at least one, removed or scaled, and no neurons.")
        if self.bias.measure != "expected" or self.bias.contexts:
            raise InputError("A change is split by expected toxicity of each prompt by itself: choose that measure.")
        if self.reading not in self.bias.readings:
            raise InputError(f"There is no reading '{self.reading}': choose {' or '.join(self.bias.readings)}.")
        if not 1 <= self.nodes <= MOST_NODES:
            raise InputError(f"Slopes cannot be taken at {self.nodes} places: choose 1 to {MOST_NODES}.")

    @property
    def movers(self) -> tuple[Gain, ...]:
        """(layer, head, gate that it ends at), in order."""
        return movers(self.prune_set)

    def key(self, model_id: ModelId) -> dict[str, Any]:
        """Everything that shapes the result, for the store."""
        return {
            "experiment": "explain",
            "bias": result_key(self.bias, model_id),
            "text": ppl_key(self.text, model_id),
            "heads": self.prune_set.format(),
            "reading": self.reading,
            "nodes": self.nodes,
        }


def movers(prune_set: PruneSet) -> tuple[Gain, ...]:
    """(layer, head, gate that it ends at), in order."""
    return tuple(sorted([*((*head, 0.0) for head in prune_set.heads), *prune_set.gains]))


def named(mover: Gain) -> str:
    """Such as `L0H3`, or `L0H3*0.4` of a scaled head."""
    layer, head, gate = mover
    return f"L{layer}H{head}" + (f"*{gate:g}" if gate else "")
