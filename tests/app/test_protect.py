"""What heads are critical by, on Explore: not to be chosen while it is not known, and a third grid once it is."""

from __future__ import annotations

import numpy as np
import pytest

from fasp_core.heads.selection import HeadScores, select
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring.entries import KIND, TASK_SCORE
from fasp_core.scoring.impact_table import ImpactTable
from pages.explore import grids
from pages.session.recipe import Recipe
from tests.support.fakes import MADE, Studio
from tests.support.running import AXIS, change, charts, exploring, opened, press, requested, run, said

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
        meta={"n_layers": 30, "n_heads": 9, "provenance": MADE},
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
    at = exploring()
    before = len(charts(at))
    at.toggle(key="grid last words").set_value(True)
    run(at)
    assert "No scores for last words yet" in "".join(s.value for s in at.subheader)
    assert len(charts(at)) == before
    keep_task(studio)
    run(at)
    assert len(charts(at)) == before + 1
    assert "first-order, 20 passages" in said(at)
    assert not at.selectbox(key="protect").disabled


def test_the_offer_scores_them(studio: Studio, table: ImpactTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "score_task", lambda lm, store, items, progress: keep_task(studio))
    at = exploring()
    before = len(charts(at))
    at.toggle(key="grid last words").set_value(True)
    run(at)
    press(at, "Score last words")
    studio.finish()
    run(at)
    assert len(charts(at)) == before + 1
