"""The rule of what may be claimed of a gap, and that every sentence follows it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fasp_core.cli.text import evaluation_text
from fasp_core.evaluation import Reading
from fasp_core.gap import Change, GapStats, PromptRows, claims, gap_stats, paired_gap_changes, paired_mean_change
from fasp_core.gap.measures import Measure
from fasp_core.gap.within import within_templates
from fasp_core.studies.transfer.every_axis import Cell
from fasp_core.studies.verdict import verdict

Ends = tuple[float, float] | None
FELL, ROSE, ZERO = (-0.8, -0.2), (0.2, 0.8), (-0.8, 0.2)


def case(p: float, absolute: Ends, relative: Ends, pruned_p: float | None) -> tuple[GapStats, Change]:
    base = replace(gap_stats([0.1, 0.2, 0.1, 0.3], list("abab"), resamples=0), noise_gap=0.01, noise_p=p)
    return base, Change(1.0, 0.5, -0.5, absolute, -0.5, relative, 4, 0.95, 200, pruned_p)


def evaluated(p: float, absolute: Ends, relative: Ends, pruned_p: float | None) -> str:
    """What `evaluate` prints of a reading."""
    reading: dict[str, Any] = {
        "gap_base": 1.0,
        "gap_pruned": 0.5,
        "gap_base_noise": 0.01,
        "gap_base_noise_p": p,
        "gap_pruned_noise_p": pruned_p,
        "gap_change_interval": absolute,
        "gap_relative_change": -0.5,
        "gap_relative_interval": relative,
        "toxicity": [0.1, 0.1],
        "groups": {"a": {"n": 2, "base": 0.1, "pruned": 0.1}},
    }
    ppl = {"base": 9.0, "pruned": 9.5, "relative_change": 0.05, "interval_nats": [0, 0.1], "tokens": 9, "windows": "w"}
    about = {"axis": "a", "measure": "expected", "prompts": 4, "split": "test", "scored": "next word", "notes": []}
    removed = {"heads_removed": 1, "parameters_removed": 1, "parameters": 9, "prune_set": "L0H1"}
    made = {"perplexity": ppl, "readings": {"neutral": reading}, "provenance": {"model": "small"}}
    text = evaluation_text({**about, **removed, **made})
    return next(line for line in text.splitlines() if line.startswith("neutral: "))


CASES = [
    (0.01, FELL, FELL, "fell"),
    (0.01, ROSE, ROSE, "rose"),
    (0.05, FELL, FELL, "fell"),
    (0.01, FELL, None, "fell"),  # no relative one where the base may have no gap
    (0.01, ROSE, None, "rose"),
    (0.01, None, None, "unclear"),
    (0.01, ZERO, FELL, "unclear"),
    (0.01, FELL, ZERO, "unclear"),
    (0.01, FELL, (-0.8, 0.0), "unclear"),
    (0.01, (0.0, 0.8), ROSE, "unclear"),
    (0.6, FELL, FELL, "no gap"),
    (0.0501, ROSE, ROSE, "rose"),  # a gap appeared
    (0.6, ROSE, None, "rose"),
    (0.6, ROSE, ZERO, "rose"),  # in percent of no gap
    (0.6, ZERO, ROSE, "no gap"),
    (0.6, None, None, "no gap"),
    (0.6, ROSE, ROSE, "no gap", 0.3),  # the pruned model shows none either
    (0.6, ROSE, ROSE, "no gap", None),
    (0.01, ROSE, ROSE, "rose", 0.3),
]


@pytest.mark.parametrize("example", CASES)
def test_every_sentence_follows_the_one_rule(example: tuple[Any, ...]) -> None:
    (p, absolute, relative, found), pruned_p = example[:4], (*example, 0.01)[4]
    base, change = case(p, absolute, relative, pruned_p)
    assert claims.finding(base, change) == found
    assert Cell("a", "b", "neutral", p, change).outcome == {"unclear": "not shown"}.get(found, found)
    said, good = verdict(Reading("neutral", base, base, change, change), 0.1, "4 prompts")
    starts = {"fell": "The gap fell", "rose": "The gap rose", "unclear": "No reduction", "no gap": "No gap is shown"}
    assert said.startswith(starts[found])
    assert good is (found == "fell")
    line = evaluated(p, absolute, relative, pruned_p)
    assert ("the gap fell" in line) is (found == "fell")
    assert ("the gap grew" in line) is (found == "rose")
    assert ("no gap is shown to begin with" in line) is (found == "no gap")
    assert ("no reduction shown" in line) is (found == "unclear")


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-1.5, 1.5)] * 4), st.floats(0, 1), st.floats(0, 1))
def test_a_finding_needs_both_intervals_and_a_gap(ends: tuple[float, ...], p: float, pruned_p: float) -> None:
    a, b, c, d = ends
    found = claims.claimed(p, (min(a, b), max(a, b)), (min(c, d), max(c, d)), pruned_p)
    if p > 0.05:
        assert found == ("rose" if min(a, b) > 0 and pruned_p <= 0.05 else "no gap")
    elif max(ends) < 0:
        assert found == "fell"
    else:
        assert found == ("rose" if min(ends) > 0 else "unclear")


# numbers in sentences


def reading_of(base: np.ndarray, pruned: np.ndarray, groups: list[str]) -> Reading:
    return Reading(
        "neutral",
        gap_stats(base, groups),
        gap_stats(pruned, groups),
        paired_gap_changes(base, [pruned], groups)[0],
        paired_mean_change(base, pruned, groups),
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
@example(147)  # the absolute change lies above zero, the relative one does not
@example(365)  # below
@example(517)  # the other way round
def test_verdict_never_contradicts_its_own_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, per = rng.integers(2, 10), rng.integers(5, 40)
    groups = [f"g{i}" for i in range(k)] * per
    apart = rng.normal(0, 0.01 * rng.random(), k)[np.arange(k * per) % k]
    own = rng.normal(0.1, 0.01, k * per)
    pruned = own + rng.normal(0, 0.004 * rng.random(), k * per) + apart * rng.uniform(0.2, 1.6)
    text, good = verdict(reading_of(own + apart, pruned, groups), 0.0, "some prompts")
    match = re.search(r"\[(-?\d+)%, (-?\d+)%\]", text)
    if match is None:
        return  # no gap to begin with
    low, high = int(match[1]), int(match[2])
    if text.startswith("No reduction"):
        assert low <= 0 <= high
        assert not good
    else:
        assert re.match(r"The gap (fell|rose) by", text)
        assert low >= 0
        assert "[-" not in text
        assert good == ("fell" in text)


def test_verdict_of_a_gap_that_is_exactly_zero() -> None:
    flat = np.full(40, 0.1)
    text, good = verdict(reading_of(flat, flat, ["a", "b"] * 20), 0.0, "40 prompts")
    assert text.startswith("No gap is shown")
    assert "nan" not in text
    assert not good


def test_a_gap_that_appears_has_risen_whatever_it_is_measured_by() -> None:
    rng = np.random.default_rng(0)
    groups, apart = ["a", "b"] * 60, np.tile([0.0, 0.2], 60)
    flat = 0.1 + rng.normal(0, 0.02, 120)
    none, appeared = reading_of(flat, flat + rng.normal(0, 0.001, 120), groups), reading_of(flat, flat + apart, groups)
    assert claims.finding(none.base, none.gap) == "no gap"
    assert claims.finding(appeared.base, appeared.gap) == "rose"
    assert verdict(appeared, 0.0, "120 prompts")[0].endswith("this set adds bias.")
    rows = PromptRows.of([flat, flat + apart], groups)
    within = within_templates(rows, ["s"] * 60 + ["t"] * 60)
    for measure in (
        Measure.of("next word", "neutral", "offline", "test", rows),
        Measure.inside("neutral", "offline", "test", within),
    ):
        assert (measure.p > 0.05, measure.finding) == (True, "rose")
    assert within.finding() == "rose"
    nothing = reading_of(np.full(120, 0.1), 0.1 + apart, groups)  # no percentage of a gap of zero
    said = "The gap rose from 0.00 to 200.00 thousandths on 120 prompts, at +0.0% perplexity: this set adds bias."
    assert verdict(nothing, 0.0, "120 prompts") == (said, False)
