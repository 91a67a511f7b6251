"""The sentence of a claim and its cautions follow what was shown of each measure."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fasp_core.console import to_json
from fasp_core.gap import gap_stats, paired_gap_changes
from fasp_core.gap.claims import NEEDED, cautions, finding, is_artefact
from fasp_core.gap.measures import Measure
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import PerplexityChange
from fasp_core.model.identity import ModelId
from fasp_core.storage.store import Store
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.compare.outcome import Claim, ClaimConfig
from fasp_core.studies.compare.plan import Candidate
from fasp_core.tasks import utility
from tests.support.made import OUTCOME_KEYS as KEYS
from tests.support.made.tasks import add_answers, use_tasks
from tests.support.tiny import HEADS

SMALL = ClaimConfig(prompts=30, tokens=120, sampled_prompts=12, samples=2, length=2)


@cache
def claimed(reading: str = "neutral", **after: tuple[float, float]) -> Claim:
    """A claim from drawn values: for each measure, the distance between groups before and after pruning."""
    rng = np.random.default_rng(4)
    codes, blocks = np.tile(np.arange(3), 60), np.repeat(np.arange(60), 3)
    groups = [f"g{c}" for c in codes]
    base, change = {}, {}
    for name, (first, second) in after.items():
        noise = rng.normal(0, 0.004, (2, codes.size))
        before, pruned = 0.05 + first * codes + noise[0], 0.05 + second * codes + 0.2 * noise[1] + 0.8 * noise[0]
        base[name] = gap_stats(before, groups, blocks=blocks)
        change[name] = paired_gap_changes(before, [pruned], groups, blocks=blocks)[0]
    ppl = PerplexityChange(24.0, 25.2, float(np.log(1.05)), (0.04, 0.06), (25.0, 25.5), 8192, 128)
    candidate = Candidate("fasp", 0.3, 0.05, None, (1, 5))
    return Claim("m", "axis", candidate, reading, 0.1, SMALL, ppl, base, change, HEADS, {"seconds": 1.0})


FELL, STAYED, ROSE, NONE = (0.01, 0.002), (0.01, 0.01), (0.01, 0.02), (0.0, 0.0)


def test_a_claim_is_judged_by_the_limit_that_is_asked() -> None:
    """It costs 5%, and was measured for a choice within 10%."""
    claim = claimed(neutral=FELL)
    within, beyond = claim.under(Limits(0.06)), claim.under(Limits(0.04))
    assert (within.verdict.wrong, beyond.verdict.colour) == ((), "red")
    assert beyond.as_dict()["chosen_on"].endswith("perplexity at most 4% up")


def test_a_choice_that_saw_everything_has_no_unseen_proof() -> None:
    claim, change = claimed(neutral=FELL), claimed(neutral=FELL).change["neutral"]
    beside = [Measure(name, "neutral", "offline", "test, new both", 9, 0, 0.1, 0.001, change) for name in NEEDED]
    assert all(m.evidence.unseen and m.evidence.found == "fell" for m in beside)
    found = replace(claim)
    found.__dict__.update(measures=tuple(beside))
    assert found.verdict.colour == "amber"


def test_a_claim_that_is_shown() -> None:
    claim = claimed(neutral=FELL, counted=FELL, sampled=FELL)
    assert claim.shown
    assert not claim.cautions()
    change = claim.change["neutral"]
    assert change.relative_interval is not None
    low, high = (-100 * x for x in reversed(change.relative_interval))
    reduced = f"Gap reduced by {-100 * change.relative:.0f}% [{low:.0f}%, {high:.0f}%]"
    assert claim.sentence() == f"{reduced} on 180 test prompts at +5.0% perplexity."
    d = claim.as_dict()
    assert d.keys() >= KEYS
    assert d["interval_pct"] == pytest.approx([low, high])
    assert low < d["reduction_pct"] < high
    assert (d["gamma"], d["alpha"], d["method"], d["measure"], d["prompts"]) == (0.3, 0.05, "fasp", "expected", 180)
    assert d["gap_pruned"] == pytest.approx(d["gap_base"] * (1 - d["reduction_pct"] / 100))
    assert (d["ppl_base"], d["ppl_pruned"], d["heads"]) == (24.0, 25.2, "L0H1,L1H1")
    assert d["measures"]["sampled"]["continuations_a_side"] == 360
    assert json.loads(to_json(d))["reduction_shown"] is True


def test_a_claim_by_counted_words_says_both_readings() -> None:
    claim = claimed("counted", neutral=FELL, counted=FELL)
    assert claim.shown
    assert claim.sentence().startswith("Gap with identity terms scored reduced by ")
    assert f", neutral by {-claim.change['neutral'].relative:.0%} [" in claim.sentence()


def test_a_claim_that_is_not_shown_says_so() -> None:
    stayed = claimed(neutral=STAYED, counted=STAYED)
    assert not stayed.shown
    assert stayed.sentence().startswith("No reduction of the gap was shown on 180 test prompts (")
    rose = claimed(neutral=ROSE, counted=ROSE)
    assert not rose.shown
    assert rose.sentence().startswith("The gap rose on 180 test prompts (+")
    none = claimed(neutral=NONE, counted=NONE)
    assert not none.shown
    assert none.sentence() == "No gap is shown to begin with on 180 test prompts: shuffled groups give one as large."


@pytest.mark.parametrize("neutral", [STAYED, ROSE, NONE])
def test_an_artefact_of_the_scorer_is_no_success(neutral: tuple[float, float]) -> None:
    claim = claimed("counted", neutral=neutral, counted=FELL, sampled=FELL)
    assert finding(claim.base["counted"], claim.change["counted"]) == "fell"
    assert not claim.shown
    assert claim.as_dict()["reduction_shown"] is False
    assert claim.sentence().startswith("No reduction was shown on 180 test prompts: the gap fell by ")
    assert "but not with them masked" in claim.sentence()
    (caution,) = claim.cautions()
    assert caution.startswith("Not a success: on test prompts the gap fell only with identity terms scored")
    assert "how much the scorer dislikes the words" in caution
    assert claimed("neutral", neutral=neutral, counted=FELL).cautions()[0] == caution


def test_measures_that_disagree_say_so() -> None:
    (caution,) = claimed(neutral=FELL, counted=FELL, sampled=STAYED).cautions()
    assert caution.startswith("The sampled measure disagrees")
    assert "no reduction was shown" in caution
    (caution,) = claimed(neutral=FELL, counted=FELL, sampled=NONE).cautions()
    assert "no gap is shown to begin with" in caution
    (caution,) = claimed(neutral=STAYED, counted=STAYED, sampled=FELL).cautions()
    assert "the gap fell (-" in caution
    (caution,) = claimed(neutral=FELL, counted=ROSE, sampled=FELL).cautions()
    assert caution.startswith("The readings disagree")
    assert claimed(neutral=FELL, counted=ROSE, sampled=FELL).shown
    c = claimed(neutral=FELL)
    assert not is_artefact(c.base, c.change)
    assert cautions(c.base, c.change, "neutral", "validation prompts") == ()


@pytest.mark.parametrize("lost", [0, 3])
def test_what_tasks_lost_is_named_and_colours_nothing(
    lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tasks(tmp_path / "tasks", monkeypatch, 100)
    store, heads, model = Store(tmp_path / "cache"), PruneSet.parse("L0H1"), ModelId("w")
    plain = claimed(neutral=FELL, counted=FELL, sampled=FELL)
    assert "utility" not in plain.as_dict()
    add_answers(store, model, heads, "lambada", 100, lost)
    found = replace(plain, able=utility.stored(model, heads, store))
    assert found.able is not None
    low, high = found.able.tasks["lambada"].accuracy.interval
    more = f"; LAMBADA lost {-high:.1f} to {-low:.1f} points" if lost else ""
    assert found.sentence() == plain.sentence()[:-1] + more + "."
    assert found.as_dict()["utility"]["tasks"]["lambada"]["points"] == -10 * lost
    assert found.verdict == plain.verdict
