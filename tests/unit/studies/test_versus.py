"""The search against FASP, on a comparison with known numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fasp_core.gap import PromptRows, group_codes
from fasp_core.gap import gap as toxicity_gap
from fasp_core.metrics.perplexity import Nll
from fasp_core.scoring.search import Found, SearchConfig
from fasp_core.studies.compare.against_fasp import Versus, versus
from fasp_core.studies.compare.compare import Comparison, Measured
from fasp_core.studies.compare.plan import Candidate, Plan, Side

BASE_NATS, COUNTS = 3.0, np.full(16, 64)


def comparison(gaps: dict[tuple[int, ...], float], seed: int = 0, noise: float = 0.0002) -> Comparison:
    """Two groups of 60 prompts in blocks; each set has the gap that is given, and 1% more perplexity a head."""
    rng = np.random.default_rng(seed)
    heads = sorted(h for h in gaps if h)
    blocks = np.arange(120) // 2
    groups = ("a", "b") * 60
    sides: dict[Side, Measured] = {}
    for side in ("valid", "test"):
        frame = 0.05 + 0.01 * rng.random(60)[blocks]
        rows = [frame + gaps[h] / 2 * np.array([1.0, -1.0] * 60) + noise * rng.normal(size=120) for h in ((), *heads)]
        nll = [Nll(COUNTS * (BASE_NATS + np.log(1.01) * len(h)), COUNTS) for h in ((), *heads)]
        sides[side] = Measured(tuple(nll), PromptRows.of(np.stack(rows)[:, None], groups, blocks))
    found = [Candidate("fasp", 0.3, len(h) / 20, None, h) for h in heads if h[0] < 10]
    found += [Candidate("search", None, 0.2, s, h) for s, h in enumerate(h for h in heads if h[0] >= 10)]
    return Comparison("made-up", 4, 5, Plan("age"), ("neutral",), tuple(found), tuple(heads), sides, {})


def searches(made: Comparison, max_ppl: float = 0.05, learned: int = 0) -> list[Found]:
    """The finished searches that the comparison's candidates come from."""
    return [
        Found(SearchConfig(max_heads=4, max_ppl=max_ppl, seed=c.seed or 0), c.heads, 0.001, 0.01, 0.002, (), learned)
        for c in made.candidates
        if c.method == "search"
    ]


def compared(made: Comparison, max_ppl: float = 0.05) -> Versus | None:
    return versus(made, searches(made, max_ppl), "neutral", max_ppl)


FASP = {(): 0.02, (0,): 0.012, (0, 1, 2): 0.008, (0, 1, 2, 3, 4, 5): 0.001}


def test_lower_gaps_of_the_search_are_shown() -> None:
    made = comparison({**FASP, (10, 11): 0.004, (10, 12): 0.003, (10, 13): 0.005})
    found = compared(made)
    assert found is not None
    assert found.fasp.heads == (0, 1, 2)  # six heads are beyond both limits
    side = made.sides["test"]
    codes, _ = group_codes(side.rows.labels)
    gap = {
        c.heads: float(toxicity_gap(side.rows.values[row, 0], codes))
        for c, row in zip(made.candidates, made.rows, strict=True)
    }
    assert found.fasp_gap == pytest.approx(gap[0, 1, 2])
    for run in found.runs:
        assert run.gap == pytest.approx(gap[run.candidate.heads])
        assert run.less.value == pytest.approx((run.gap - found.fasp_gap) / found.base_gap)
        assert run.less.low < run.less.value < run.less.high < 0
        assert run.ppl_change == pytest.approx(1.01**2 - 1)
    assert found.mean.value == pytest.approx(np.mean([run.less.value for run in found.runs]))
    assert found.mean.low < found.mean.value < found.mean.high
    assert found.better
    assert "lower" in found.sentence()
    assert "(3 of them lower)" in found.sentence()


def test_higher_and_equal_gaps_are_said() -> None:
    worse = compared(comparison({**FASP, (10, 11): 0.016, (10, 12): 0.015}))
    assert worse is not None
    assert not worse.better
    assert "higher" in worse.sentence()
    same = compared(comparison({**FASP, (10, 11): 0.0081, (10, 12): 0.0079}, noise=0.004))
    assert same is not None
    assert same.mean.low < 0 < same.mean.high
    assert "not shown to differ" in same.sentence()


def test_without_either_there_is_no_comparison() -> None:
    assert compared(comparison(FASP)) is None
    made = comparison({**FASP, (10, 11): 0.004})
    assert compared(made, max_ppl=0.001) is None  # nothing of FASP's costs so little
    assert versus(made, searches(made, 0.06), "neutral", 0.05) is None  # the searches were allowed more
    assert versus(made, searches(made, learned=3), "neutral", 0.05) is None
    assert versus(made, [replace(f, heads=(1, 2)) for f in searches(made)], "neutral", 0.05) is None


def test_the_largest_group_of_searches_alike_counts() -> None:
    made = comparison({**FASP, (10, 11): 0.004, (10, 12): 0.003, (10, 13): 0.005})
    first, second, third = searches(made)
    looser = replace(third, config=replace(third.config, max_ppl=0.08))
    found = versus(made, [first, second, looser], "neutral", 0.1)
    assert found is not None
    assert [run.candidate.heads for run in found.runs] == [first.heads, second.heads]
    assert found.max_ppl == 0.05  # FASP's set keeps to it as well
    assert found.fasp.heads == (0, 1, 2)
    alone = versus(made, [first, looser], "neutral", 0.1)
    assert alone is not None
    assert [run.candidate.heads for run in alone.runs] == [looser.heads]  # of equals: the loosest
