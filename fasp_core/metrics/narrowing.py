"""The part of a large vocabulary that follows the tokens that are completed.

Of a step that completes a token (`completing.py`), the unembedding of hundreds of thousands of words takes more time
than all blocks, and nearly all of them are never said there. So a random sample of the tokens is looked at in whole,
and the rest sees only the words that the sample gives all but `MISSING` of the probability to, and the pieces that the
caller cannot do without. What that changes is found by completing others in whole again (`WordValues.largest_inexact`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from fasp_core.forward.next_word import Rows
from fasp_core.lazy import no_grad, torch
from fasp_core.metrics.completing import CONTEXTS, context_cache, one_more
from fasp_core.model.language_model import LanguageModel

SAMPLE = 512  # tokens looked at in whole
MISSING = 0.002  # probability that is left out in the sample, on average
WORTH_IT = 8  # times as many tokens to complete as are looked at in whole
AT_ONCE = 64  # positions whose logits exist at once


@no_grad
def narrowed(lm: LanguageModel, groups: Sequence[Sequence[int]], pieces: Iterable[int]) -> Rows | None:
    """The tokens that have to be looked at; None if that is most of them, or too few are completed to be worth it.

    Parameters
    ----------
    groups : token ids, those that are completed after each of `CONTEXTS`.
    pieces : ids that are looked at in any case.
    """
    count = sum(map(len, groups))
    if count < WORTH_IT * SAMPLE:
        return None
    rng, total = random.Random(0), torch.zeros((), dtype=torch.float64)
    for context, group in zip(CONTEXTS, groups, strict=True):
        drawn = rng.sample(list(group), min(len(group), round(SAMPLE * len(group) / count)))
        for start in range(0, len(drawn), AT_ONCE):
            part = drawn[start : start + AT_ONCE]
            with lm.lock:
                cache = context_cache(lm, context)
                states = one_more(lm, cache, torch.zeros(len(part), dtype=torch.long), torch.tensor(part))
                total = total + lm.logits(states).softmax(-1).sum(0).cpu().double()
    likeliest = total.argsort(descending=True)
    enough = int((total[likeliest].cumsum(0) < (1 - MISSING) * total.sum()).sum()) + 1
    ids = {*likeliest[:enough].tolist(), *pieces}
    return Rows.of(lm, sorted(ids)) if len(ids) < len(total) / 2 else None
