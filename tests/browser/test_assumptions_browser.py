"""The page "Check the assumptions" in real Chromium: three tabs, filled from stored results."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasp_core.experiments import robustness
from fasp_core.experiments.additivity import Plan, scores_of
from fasp_core.models import BUILT_IN, ModelSpec, known_id
from fasp_core.store import Store
from tests.app.made_assumptions import add_additivity, add_robustness
from tests.browser.conftest import Reader

pytestmark = pytest.mark.browser
AXIS = "race_ethnicity"


@pytest.fixture
def filled(app: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Made-up results in the cache of the running app, on the committed scores."""
    (log,) = Path(tmp_path_factory.getbasetemp()).glob("cache[0-9]*/app.log")
    store, weights = Store(log.parent), known_id(ModelSpec())
    assert weights is not None
    plan = Plan(AXIS)
    table = scores_of(AXIS, plan.scored_text, weights, BUILT_IN, store)
    add_additivity(store, plan, table, weights)
    add_robustness(store, robustness.Plan(AXIS), table, weights)
    return f"{app}/assumptions?axis={AXIS}"


def charts(reader: Reader, n: int) -> None:
    reader.until(
        "n => [...document.querySelectorAll('.js-plotly-plot .main-svg')].filter(e => e.checkVisibility()).length >= n",
        n,
    )


def test_a_person_checks_the_assumptions(filled: str, browser: object) -> None:
    reader = Reader(browser, filled, width=1280)
    charts(reader, 4)
    reader.wait_said("times the predicted one")
    reader.page.get_by_text("perplexity", exact=True).first.click()
    reader.wait_said("Perplexity, 1,024 tokens")

    reader.page.get_by_role("tab", name="Does the measure matter?").click()
    reader.wait_said("Do measures choose the same")
    charts(reader, 2)
    assert "held-out items" in reader.page.inner_text("body")

    reader.page.get_by_role("tab", name="What the scorer thinks").click()
    reader.wait_said("the word alone moves the score")
    charts(reader, 2)
    reader.fits()
