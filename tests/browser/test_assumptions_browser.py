"""The page "Check the assumptions" in real Chromium: three tabs, filled from stored results."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasp_core.model.loading import known_id
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.additivity.additivity import Plan, scores_of
from fasp_core.studies.robustness import robustness
from tests.browser.conftest import Reader
from tests.support.made_assumptions import add_additivity, add_robustness

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
    reader.page.wait_for_function(
        "n => [...document.querySelectorAll('.js-plotly-plot .main-svg')].filter(e => e.checkVisibility()).length >= n",
        arg=n,
        timeout=120_000,
    )
    reader.page.wait_for_timeout(1500)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1920, "dark")])
def test_a_person_checks_the_assumptions(filled: str, browser: object, width: int, scheme: str) -> None:
    reader = Reader(browser, filled, width=width, scheme=scheme)
    page = reader.page
    charts(reader, 4)
    assert "times the predicted one" in page.inner_text("body")
    reader.keep(f"assumptions-adding-{width}-{scheme}.png")
    page.get_by_text("perplexity", exact=True).first.click()
    page.wait_for_selector("text=Perplexity, 1,024 tokens", timeout=60_000)

    page.get_by_role("tab", name="Does the measure matter?").click()
    page.wait_for_selector("text=Do measures choose the same", timeout=120_000)
    charts(reader, 2)
    assert "held-out items" in page.inner_text("body")
    reader.keep(f"assumptions-measures-{width}-{scheme}.png")

    page.get_by_role("tab", name="What the scorer thinks").click()
    page.wait_for_selector("text=the word alone moves the score", timeout=120_000)
    charts(reader, 2)
    reader.keep(f"assumptions-scorer-{width}-{scheme}.png")
    overflow = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
    assert not reader.errors, reader.errors
