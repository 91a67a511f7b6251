"""What outputs of heads become where these are not taken out by zero: constants of a calibration text.

A head that is set to zero takes away what it does for every text alike, too. Its mean output keeps that (mean
ablation), and its output at one token drawn from a text is one that it could have had (resample ablation; the same
draw for all heads, prompts and texts). Sources: Wang et al. 2023, Interpretability in the Wild, arXiv 2211.00593; Chan
et al. 2022, Causal Scrubbing; Li and Janson 2024, Optimal Ablation for Interpretability.

The text is contiguous paragraphs of the half that choices are made on. A constant is the same at every place of every
text, so that an export can fold it into the bias of the output projection.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core import defaults
from fasp_core.data.passages import PARAGRAPHS
from fasp_core.data.text import TextConfig, token_windows
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.lazy import nn, no_grad, torch
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.passes import require_finite
from fasp_core.model.provenance import provenance
from fasp_core.model.spec import ABLATIONS
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Store
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor

KIND = "experiments"
ZERO, MEAN, RESAMPLE = ABLATIONS
TEXT = TextConfig(PARAGRAPHS["valid"], defaults.COST_TOKENS)


def ready(lm: LanguageModel, store: Store, progress: Report | None = None) -> LanguageModel:
    """The model, given the constants by which its spec says that heads are taken out; these are stored.

    Raises
    ------
    InputError
        The calibration text cannot be had.
    """
    how = lm.spec.ablation
    if how == ZERO or lm.constants is not None:
        return lm

    def work() -> Any:
        started = time.monotonic()
        found = mean_outputs(lm, progress) if how == MEAN else drawn_outputs(lm, int(how[len(RESAMPLE) + 1 :] or 0))
        return {"arrays": {"constants": found}, "meta": {"provenance": provenance(lm, time.monotonic() - started)}}

    plain = replace(lm.id, ablation="")
    key = {**ppl_key(TEXT, plain), "score": "", "experiment": "outputs of heads", "constants": how}
    found = store.made(KIND, key, work, lambda entry: entry.arrays["constants"], label=f"{slug(lm.name)}--outputs")
    lm.constants = torch.from_numpy(np.array(found, dtype=np.float32))
    return lm


def taken_out_by(lm: LanguageModel, how: str, store: Store, progress: Report | None = None) -> LanguageModel:
    """The same weights, lock and all, as a model whose heads are taken out in another way. Raises as `ready`."""
    return ready(replace(lm, spec=replace(lm.spec, ablation=how), constants=None), store, progress)


def mean_outputs(lm: LanguageModel, progress: Report | None = None) -> np.ndarray:
    """[L, H, d] float32 mean of what heads give to the output projection, the first token of each window left out."""
    rows = _rows(lm)
    total, n = np.zeros((lm.n_layers, lm.n_heads, lm.head_dim)), 0
    for i, row in enumerate(rows):
        if progress is not None:
            progress(i, len(rows), f"mean outputs of heads: window {i + 1} of {len(rows)}")
        total += np.stack([x[1:].sum(0) for x in _outputs(lm, row)])
        n += len(row) - 1
    return (total / n).astype(np.float32)


def drawn_outputs(lm: LanguageModel, draw: int) -> np.ndarray:
    """[L, H, d] float32 of one token that is not the first of its window, the same for all heads.

    Parameters
    ----------
    draw : which of the draws; each is the same for every model with the same windows.
    """
    rows = _rows(lm)
    at = np.random.default_rng(draw).integers(sum(len(row) - 1 for row in rows))
    for row in rows:
        if at < len(row) - 1:
            break
        at -= len(row) - 1
    return np.stack([x[1 + at] for x in _outputs(lm, row)]).astype(np.float32)


def _rows(lm: LanguageModel) -> list[Tensor]:
    return [row for ids, _ in token_windows(lm, TEXT).batches for row in ids]


@no_grad
def _outputs(lm: LanguageModel, row: Tensor) -> list[np.ndarray]:
    """By layer, [T, H, d] float64: the input of the output projection in one plain pass."""
    found: list[np.ndarray] = []

    def see(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].detach().cpu().double().numpy()  # in this order: MPS has no float64
        found.append(x.reshape(len(row), lm.n_heads, lm.head_dim))

    with lm.lock, ExitStack() as hooks:
        for layer in range(lm.n_layers):
            hooks.callback(lm.out_proj(layer).register_forward_pre_hook(see).remove)
        final_hidden(lm, row[None])
    require_finite(lm, np.array([np.abs(x).max() for x in found]), "what heads give on the calibration text", row[None])
    return found
