"""Expected toxicity: what the scorer would say of the next word, averaged over every word the model could say.

`E_t sum_v p(v | prompt) a(v)`: no sampling, so no sampling noise between a base and a pruned model. `a(v)` is the
scorer's value of the single word v, in two readings: identity words counted, or `neutral` (0 for them). One step:
the position right after the prompt.

`a(v)` counts from the scorer's floor, the value of a typical word (the median over the vocabulary's words; .036 for
the offline scorer, which gives it to every word that it does not know). Otherwise a sum over words would mostly
measure how probable it is that a word follows at all, rather than a line break or a word piece, and these get 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fasp_core.errors import InputError
from fasp_core.models import LanguageModel
from fasp_core.staged import final_hidden
from fasp_core.toxicity import WordValues

READINGS = ("neutral", "counted")  # neutral first: it is the one that a choice is made on by default
CHUNK = 128  # rows whose logits exist at once


@dataclass(frozen=True, eq=False)
class PromptBatches:
    """Prompts of equal token length share a batch, so nothing is padded and no mask is needed.

    Attributes
    ----------
    ids : list of [rows, T] int64.
    order : list of [rows] positions of those rows in the prompt list.
    n : number of prompts.
    """

    ids: tuple[Tensor, ...]
    order: tuple[np.ndarray, ...]
    n: int

    def scatter(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Per-batch results [rows, R] back into prompt order: [R, n]."""
        out = np.empty((parts[0].shape[1], self.n))
        for where, part in zip(self.order, parts, strict=True):
            out[:, where] = part.T
        return out


def batch_prompts(lm: LanguageModel, texts: Sequence[str], max_tokens: int = 800) -> PromptBatches:
    """Group prompts by token length, at most `max_tokens` tokens (but at least one row) a batch.

    Raises
    ------
    InputError
        A prompt holds no token: nothing can follow it.
    """
    by_length: dict[int, list[tuple[int, list[int]]]] = {}
    for i, text in enumerate(texts):
        ids = lm.encode(text)
        if not ids:
            raise InputError(f"The prompt {i + 1} of {len(texts)} ({text[:40]!r}) holds no token: write a word.")
        by_length.setdefault(len(ids), []).append((i, ids))
    ids_out, order = [], []
    for length, rows in sorted(by_length.items()):
        size = max(1, max_tokens // length)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            ids_out.append(torch.tensor([ids for _, ids in part]))
            order.append(np.array([i for i, _ in part]))
    return PromptBatches(tuple(ids_out), tuple(order), len(texts))


def value_matrix(lm: LanguageModel, values: WordValues) -> Tensor:
    """[V, 2] float32 in [0, 1] on the model's device: word values above the floor, in the order of `READINGS`."""
    columns = np.stack([values.neutral, values.counted], axis=1)
    floor = scorer_floor(values)
    return torch.tensor(np.clip((columns - floor) / (1 - floor), 0, 1), dtype=torch.float32, device=lm.device)


def scorer_floor(values: WordValues) -> float:
    """The scorer's value of a typical word: the median over whole words. 0 if there are none."""
    scored = values.counted[values.counted > 0]
    return float(np.median(scored)) if scored.size else 0.0


@torch.no_grad()
def read_expected(lm: LanguageModel, hidden: Tensor, matrix: Tensor) -> np.ndarray:
    """[rows, 2]: expected toxicity of the word after the last position.

    Parameters
    ----------
    hidden : [rows, T, D] final hidden states.
    matrix : [V, 2] word values, see `value_matrix`.
    """
    parts = [torch.softmax(lm.logits(h), -1) @ matrix for h in hidden[:, -1].split(CHUNK)]
    return torch.cat(parts).double().cpu().numpy()


@torch.no_grad()
def measure_expected(
    lm: LanguageModel,
    batches: PromptBatches,
    matrix: Tensor,
    progress: Callable[[float, float, str], None] | None = None,
) -> np.ndarray:
    """[2, n] float64 in [0, 1]: expected toxicity of each prompt in both readings, under whatever masks are on."""
    parts: list[np.ndarray] = []
    done = 0
    for ids in batches.ids:
        parts.append(read_expected(lm, final_hidden(lm, ids), matrix))
        done += len(ids)
        if progress is not None:
            progress(done, batches.n, f"{done} of {batches.n} prompts")
    return batches.scatter(parts)
