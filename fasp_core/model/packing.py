"""Prompts packed for one pass: equal lengths side by side, or shared beginnings only once.

Prompts of an axis share their templates' beginnings: 900 of them hold about 8,600 tokens but 3,400 different
beginnings. A *tree* keeps each different beginning as one token, in a row whose attention mask lets a token see its
own ancestors and nothing else, at the position it has in its prompt. The numbers are those of separate passes, up to
the rounding of another order of summation, for half of the work or less. (Tree attention, as in speculative decoding:
Miao et al., SpecInfer, ASPLOS 2024.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.errors import InputError
from fasp_core.lazy import torch
from fasp_core.model.devices import CPU, sizes
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.memory import two

if TYPE_CHECKING:
    from torch import Tensor

ROOM = 0.1  # what a token's room costs that a pack leaves empty, in tokens: each pack takes some time of its own


@dataclass(frozen=True, eq=False)
class Pack:
    """Token rows that run in one pass, and the places in them that are read.

    Attributes
    ----------
    ids : [rows, T] token ids.
    prompts : [m] positions, in the prompt list, of the prompts in this pack.
    reads : [m, steps] flat places `row * T + t`: the last `steps` tokens of each prompt.
    parents : [T] for a tree (one row, or the same one repeated), the place of each token's predecessor, -1 for a first
        one; else None.
    """

    ids: Tensor
    prompts: np.ndarray
    reads: Tensor
    parents: np.ndarray | None = None

    def on(self, device: torch.device) -> Pack:
        """The same with its token ids and places on a device, for a pack that is read many times."""
        if self.ids.device == device:
            return self
        return replace(self, ids=self.ids.to(device), reads=self.reads.to(device))

    def read(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Final hidden states [m * steps, D] at the places that are read, of [rows, T, D], and the tokens there."""
        places = self.reads.reshape(-1)
        return hidden.reshape(-1, hidden.shape[-1])[places.to(hidden.device)], self.ids.reshape(-1)[places]

    def inputs(self, lm: LanguageModel) -> dict[str, Tensor]:
        """What the model is called with."""
        ids = {"input_ids": self.ids.to(lm.device)}
        if self.parents is None:
            return ids
        depth, seen = tree_mask(self.parents)
        dtype = lm.model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        return ids | {"position_ids": depth[None].to(lm.device), "attention_mask": mask[None, None].to(lm.device)}


def halves(batch: Tensor | Pack) -> list[Any]:
    """Rows, or a pack, as two that hold the same prompts in the same order; itself if it has a single one."""
    if isinstance(batch, torch.Tensor):
        return two(batch)
    if len(batch.prompts) < 2:
        return [batch]
    ids, found = batch.ids.reshape(-1).tolist(), []
    steps, length = batch.reads.shape[1], batch.ids.shape[1]
    for part in two(np.arange(len(batch.prompts))):
        prompts, reads = batch.prompts[part], batch.reads[part]
        if batch.parents is None:  # one row a prompt
            found.append(Pack(batch.ids[part], prompts, reads - int(part[0]) * length))
            continue
        rows = [[ids[t] for t in _ancestry(batch.parents, leaf)] for leaf in reads[:, -1].tolist()]
        (tree,) = pack_trees(rows, steps, max_tokens=length)  # in their order: they come from a tree
        found.append(Pack(tree.ids, prompts[tree.prompts], tree.reads, tree.parents))
    return found


def repeated(batch: Tensor | Pack, times: int) -> Any:
    """A batch `times` times, one after the other, as the rows of one pass."""
    if isinstance(batch, torch.Tensor):
        return batch.repeat(times, 1)
    shift = torch.arange(times, device=batch.reads.device).repeat_interleave(len(batch.reads)) * batch.ids.numel()
    reads = batch.reads.repeat(times, 1) + shift[:, None]
    return replace(batch, ids=batch.ids.repeat(times, 1), prompts=np.tile(batch.prompts, times), reads=reads)


def _ancestry(parents: np.ndarray, leaf: int) -> list[int]:
    """Places from a row's first token to `leaf`."""
    path = [leaf]
    while parents[path[-1]] >= 0:
        path.append(int(parents[path[-1]]))
    return path[::-1]


def tree_mask(parents: np.ndarray) -> tuple[Tensor, Tensor]:
    """Depth [T] of each token, and [T, T] whether the token of a row sees that of a column.

    `parents[t] < t`: a token stands after its predecessor.
    """
    seen = np.eye(len(parents), dtype=bool)
    depth = np.zeros(len(parents), dtype=np.int64)
    for t, parent in enumerate(parents):
        if parent >= 0:
            seen[t] |= seen[parent]
            depth[t] = depth[parent] + 1
    return torch.from_numpy(depth), torch.from_numpy(seen)


def encode(lm: LanguageModel, texts: Sequence[str], more: int = 0) -> list[list[int]]:
    """Token ids of each prompt.

    Raises as `LanguageModel.encode`, and InputError for a prompt of no token.

    Parameters
    ----------
    more : tokens that are to follow each.
    """
    rows = []
    for i, text in enumerate(texts):
        what = f"The prompt {i + 1} of {len(texts)} ({text[:40]!r})" if len(texts) > 1 else f"The prompt {text[:40]!r}"
        rows.append(lm.encode(text, what, more))
        if not rows[-1]:
            raise InputError(f"{what} holds no token: write a word.")
    return rows


def pack(lm: LanguageModel, rows: Sequence[Sequence[int]], steps: int = 1) -> list[Pack]:
    """As trees where the model's attention allows it, else by equal length. The last `steps` tokens are read."""
    suits = sizes(lm.device)
    if trees_fit(lm, max(map(len, rows))):
        return pack_trees(rows, steps, suits.tree)
    return pack_equal(rows, steps, suits.prompts)


def trees_fit(lm: LanguageModel, longest: int) -> bool:
    """Whether prompts may share a row: attention takes a mask of one's own, no window is shorter than a prompt, and no
    prompt is so long that the rotary embeddings of all others would be scaled for it (longrope).
    """
    config = lm.model.config
    rope = getattr(config, "rope_parameters", None) or {}
    limits = [getattr(config, "sliding_window", None)]
    if rope.get("rope_type") == "longrope":
        limits.append(rope.get("original_max_position_embeddings"))
    return lm.architecture.trees and all(limit is None or longest <= limit for limit in limits)


def pack_equal(rows: Sequence[Sequence[int]], steps: int = 1, max_tokens: int = CPU.prompts) -> list[Pack]:
    """Prompts of equal length share a pack of at most `max_tokens` tokens (but at least one row): no padding."""
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(i)
    packs = []
    for length, members in sorted(by_length.items()):
        size = max(1, max_tokens // length)
        for start in range(0, len(members), size):
            part = np.array(members[start : start + size])
            packs.append(pack_rows(torch.tensor([list(rows[i]) for i in part]), part, steps))
    return packs


def pack_rows(ids: Tensor, prompts: np.ndarray, steps: int = 1) -> Pack:
    """Rows [m, T] of equal length as one pack; `prompts` [m] are their places in the list."""
    ends = torch.arange(1, len(ids) + 1)[:, None] * ids.shape[1]
    return Pack(ids, prompts, ends - torch.arange(steps, 0, -1))


def pack_trees(rows: Sequence[Sequence[int]], steps: int = 1, max_tokens: int = CPU.tree) -> list[Pack]:
    """One row a pack, of at most `max_tokens` different beginnings, or of one longer prompt and a quarter more.

    Prompts that are too many for one pack are parted where they share little, as what they share runs in both.
    """
    order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
    shared = [0, *(_shared(rows[a], rows[b]) for a, b in pairwise(order))]  # with the one before
    packs, start = [], 0
    while start < len(order):
        held = len(rows[order[start]])
        most = max(max_tokens, held + held // 4)
        costs = []  # in tokens, of an end after each prompt that fits
        for end in range(start + 1, len(order) + 1):
            costs.append((0 if end == len(order) else shared[end]) + ROOM * (most - held))
            if end == len(order) or (held := held + len(rows[order[end]]) - shared[end]) > most:
                break
        end = len(order) if held <= most else start + len(costs) - int(np.argmin(costs[::-1]))
        packs.append(_tree(rows, order[start:end], steps))
        start = end
    return packs


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    return next((t for t, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _tree(rows: Sequence[Sequence[int]], members: Sequence[int], steps: int) -> Pack:
    """Some of the prompts, in this order, as one row that holds each beginning once."""
    nodes: dict[tuple[int, ...], int] = {}
    ids: list[int] = []
    parents: list[int] = []
    reads: list[list[int]] = []
    for i in members:
        row = tuple(rows[i])
        places: list[int] = []
        for t, token in enumerate(row):
            place = nodes.get(row[: t + 1])
            if place is None:
                place = nodes[row[: t + 1]] = len(ids)
                ids.append(token)
                parents.append(places[-1] if places else -1)
            places.append(place)
        reads.append(places[-steps:])
    return Pack(torch.tensor([ids]), np.array(members), torch.tensor(reads), np.array(parents))
