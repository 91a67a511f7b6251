"""Which parts of a model are off. `PruneSet` is the only way to say it; `gated` is the only way to do it.

Ablating a head multiplies its slice of the attention output projection's *input* by zero (the projection's bias
stays). A gate of 1 leaves a number bit for bit as it was, so an untouched head is exactly untouched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.errors import InputError

if TYPE_CHECKING:  # seconds to import, and naming heads needs no model
    from torch import Tensor, nn

    from fasp_core.models import LanguageModel

Head = tuple[int, int]  # (layer, head), both from 0
_PART = re.compile(r"L(\d{1,4})H(\d{1,4})(?:-(\d{1,4}))?", re.IGNORECASE)


@dataclass(frozen=True)
class PruneSet:
    """A set of attention heads to remove. Hashable, ordered when listed, independent of any model."""

    heads: frozenset[Head] = frozenset()

    @classmethod
    def of(cls, heads: Iterable[Iterable[int]]) -> PruneSet:
        """From any (layer, head) pairs."""
        return cls(frozenset((int(layer), int(head)) for layer, head in heads))

    @classmethod
    def from_flat(cls, ids: Iterable[int], n_heads: int) -> PruneSet:
        """From flat ids `layer * n_heads + head`."""
        return cls.of(divmod(int(i), n_heads) for i in ids)

    @classmethod
    def parse(cls, text: str) -> PruneSet:
        """Read `L0H3,L2H1-4` (a range of heads of one layer, both ends included). Blank text is the empty set.

        Raises
        ------
        InputError
            A part is not of this form, or a range runs backwards.
        """
        heads: set[Head] = set()
        for part in re.split(r"[,;\s]+", text.strip()):
            if not part:
                continue
            match = _PART.fullmatch(part)
            if match is None:
                raise InputError(f"'{part[:40]}' is not a head: write heads as L0H3, and ranges of a layer as L2H1-4.")
            layer, first = int(match[1]), int(match[2])
            last = int(match[3]) if match[3] else first
            if last < first:
                raise InputError(f"The range '{part}' runs backwards: write the lower head first.")
            heads.update((layer, head) for head in range(first, last + 1))
        return cls(frozenset(heads))

    def format(self) -> str:
        """The shortest text that `parse` reads back: runs of three or more heads become ranges."""
        parts: list[str] = []
        run: list[Head] = []
        for head in [*sorted(self.heads), (-1, -1)]:
            if run and head == (run[-1][0], run[-1][1] + 1):
                run.append(head)
                continue
            if len(run) > 2:
                parts.append(f"L{run[0][0]}H{run[0][1]}-{run[-1][1]}")
            else:
                parts += [f"L{layer}H{h}" for layer, h in run]
            run = [head]
        return ",".join(parts)

    def flat(self, n_heads: int) -> list[int]:
        """Sorted flat ids `layer * n_heads + head`."""
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

    def toggled(self, head: Head) -> PruneSet:
        """The set with one head's membership turned over."""
        return PruneSet(self.heads ^ {head})

    def first_layer(self) -> int | None:
        """The lowest layer in which a head is removed; None for the empty set."""
        return min((layer for layer, _ in self.heads), default=None)

    def __len__(self) -> int:
        return len(self.heads)

    def __iter__(self) -> Iterator[Head]:
        return iter(sorted(self.heads))


@contextmanager
def gated(lm: LanguageModel, gates: Tensor | np.ndarray) -> Iterator[None]:
    """Multiply every head's slice of the projection input by a gate, for the time of the `with` block.

    Parameters
    ----------
    gates : [L, H], the same for every row of a batch, or [rows, L, H], one gate for each row. May require grad.

    The model is locked meanwhile, and always left as it was.
    """
    import torch

    gates = torch.as_tensor(gates, device=lm.device)
    if gates.shape[-2:] != (lm.n_layers, lm.n_heads) or gates.ndim not in (2, 3):
        raise ValueError(f"gates have shape {tuple(gates.shape)}, expected [..., {lm.n_layers}, {lm.n_heads}]")
    per_layer = gates if gates.ndim == 3 else gates[None]  # [rows or 1, L, H]
    with lm.lock:
        handles = []
        try:
            for layer in range(lm.n_layers):
                gate = per_layer[:, layer]
                if gate.requires_grad or bool((gate != 1).any()):
                    handles.append(lm.out_proj(layer).register_forward_pre_hook(_gate_input(gate)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def masked(lm: LanguageModel, prune_set: PruneSet) -> Any:
    """Context manager under which the heads of `prune_set` are removed."""
    return gated(lm, prune_set.gates(lm.n_layers, lm.n_heads))


def _gate_input(gate: Tensor) -> Any:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]  # [rows, T, H * head_dim]
        rows, steps, width = x.shape
        heads = x.view(rows, steps, gate.shape[-1], width // gate.shape[-1])
        return ((heads * gate.to(x.dtype)[:, None, :, None]).view(rows, steps, width), *args[1:])

    return hook
