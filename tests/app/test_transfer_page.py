"""The page "Transfer between biases" in every state that a reader can see, without a browser and without a model.

Charts cannot be clicked here: what a click opens is `pair_at`, tested by itself, and one real click in a browser.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fasp_core import gap
from fasp_core.data.divisions import CELLS
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import measurements
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.score import prunable
from fasp_core.storage.store import Store
from fasp_core.studies.transfer import divisions, every_axis
from pages.backend.engine import engine
from pages.transfer.axes import percent, plain
from pages.transfer.scores import pair_at
from tests.support.fakes import MADE, Studio, keep_scores, make_table
from tests.support.running import change as change_widgets
from tests.support.running import charts, opened, press, run, said

AXES = ("nationality", "religion")  # small ones, in the order of HolisticBias
PAIR = "transfer pair"


@pytest.fixture
def studio(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setattr(every_axis, "provenance", lambda lm, seconds, command: {**MADE, "command": command})
    return studio


@pytest.fixture
def tables(studio: Studio) -> dict[str, ImpactTable]:
    """Scores of two axes of the built-in model."""
    return {axis: add_scores(studio, axis, seed) for seed, axis in enumerate(AXES, start=1)}


def add_scores(studio: Studio, axis: str, seed: int) -> ImpactTable:
    """Scores that differ by axis; those of perplexity are the same, as they are for a real model."""
    made = replace(make_table(30, 9, n=90, seed=seed), ppl=make_table(30, 9, n=90).ppl)
    keep_scores(studio.store, axis, made, estimator="refined", exact=(np.arange(270) % 3 > 0).astype(np.uint8))
    found = engine().results.scores(ModelSpec(), BiasConfig(axis))
    assert found is not None
    return found


def texts(chart: dict[str, Any]) -> list[str]:
    (found,) = [t for t in chart["data"] if t.get("name") == "text"]
    return list(found["text"])


# --- new sentences and new people


def test_divisions_are_offered_and_an_axis_that_has_none_says_why(tables: dict[str, ImpactTable]) -> None:
    at = opened("transfer")
    assert not at.exception
    assert any(b.label == "Measure the divisions" for b in at.main.button)
    at.selectbox(key="divisions axis").set_value("religion")
    run(at)
    assert "groups have 2 descriptors or more" in said(at)
    assert not any(b.label == "Measure the divisions" for b in at.main.button)


def test_divisions_that_were_measured_are_told(tables: dict[str, ImpactTable], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = divisions.Plan("nationality")
    base, pruned = (0.004, 0.002, 0.003, 0.004, 0.002), (0.002, 0.002, 0.001, 0.002, 0.001)
    change = divisions.ratio_change(np.array(base), np.array(pruned))
    cell = divisions.Cell(base, pruned, ("fell",) * 3 + ("unclear",) * 2, change, (900,) * 5)
    cells = {reading: dict.fromkeys(CELLS, cell) for reading in ("neutral", "counted")}
    made = divisions.Carried(plan, cells, ((1, 2),) * 5, (0.01,) * 5, MADE)
    asked: list[str] = []
    monkeypatch.setattr(divisions, "find", lambda plan, *_: asked.append(f"{plan.choose} {plan.precision}") or made)
    at = opened("transfer")
    assert made.outcome in said(at)
    (shown,) = (d.value for d in at.dataframe if "fell in" in d.value)
    assert list(shown["templates and descriptors"]) == [*CELLS, *CELLS]
    assert set(shown["gap"]) == {"3.00 → 1.60"}
    assert set(shown["fell in"]) == {"3 of 5"}
    assert set(shown["change, %"]) == {cell.change.text(0, 100)}
    change_widgets(at, **{"divisions choose": "cautious"})
    change_widgets(at, **{"divisions choose": "gains"})
    assert asked == ["mean float32", "cautious float32", "gains float32", "gains bfloat16"]


# --- what a click opens


def test_a_cell_above_the_diagonal_is_of_all_heads_and_below_of_those_that_may_be_pruned() -> None:
    names = ("a", "b", "c")
    assert pair_at((0, 2), names) == ("a", "c", "all")
    assert pair_at((2, 0), names) == ("a", "c", "prunable")
    assert pair_at((1, 1), names) is None


def test_numbers_as_they_are_written() -> None:
    assert [plain(x) for x in (0.624, -0.05, -0.001, 1.0, float("nan"))] == [".62", "−.05", ".00", "1.00", "–"]
    assert [percent(x) for x in (-0.634, 0.2, float("nan"))] == ["−63%", "+20%", "–"]


# --- scores


@pytest.mark.parametrize("held", [(), AXES[:1]])
def test_two_axes_are_needed(studio: Studio, held: tuple[str, ...]) -> None:
    for axis in held:
        add_scores(studio, axis, 1)
    at = opened("transfer")
    assert "Two axes are needed" in said(at)
    assert ("only **nationality** has scores" if held else "No axis of this model has scores") in said(at)
    assert "“Score all heads”" in said(at)
    assert not charts(at)


def test_correlations_and_the_heads_behind_one(studio: Studio, tables: dict[str, ImpactTable]) -> None:
    at = opened("transfer", gamma=0.4)
    matrix, scatter = charts(at)
    free = prunable(tables[AXES[0]], 0.4)
    z = [t.bias.z_bias("neutral") for t in tables.values()]
    r_all, r_free = stats.spearmanr(*z).statistic, stats.spearmanr(*(x[free] for x in z)).statistic
    cells = texts(matrix)
    assert (cells[1], cells[2]) == (plain(r_all), plain(r_free))
    whole = [t.bias.reliability("neutral", heads).whole for t in tables.values() for heads in (None, free)]
    assert cells[0] == "<br>".join(plain(x) for x in whole[:2])
    assert cells[3] == "<br>".join(plain(x) for x in whole[2:])
    assert at.session_state[PAIR] == (*AXES, "prunable")
    text = said(at)
    assert f"**r = {plain(r_free)}** [" in text
    assert f"over {len(free)} heads (Spearman)" in text
    assert "Heads really removed: " in text
    assert "at most here. The frames of nationality, religion are not known" in text
    drawn = {t["name"] for t in scatter["data"]}
    assert "may be pruned" in drawn
    assert not any(name.startswith("critical") for name in drawn)

    # all heads, by the box in place of a click
    at.selectbox(key=PAIR).select((*AXES, "all"))
    run(at)
    assert f"**r = {plain(r_all)}** [" in said(at)
    drawn = {t["name"] for t in charts(at)[1]["data"]}
    assert {"critical", "critical, a score is an estimate"} <= drawn

    # the other reading, the other kind
    at.radio(key="reading").set_value("counted")
    at.radio(key="transfer kind").set_value("pearson")
    run(at)
    z = [t.bias.z_bias("counted") for t in tables.values()]
    assert texts(charts(at)[0])[1] == plain(stats.pearsonr(*z).statistic)
    pairs = at.dataframe[0].value
    assert len(pairs) == 4
    assert pairs[pairs.correlation == "pearson"].r.iloc[0] == pytest.approx(stats.pearsonr(*z).statistic)
    assert at.dataframe[1].value["heads ablated"].tolist() == ["180 of 270"] * 2


def test_one_axis_left_and_too_high_a_gamma(studio: Studio, tables: dict[str, ImpactTable]) -> None:
    at = opened("transfer")
    at.pills[0].set_value([AXES[0]])
    run(at)
    assert "at least two axes" in said(at)
    at = opened("transfer", gamma=0.99)
    assert "lower gamma" in said(at)


def test_no_head_is_chosen(studio: Studio, tables: dict[str, ImpactTable]) -> None:
    at = opened("transfer", alpha=0.0)
    assert "raise alpha" in said(at)
    assert len(charts(at)) == 2  # the scores are shown all the same


# --- sets


def test_sets_are_offered_measured_and_kept(studio: Studio, tables: dict[str, ImpactTable]) -> None:
    at = opened("transfer", alpha=0.02)
    text = said(at)
    assert "Not measured yet" in text
    assert "9 measurements" in text
    assert "chooses 5 heads" in text
    studio.open.clear()
    press(at, "Measure")
    assert [b.label for b in at.main.button if b.label == "Cancel"]
    assert any("Not measured yet" in bar.text for bar in at.get("progress"))  # type: ignore[attr-defined]
    studio.open.set()
    studio.finish()
    run(at)
    assert "9 measurements" not in said(at)
    assert len(charts(at)) == 3
    spec = ModelSpec()
    config = every_axis.TransferConfig(alpha=0.02)
    sets = every_axis.choose(tables, config)
    measured = every_axis.find(sets, config, studio.load(spec).id, studio.store)
    assert measured is not None
    found = every_axis.judge(measured)
    assert f"**{every_axis.statement(found, 'neutral')}**" in said(at)
    assert f"identity terms scored: {every_axis.statement(found, 'counted')}" in said(at)
    shown = texts(charts(at)[2])
    for cell, c in zip(shown, found.of("neutral"), strict=True):
        assert cell.startswith(percent(c.change.relative))
        base = studio.toxicity_of(None, PruneSet(), config.bias(c.measured_on), studio.store, lambda *_: None)
        codes, _ = gap.group_codes(base.groups)
        assert c.change.base == pytest.approx(float(gap.gap(base.values[0], codes)), abs=1e-6)
    frame: pd.DataFrame = at.dataframe[2].value
    assert frame["outcome"].tolist() == [c.outcome for c in found.cells]
    assert set(frame["perplexity change"].round(3)) == {round(1.01**5 - 1, 3)}
    assert {h for h, _ in studio.asked} == {PruneSet(), *sets.values()}

    # another reader finds it without a model
    asked = len(studio.asked)
    studio.error = InputError("no model")
    assert len(charts(opened("transfer", alpha=0.02))) == 3
    assert len(studio.asked) == asked


def test_a_gap_that_is_not_above_noise_is_struck_through(
    studio: Studio, tables: dict[str, ImpactTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = studio.toxicity_of

    def toxicity_of(lm: Any, heads: PruneSet, config: BiasConfig, *rest: Any) -> measurements.Toxicity:
        studio.base_gap, studio.pruned_gap = (0.0, 0.0) if config.axis == "religion" else (0.02, 0.01)
        return original(lm, heads, config, *rest)

    monkeypatch.setattr(measurements, "toxicity_of", toxicity_of)
    studio.at_once()
    at = opened("transfer", alpha=0.02)
    press(at, "Measure")
    run(at)
    chart = charts(at)[2]
    assert "no gap above noise to begin with" in {t.get("name") for t in chart["data"]}
    outcome = at.dataframe[2].value.query("reading == 'neutral'").set_index(["chosen on", "measured on"])["outcome"]
    assert {on: o for (_, on), o in outcome.items()} == {"nationality": "fell", "religion": "no gap"}


def test_a_run_that_fails_or_is_cancelled_says_so(studio: Studio, tables: dict[str, ImpactTable]) -> None:
    studio.error = InputError("The text file is gone: give another one.")
    at = opened("transfer", alpha=0.02)
    press(at, "Measure")
    studio.finish()
    run(at)
    assert "The text file is gone" in said(at)
    studio.error = None
    studio.open.clear()
    press(at, "Measure")
    press(at, "Cancel")
    studio.open.set()
    studio.finish()
    run(at)
    assert "Cancelled" in said(at)
    assert [b.label for b in at.main.button if b.label == "Measure"]
    assert not Store(studio.store.root).entries(every_axis.KIND)
