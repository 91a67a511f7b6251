"""Orders from which a choice can be made without scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from fasp_core.errors import InputError
from fasp_core.heads.selection import METHODS, PROTECTS, HeadScores, orders, select


@given(some.sampled_from(METHODS), some.sampled_from(PROTECTS), some.integers(0, 99), some.floats(0, 1))
def test_a_choice_is_the_first_of_its_order(method: str, by: str, seed: int, share: float) -> None:
    """Few different values, so that most heads are tied."""
    rng = np.random.default_rng(seed)
    scores = HeadScores(4, 5, *(rng.integers(0, 4, 20).astype(float) for _ in range(5)), protect=by)
    first, protected = orders(scores, method, seed)
    found = select(scores, method, 1 - share, share, seed=seed)
    assert sorted(first) == list(range(20))
    assert (protected is None) == (method != "fasp")
    spared = set(protected[: len(found.critical)]) if protected else set()
    assert spared == set(found.critical)
    assert sorted([head for head in first if head not in spared][: found.k]) == list(found.pruned)


def test_what_cannot_be_ordered_is_refused() -> None:
    scores = HeadScores(1, 2, z_bias=np.array([1.0, np.nan]))
    for method, said in (("bias-only", "finite"), ("fasp", "z_ppl"), ("nonsense", "no method")):
        with pytest.raises(InputError, match=said):
            orders(scores, method)
