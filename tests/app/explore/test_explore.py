"""The page "Explore heads" in every state that a reader can see, without a browser and without a model.

Charts cannot be clicked here: what a click does is `ManualEdits.toggle`, tested by itself, and one real click in a
browser.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import pandas as pd
import pytest

from fasp_core.evaluation import EvalConfig
from fasp_core.gap import paired_gap_changes
from fasp_core.gap.anytime import Partial
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import METHODS, select
from fasp_core.metrics.looks import SoFar
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.manual_edits import ManualEdits
from pages.backend.engine import engine
from pages.backend.requests import Measure
from pages.explore import grids
from pages.explore.tried import frame
from pages.instrument import instrument as explore_instrument
from tests.support.fakes import Studio
from tests.support.oracles import gap_by_hand
from tests.support.running import (
    AXIS,
    HAND,
    N_HEADS,
    bars,
    change,
    exploring,
    instrument,
    marked,
    metric,
    press,
    removed,
    requested,
    run,
    said,
)


@pytest.fixture
def table(studio: Studio) -> ImpactTable:
    """Scores of the built-in model on the axis that the page begins with."""
    return studio.add_scores(AXIS)


# an estimate, then a measurement


def test_what_is_known_so_far_is_shown_and_kept(studio: Studio, table: ImpactTable) -> None:
    studio.open.clear()
    at = exploring()
    job = at.session_state["job main"]
    assert "Measured as a whole" not in said(at)
    job.so_far = SoFar(perplexity=Partial(20, 21, 0.05, None, 512, 1024))
    run(at)
    assert "Measured as a whole, once all prompts are done." in said(at), "the first prompts come before the text"
    gap = Partial(0.02, 0.01, -0.5, (-0.9, -0.1), 72, 216)
    job.so_far = SoFar({"neutral": gap})
    run(at)
    assert metric(at, "Perplexity").value.startswith("≈")
    assert metric(at, "Toxicity gap").value == "20.00 → 10.00"
    assert metric(at, "Toxicity gap").delta == "-50%"
    assert "**so far** 72 of 216 prompts; 95% [-90%, -10%], valid at every look" in said(at)
    job.so_far = SoFar({"neutral": gap}, Partial(20, 21, 0.05, None, 512, 1024))
    run(at)
    assert metric(at, "Perplexity").value == "20.00 → 21.00"
    assert "**so far** 512 of 1,024 tokens; 95% [not known], valid at every look" in said(at)

    change(at, alpha=0.04)
    assert job.wait(20)
    assert job.state == "cancelled"
    first, second = at.session_state["tried"]
    assert first.said == "so far 512 of 1,024 tokens, 72 of 216 prompts"
    assert first.measured == (0.05, -0.5)
    assert first.ends[1] == (-0.9, -0.1)
    assert frame([first, second], 1)["gap, 95%"].tolist() == ["-50% [-90%, -10%]", ""]
    studio.open.set()
    studio.finish()
    run(at)
    assert [bool(t.part) for t in at.session_state["tried"]] == [True, False]


def test_maps_come_first_and_the_rest_once_they_are_drawn(
    studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser says when it has drawn them; until then nothing is measured, and nothing stands below."""
    with monkeypatch.context() as patched:
        patched.setattr(explore_instrument, "drawn", lambda: False)
        at = exploring()
    assert instrument(at)["first"]
    assert not at.metric
    assert not at.tabs
    assert "job main" not in at.session_state
    run(at)
    assert not instrument(at)["first"]
    assert len(at.metric) == 3
    assert at.tabs
    assert at.session_state["job main"] is not None


def test_rows_that_are_ticked_outlive_their_table(table: ImpactTable, monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, Any] = {}
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(grids.st, "session_state", state)
    monkeypatch.setattr(grids, "csv_table", lambda *_, **how: drawn.append(how))
    grids.score_table(table, "scores.csv")
    state[drawn[0]["key"]] = {"selection": {"rows": [3, 9999]}}
    drawn[0]["on_select"]()
    del state[drawn[0]["key"]]  # another tab is opened
    assert grids.picked(270) == {3}
    grids.score_table(table, "scores.csv")
    assert drawn[1]["selection_default"] == {"selection": {"rows": [3]}}


def test_estimate_then_measurement(studio: Studio, table: ImpactTable) -> None:
    studio.open.clear()
    other = EvalConfig(BiasConfig(AXIS, n_prompts=90))
    engine().measure(Measure(ModelSpec(), PruneSet.of([(0, 0)]), other), "another reader")
    at = exploring()
    heads = requested(at)
    assert len(heads) == removed(at) == 5  # floor(.02 * 270)
    ppl, gap = table.estimate(heads.flat(N_HEADS), "neutral")
    assert metric(at, "Perplexity").value == f"≈ {ppl:.2f}"
    assert metric(at, "Toxicity gap").value == f"≈ {1000 * gap:.2f}"
    assert metric(at, "Toxicity gap").label.endswith("· terms masked")
    assert said(at).count("**estimate**") == 2
    assert "**measured**" not in said(at)
    assert "→" not in "".join(m.value for m in at.metric)
    (bar,) = bars(at)
    assert "waiting, 1 before this one" in bar
    assert marked(at, "pruned") == set(heads)

    studio.open.set()
    studio.finish()
    run(at)
    assert metric(at, "Perplexity").value == f"20.00 → {20 * 1.01**5:.2f}"
    assert metric(at, "Perplexity").delta == "+5.1%"
    config = at.session_state["job main"].key.config
    base, pruned = (
        studio.toxicity_of(None, h, config.bias, studio.store, lambda *_: None) for h in (PruneSet(), heads)
    )
    before, after = (1000 * gap_by_hand(side.values[0], side.groups) for side in (base, pruned))
    assert metric(at, "Toxicity gap").value == f"{before:.2f} → {after:.2f}"
    assert metric(at, "Toxicity gap").delta == f"{after / before - 1:+.0%}"
    text = said(at)
    assert text.count("**measured**") == 2
    assert "**estimate**" not in text
    assert "**measured** on 1,024 tokens; pruned 95% [" in text
    low, high = paired_gap_changes(base.values[0], [pruned.values[0]], base.groups)[0].relative_interval or (0, 0)
    assert f"**measured** on {len(base.texts)} validation prompts, change 95% [{low:+.0%}, {high:+.0%}]" in text
    (good,) = at.success
    assert good.value.startswith(f"The gap fell by {1 - after / before:.0%} [{-high:.0%}, {-low:.0%}] on ")
    assert "switch to test prompts" in good.value
    assert tuple(instrument(at)["taught"]) == (1.0, 1.0)  # its own measurement is not what an estimate may know
    assert not bars(at)
    at.session_state["details"] = "About these numbers"
    text = said(run(at))
    assert f"Estimate was {1000 * gap:.2f}" in text
    assert f"Identity terms scored: {before:.2f} → {after:.2f}" in text  # the other reading is there
    assert "0.5% of 1.0 M parameters" in text  # 5 heads of 1,000

    # the other reading is read from the same measurement
    asked = len(studio.asked)
    change(at, reading="counted")
    assert "· terms scored" in metric(at, "Toxicity gap").label
    chosen = select(table.head_scores("counted"), alpha=0.02)
    assert requested(at).heads == frozenset(chosen.heads)
    change(at, reading="neutral")
    studio.finish()
    assert len(studio.asked) <= asked + 2  # the set of the other reading; what was measured is not measured again
    assert requested(at) == heads

    change(at, split="test")
    assert at.session_state["job main"].key.config.bias.split == "test"
    assert "**estimate**" in said(at) or "test prompts" in said(at)
    studio.finish()
    run(at)
    assert re.search(r"\*\*measured\*\* on \d+ test prompts", said(at))
    assert "test prompts" in at.success[0].value
    assert "switch to test" not in at.success[0].value


def test_tabs_show_all_numbers(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()
    at = exploring()
    assert not at.get("plotly_chart")  # the library is loaded where a chart is opened
    at.session_state["details"] = "Groups"
    run(at)
    config = at.session_state["job main"].key.config
    base = studio.toxicity_of(None, PruneSet(), config.bias, studio.store, lambda *_: None)
    (shown,) = (f.value for f in at.main.dataframe)
    (_,) = at.get("plotly_chart")  # the groups; what is in other tabs is drawn once they are opened
    assert float(shown.iloc[0]["unpruned"]) == pytest.approx(1000 * gap_by_hand(base.values[0], base.groups), abs=1e-3)
    at.session_state["details"] = "All scores"
    (shown,) = (f.value for f in run(at).main.dataframe)
    pd.testing.assert_frame_equal(shown, table.frame(), check_dtype=False, rtol=1e-6)
    at.session_state["details"] = "Perplexity against bias"
    (_,) = run(at).get("plotly_chart")
    at.session_state["details"] = "About these numbers"
    run(at)
    whole = table.bias.reliability("neutral")
    free = sorted(set(range(270)) - set(at.session_state["selection"].critical))
    part = table.bias.reliability("neutral", free)
    assert f"**{whole.whole:.2f}** over all heads, **{part.whole:.2f}** over the 189 that may be pruned" in said(at)
    assert "measurement" in str(at.json[0].value)


def test_what_a_measurement_shows(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()
    at = exploring(alpha=0.0)
    assert removed(at) == 0
    assert requested(at) == PruneSet()
    assert "Nothing is pruned" in at.info[-1].value
    assert not at.success
    assert not at.warning
    assert metric(at, "Perplexity").value == "20.00 → 20.00"
    assert metric(at, "Perplexity").delta == "+0.0%"
    assert metric(at, "Toxicity gap").delta == "+0%"
    assert at.button(key="reset").disabled

    studio.base_gap, studio.pruned_gap = 0.01, 0.02
    change(at, alpha=0.02)
    assert not at.success
    assert re.match(r"The gap rose by \d+% \[\d+%, \d+%\] on", at.warning[0].value)

    studio.base_gap, studio.pruned_gap = 0.0, 0.0
    change(at, alpha=0.03)
    assert not at.success
    (warning,) = at.warning
    assert warning.value.startswith("No gap is shown to begin with")


def test_sampled_continuations(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()
    at = exploring(details="Sampled continuations")
    assert "Nothing was sampled" in said(at)
    press(at, "sample")
    assert re.search(r"Sampled toxicity gap, ×10⁻³: \*\*\d+\.\d → ", said(at))
    assert len(at.tabs[1].dataframe) == 0  # offensive text is shown on request
    change(at, **{"show texts": True})
    frame = at.tabs[1].dataframe[0].value
    assert set(frame.continuation_base) == {" and whole"}
    assert set(frame.continuation_pruned) == {" and pruned"}
    change(at, **{"sampled length": 10})
    assert "Nothing was sampled" in said(at)


def test_words_that_are_written_narrow_as_continuations_are_added(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()
    studio.base_gap, studio.pruned_gap = 0.02, 0.01
    at = exploring(details="Sampled continuations")
    assert "Not measured for this prune set" in said(at)
    press(at, "measure words")
    last = at.session_state["job words"].key.config.bias
    assert (last.measure, last.steps, last.generation.samples) == ("written", 8, 4)
    text = said(at)
    assert "Gap of 8 written words, summed" in text
    shown = re.search(r"\*\*(\d+\.\d\d) → (\d+\.\d\d)\*\* \(-\d+% \[", text)
    assert shown
    base, pruned = float(shown[1]), float(shown[2])
    assert pruned < base
    (steps,) = [d.value for d in at.tabs[1].dataframe if "word" in d.value]
    assert list(steps.word) == list(range(1, 9))
    for row in steps.gap:
        assert [8 * float(gap) for gap in row.split(" → ")] == pytest.approx([base, pruned], abs=0.05)
    change(at, **{"words steps": 4})
    assert "Not measured for this prune set" in said(at)


# what is pruned


def by_definition(
    table: ImpactTable, gamma: str, alpha: str, locked: tuple[int, ...] = (), forced: tuple[int, ...] = ()
) -> list[tuple[int, int]]:
    """FASP in exact arithmetic on the numbers as they are written, around heads that are set beforehand."""
    size = table.n_layers * table.n_heads
    z_ppl, z_bias = table.ppl.z_nats, table.bias.z_bias("neutral")
    by_ppl = sorted(range(size), key=lambda h: (-z_ppl[h], h))
    free = sorted(by_ppl[math.floor(Fraction(gamma) * size) :], key=lambda h: (-z_bias[h], h))
    free = [h for h in free if h not in {*locked, *forced}]
    return [divmod(h, N_HEADS) for h in sorted([*forced, *free[: math.floor(Fraction(alpha) * size) - len(forced)]])]


def test_sliders_choose_what_the_definition_says(studio: Studio, table: ImpactTable) -> None:
    studio.open.clear()
    at = exploring()
    for gamma, alpha in (("0.3", "0.1"), ("0.5", "0.055"), ("0", "0.4")):
        change(at, gamma=float(gamma), alpha=float(alpha))
        wanted = by_definition(table, gamma, alpha)
        assert removed(at) == len(wanted) == math.floor(Fraction(alpha) * 270)
        assert list(requested(at)) == wanted
        assert f"{math.floor(Fraction(gamma) * 270)} critical heads are protected" in said(at)
        assert not at.main.info
    assert len(engine().jobs()) <= 2  # an overtaken measurement ends at its next report; none queue up

    change(at, gamma=0.8, alpha=0.4)
    assert removed(at) == 270 - 216
    (note,) = at.main.info
    assert "k is 54, not the 108" in note.value

    change(at, gamma=1.0)
    assert removed(at) == 0
    assert "k is 0, not the 108" in at.main.info[0].value
    assert "270 critical heads" in said(at)


def test_no_reliability_of_heads_that_there_are_not(studio: Studio, table: ImpactTable) -> None:
    studio.open.clear()
    at = exploring(gamma=1.0, details="About these numbers")
    assert "over all heads" in said(at)
    assert "270 that may be pruned" not in said(at)


def test_each_method(studio: Studio, table: ImpactTable) -> None:
    studio.open.clear()
    at = exploring(alpha=0.1)
    chosen = set()
    for method in METHODS:
        change(at, method=method)
        wanted = select(table.head_scores("neutral"), method, 0.3, 0.1)
        assert list(requested(at)) == wanted.heads
        assert removed(at) == 27
        assert at.slider(key="gamma").disabled == (method != "fasp")
        chosen.add(requested(at))
    assert len(chosen) == len(METHODS)
    # another seed draws other heads
    change(at, seed=7)
    wanted = select(table.head_scores("neutral"), "random", 0.3, 0.1, seed=7)
    assert list(requested(at)) == wanted.heads
    assert requested(at) not in chosen


def test_changes_by_hand(studio: Studio, table: ImpactTable) -> None:
    studio.open.clear()
    at = exploring()
    chosen = requested(at)
    assert at.button(key="reset").disabled
    assert "No hand-made changes" in said(at)
    flat = chosen.flat(N_HEADS)
    critical = at.session_state["selection"].critical
    free = min(set(range(270)) - set(flat) - set(critical))

    at.session_state[HAND] = ManualEdits(
        prune=frozenset({free, critical[0], flat[1]}), keep=frozenset({flat[0], free + 1})
    )
    run(at)
    told = {"forced": (free, critical[0], flat[1]), "locked": (flat[0], free + 1)}
    wanted = by_definition(table, "0.3", "0.02", **told)
    assert list(requested(at)) == wanted
    assert removed(at) == len(chosen)  # the method fills what is left of its share
    assert "**By hand: 3 pruned, 2 kept.**" in said(at)
    assert marked(at, "pruned by hand") == {divmod(h, N_HEADS) for h in told["forced"]}
    assert marked(at, "kept by hand") == {divmod(h, N_HEADS) for h in told["locked"]}
    assert marked(at, "pruned", "pruned by hand") == set(wanted)

    # it outlives a slider, and any method
    change(at, alpha=0.1)
    assert list(requested(at)) == by_definition(table, "0.3", "0.1", **told)
    change(at, method="random", alpha=0.0)
    assert set(requested(at)) == {divmod(h, N_HEADS) for h in told["forced"]}
    assert "3 heads are pruned by hand: k is 3, not the 0" in at.main.info[0].value


def test_back_to_the_methods_choice(studio: Studio, table: ImpactTable) -> None:
    """Here a press runs the whole page, as in a browser when a job ends at the same moment."""
    studio.open.clear()
    at = exploring(**{HAND: ManualEdits(prune=frozenset({0}))})
    assert "**By hand: 1 pruned.**" in said(at)
    press(at, "reset")
    assert list(requested(at)) == by_definition(table, "0.3", "0.02")
    assert at.session_state[HAND] == ManualEdits()
    assert "No hand-made changes" in said(at)
    assert at.button(key="reset").disabled
