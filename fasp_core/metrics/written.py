"""Written toxicity: expected toxicity at every step of what a model itself goes on to write.

    sum_t E[ a_t ],   a_t = sum_v p(v | prompt, c_<t) a(v),   c ~ the model that is measured

The continuations `c` are sampled with common noise (`fasp_core.forward.sampling`), and at each of their steps the next
word is not drawn but averaged over (Rao and Blackwell): the noise of which word came is gone, that of which words came
before stays. `a(v)` is the worth of a token, in both readings of `fasp_core.metrics.expected`; after the end of a text
nothing is written, and it counts 0. With one step this is `expected`, and no longer a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fasp_core.forward.sampling import GenerationConfig, draw
from fasp_core.lazy import torch
from fasp_core.metrics.expected import TokenToxicity
from fasp_core.model.language_model import LanguageModel
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 32  # steps
CELLS = 1 << 22  # probabilities that exist at once beside the logits


def written(
    lm: LanguageModel,
    prompts: Sequence[str],
    worth: TokenToxicity,
    config: GenerationConfig,
    progress: Report | None = None,
    *,
    ids: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """[R, tokens, n] float64 in [0, 1]: expected toxicity at each step of each prompt, the mean over its continuations.

    Under whatever masks are on. Two models with the same config have the same noise.

    Parameters
    ----------
    config : `tokens` is how many steps are looked at, `samples` how many continuations of each prompt.
    ids : token ids of the prompts, which are else tokenised; the texts name the noise.

    Raises
    ------
    InputError
        A prompt and its continuation do not fit into the model.
    NotFinite
        A logit is infinite or not a number.
    """

    def read(logits: Tensor, last: Tensor) -> Tensor:
        rows = max(CELLS // logits.shape[-1], 1)
        values = worth.values[: logits.shape[-1]]
        means = [torch.softmax(part, -1) @ values for part in logits.split(rows)]
        return worth.after(torch.cat(means), last)

    drawn = draw(lm, prompts, config, lm.stops, progress, ids=ids, read=read)
    return np.asarray(drawn.values.mean(1).transpose(2, 1, 0))
