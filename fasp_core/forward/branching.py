"""Many continuations of prompts at once, as trees that grow: each prompt is run once, each token of a tree once.

A tree's tokens stand in the row of their prompt, in whatever order they came; a mask lets each see the prompt and its
own ancestors alone, at the position that it has in its text (tree attention: Miao et al., SpecInfer, ASPLOS 2024). The
keys and values of all of them are kept, so any leaf can grow at any time. Where a model's attention takes no such mask,
each token is run behind its whole text instead: the same numbers, for more work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fasp_core.lazy import no_grad, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.packing import trees_fit

if TYPE_CHECKING:
    from torch import Tensor


class Branching:
    """Trees behind `n` prompts of one length, under whatever masks are on when they are grown.

    Parameters
    ----------
    prompts : token ids, all of one length of at least one token.
    longest : most tokens that a text of a tree may have.
    """

    def __init__(self, lm: LanguageModel, prompts: Sequence[Sequence[int]], longest: int) -> None:
        from transformers import DynamicCache  # half a second to import

        self._lm = lm
        self._ids = torch.tensor([list(p) for p in prompts])
        n, self._length = self._ids.shape
        self._texts: list[list[tuple[int, ...]]] = [[] for _ in range(n)]  # of each row, of each of its tokens
        self._cache = DynamicCache() if trees_fit(lm, self._length + longest) else None
        self._seen = torch.zeros(n, 0, 0, dtype=torch.bool)  # [n, tokens, tokens] whether a token sees another
        self._depth = torch.zeros(n, 0, dtype=torch.long)

    @no_grad
    def begin(self) -> Tensor:
        """[n, D] final hidden states of the prompts, on the device. Beginnings that all share are run once."""
        model, ids = self._lm.model.base_model, self._ids
        with self._lm.lock:
            if self._cache is None:
                return _last(model(ids.to(self._lm.device), use_cache=False))
            same = (ids == ids[:1]).all(0).long().cumprod(0).sum()
            shared = min(int(same), self._length - 1) if len(ids) > 1 else 0
            if shared:
                model(ids[:1, :shared].to(self._lm.device), past_key_values=self._cache, use_cache=True)
                self._cache.batch_repeat_interleave(len(ids))
            return _last(model(ids[:, shared:].to(self._lm.device), past_key_values=self._cache, use_cache=True))

    @no_grad
    def grow(self, parents: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Add a token to each of some texts.

        Parameters
        ----------
        parents : by row, for each new token the place of the one before it, -1 for the prompt's last; places count a
            row's tokens from 0, in the order in which they were added, fillings included.
        tokens : by row, their ids. Rows may differ in length.

        Returns
        -------
        [new tokens, D] final hidden states, row by row, on the device. Shorter rows have been filled up to the longest
        one; `width` says how many places each row has taken.
        """
        n, before = self._seen.shape[0], self._depth.shape[1]
        width = max(map(len, tokens))
        new = torch.zeros(n, width, dtype=torch.long)
        depth = torch.zeros(n, width, dtype=torch.long)
        seen = torch.zeros(n, before + width, before + width, dtype=torch.bool)
        seen[:, :before, :before] = self._seen
        real = torch.zeros(n, width, dtype=torch.bool)
        rows = []
        for r, (mine, added) in enumerate(zip(parents, tokens, strict=True)):
            for j, (parent, token) in enumerate(zip(mine, added, strict=True)):
                place = before + j
                new[r, j], real[r, j] = token, True
                if parent >= 0:
                    seen[r, place] = seen[r, parent]
                    depth[r, j] = self._depth[r, parent] + 1
                seen[r, place, place] = True
                text = (*(self._texts[r][parent] if parent >= 0 else ()), token)
                self._texts[r].append(text)
                rows.append([*self._ids[r].tolist(), *text])
            self._texts[r] += [()] * (width - len(added))
            seen[r, range(before + len(added), before + width), range(before + len(added), before + width)] = True
        self._seen, self._depth = seen, torch.cat([self._depth, depth], 1)
        model, lm = self._lm.model.base_model, self._lm
        with lm.lock:
            if self._cache is None:
                return _plain(lm, rows)
            dtype = lm.model.dtype
            mask = torch.zeros(n, 1, width, self._length + before + width, dtype=dtype)
            mask[:, 0, :, self._length :].masked_fill_(~seen[:, before:], torch.finfo(dtype).min)
            out = model(
                new.to(lm.device),
                attention_mask=mask.to(lm.device),
                position_ids=(self._length + depth).to(lm.device),
                past_key_values=self._cache,
                use_cache=True,
            )
            hidden: Tensor = out.last_hidden_state
            return hidden[real.to(hidden.device)]

    @property
    def width(self) -> int:
        """Places that each row has taken so far."""
        return self._depth.shape[1]


def _last(out: object) -> Tensor:
    hidden: Tensor = out.last_hidden_state[:, -1]  # type: ignore[attr-defined]
    return hidden


def _plain(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """[rows, D] final hidden states behind whole texts, those of one length side by side."""
    found: dict[int, Tensor] = {}
    for length in sorted({len(row) for row in rows}):
        members = [i for i, row in enumerate(rows) if len(row) == length]
        ids = torch.tensor([list(rows[i]) for i in members], device=lm.device)
        found |= dict(zip(members, _last(lm.model.base_model(ids, use_cache=False)), strict=True))
    return torch.stack([found[i] for i in range(len(rows))])
