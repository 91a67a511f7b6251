"""What heads are worth for last words, on Explore; and other costs than perplexity, on Compare."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from fasp_core.heads.selection import HeadScores, select
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.entries import KIND, TASK_SCORE
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.studies.common import as_text
from fasp_core.studies.costs.costs import Plan as CostsPlan
from pages.explore import grids
from pages.session.recipe import Recipe
from tests.support.fakes import MADE, MadeUp, Studio, add_comparison
from tests.support.running import (
    AXIS,
    array_of,
    change,
    charts,
    exploring,
    instrument,
    opened,
    press,
    requested,
    run,
    said,
)

SIZE = 270


@pytest.fixture
def table(studio: Studio) -> ImpactTable:
    return studio.add_scores(AXIS)


def keep_task(studio: Studio) -> np.ndarray:
    """Scores for last words by which other heads are critical than by perplexity; z_task."""
    rng = np.random.default_rng(5)
    base, z = rng.uniform(2, 5, 20), rng.normal(0, 1, SIZE)
    lm = studio.load(ModelSpec())
    studio.store.save(
        KIND,
        {**lm.id.key(), **TASK_SCORE, "estimator": "first-order", "items": 20, "seed": 0, "data": "made up"},
        arrays={"base": base, "ablated": base + z[:, None], "rows": np.arange(20)},
        meta={"n_layers": 30, "n_heads": 9, "cut": 0, "provenance": MADE},
    )
    return z


def test_while_nothing_is_known_perplexity_protects_and_it_is_said(studio: Studio, table: ImpactTable) -> None:
    at = exploring()
    assert at.selectbox(key="protect").disabled
    assert "Protected by perplexity" in "".join(c.value for c in at.sidebar.caption)
    plain = requested(at)
    at = opened("explore", {"protect": "task", "alpha": "0.02"})
    assert requested(at) == plain  # a link that asks for what is not known
    change(at, method="random")
    assert "Protected by perplexity" not in "".join(c.value for c in at.sidebar.caption)


def test_heads_are_protected_by_last_words(studio: Studio, table: ImpactTable) -> None:
    z = keep_task(studio)
    at = exploring()
    assert not at.selectbox(key="protect").disabled
    plain = requested(at)
    for protect in ("task", "worse"):
        change(at, protect=protect)
        scores = HeadScores(30, 9, table.ppl.z_nats, table.bias.z_bias("neutral"), z_task=z, protect=protect)
        assert requested(at).flat(9) == list(select(scores, "fasp", Recipe().gamma, 0.02).pruned)
        assert at.query_params["protect"] == protect
    assert requested(at) != plain
    change(at, protect="perplexity")
    assert requested(at) == plain
    assert "protect" not in at.query_params


def test_the_third_grid_is_drawn_on_demand(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()  # the chart of what is measured is there from the beginning
    at = exploring()
    before = len(instrument(at)["maps"])
    at.toggle(key="grid last words").set_value(True)
    run(at)
    assert "No scores for last words yet" in "".join(s.value for s in at.subheader)
    assert len(instrument(at)["maps"]) == before
    keep_task(studio)
    run(at)
    assert len(instrument(at)["maps"]) == before + 1
    assert "first-order, 20 passages" in instrument(at)["maps"][-1]["help"]
    assert not at.selectbox(key="protect").disabled


def test_the_offer_scores_them(studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "score_task", lambda lm, store, items, progress: keep_task(studio))
    at = exploring()
    studio.finish()  # what is measured has a chart, too
    run(at)
    before = len(instrument(at)["maps"])
    at.toggle(key="grid last words").set_value(True)
    run(at)
    press(at, "Score last words")
    studio.finish()
    run(at)
    assert len(instrument(at)["maps"]) == before + 1


def test_compare_shows_other_costs_of_the_sets_that_were_measured(studio: Studio, table: ImpactTable) -> None:
    small = {"gammas": (0.2, 0.4), "alphas": (0.02, 0.05), "seeds": 2, "prompts": 180, "tokens": 640}
    result = add_comparison(studio.store, AXIS, MadeUp(table, strength=10), **small)
    assert opened("compare").selectbox(key="compare cost").options == ["perplexity, % up"]
    heads = sorted({c.heads for c in result.candidates if c.heads})[:4]
    plan, lm = CostsPlan(AXIS, sets=5, tasks=("piqa",)), studio.load(ModelSpec())
    rows = [
        {"heads": as_text(h), "chosen": "x", "size": len(h), "perplexity": 0.1, "paragraphs": 0.1, "repeated": 0.2}
        | {"lambada": 0.5 + 0.1 * i, "accuracy_piqa": -0.04, "likelihood_piqa": -0.1}
        for i, h in enumerate(heads)
    ]
    studio.store.save(
        "experiments",
        {"experiment": "costs", **lm.id.key(), "plan": {**asdict(plan), "tasks": ["piqa"]}, "sets": "x", "data": "y"},
        tables={"sets": pd.DataFrame(rows)},
        meta={"base": {}, "provenance": MADE},
    )
    at = opened("compare")
    shown = charts(at)[-1]
    change(at, **{"compare cost": "lambada"})
    assert f"4 of {len(result.sets)} sets were measured so" in said(at)
    fig = charts(at)[-1]
    assert fig["layout"]["xaxis"]["title"]["text"] == "perplexity of LAMBADA's last words, % up"
    assert "limit" in str(shown["layout"].get("annotations"))
    assert "'limit'" not in str(fig["layout"].get("annotations"))
    points = [
        x for t in fig["data"] if t.get("mode") == "markers" and t["name"] != "unpruned" for x in array_of(t["x"])
    ]
    assert set(np.round(points, 6)) <= {round(100 * float(np.expm1(0.5 + 0.1 * i)), 6) for i in range(4)} | {0.0}
    change(at, **{"compare cost": "accuracy_piqa"})
    assert charts(at)[-1]["layout"]["xaxis"]["title"]["text"] == "right answers lost on PIQA, points (study)"


def test_the_command_for_last_words_is_of_the_same_model(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()
    at = exploring(**{"grid last words": True})
    expected = f"`python -m fasp_core score --axis {AXIS} --task lambada --task-exact 30 --model built-in`"
    assert expected in said(at)
