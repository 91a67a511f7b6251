"""The other pages in real Chromium, on the committed scores, made-up comparisons and results, and an uploaded file."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.loading import known_id
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.additivity.additivity import Plan, scores_of
from fasp_core.studies.robustness import robustness
from tests.browser.conftest import SMALL, Reader
from tests.support.made import of_rows
from tests.support.made.assumptions import add_additivity, add_robustness

pytestmark = pytest.mark.browser


def test_compare(app: str, browser: object, tmp_path: Path) -> None:
    reader = Reader(browser, f"{app}/compare?axis=nationality&{SMALL}", width=1280, shown="text=About these numbers")
    reader.until("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 6")
    reader.settled()
    page = reader.page
    sentence = page.locator('[data-testid="stAlert"]').first.inner_text()
    assert re.search(r"Gap reduced by \d+% \[\d+%, \d+%\] on \d+ test prompts at \+\d+\.\d% perplexity", sentence)
    assert "Not a success" not in page.inner_text("body")

    # the curves: a line for each method, the unpruned model, and the choice
    names = page.evaluate("() => document.querySelector('.js-plotly-plot').data.map(t => t.name)")
    assert {"FASP", "smallest weights", "bias only", "random, 5 seeds", "chosen"} <= set(names)
    assert any(name.startswith("unpruned") for name in names)

    # pointing at a candidate names it
    scatter = page.locator(".js-plotly-plot").nth(2)
    scatter.scroll_into_view_if_needed()
    reader.settled()
    x, y = scatter.evaluate(
        """p => { const f = p._fullLayout, b = p.getBoundingClientRect(), t = p.data.find(t => t.name === 'chosen');
            return [b.left + f.xaxis._offset + f.xaxis.d2p(t.x[0]), b.top + f.yaxis._offset + f.yaxis.d2p(t.y[0])]; }"""
    )
    page.mouse.move(x, y)
    reader.until("() => /gap counted/.test(document.querySelectorAll('.hoverlayer')[2].textContent)")
    told = page.evaluate("() => document.querySelectorAll('.hoverlayer')[2].textContent")
    assert "perplexity" in told
    assert "heads" in told

    # test is for looking
    page.get_by_role("radio", name="test", exact=True).or_(page.get_by_text("test", exact=True)).first.click()
    page.wait_for_selector("text=For looking.")

    with page.expect_download() as download:
        page.locator('[data-testid="stDownloadButton"]', has_text="Download as CSV").get_by_role("button").click()
    download.value.save_as(tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert len(rows) == 150
    assert {"method", "gamma", "alpha", "set", "change_neutral_valid", "ppl_change_test"} <= rows[0].keys()

    # the same set on the other page
    text = page.locator('[data-testid="stCode"]').first.inner_text().strip()
    count = len(PruneSet.parse(text))
    page.get_by_role("button", name="Open this set on Explore heads").click()
    page.wait_for_selector("text=Which heads carry bias?")  # this page, too, says how many of 270 heads
    page.wait_for_url(re.compile(r"/\?.*axis=nationality"))
    reader.wait_removed(count)
    assert not reader.errors, reader.errors


AXES = 7


def test_transfer(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/transfer", width=1280, shown="text=Correlation of z_bias over heads")
    page = reader.page
    reader.wait_points(AXES**2)
    cells = page.evaluate("() => document.querySelector('.js-plotly-plot').data.find(t => t.name === 'text').text")
    names = page.evaluate("() => document.querySelector('.js-plotly-plot')._fullLayout.yaxis.ticktext")
    assert len(cells) == AXES**2

    for row, column, heads in ((1, 4, 270), (4, 1, 189)):  # above the diagonal, and its mirror below
        reader.click_cell(row, column)
        one, other = sorted((row, column))
        wanted = f"{names[one]} against {names[other]}"
        reader.wait_said(wanted)
        reader.until(
            "([r, n]) => new RegExp(`r = ${r.replace('.', '[.]')} .*over ${n} heads`).test(document.body.innerText)",
            [cells[AXES * row + column], heads],
        )
        reader.until(  # the chart is drawn a moment after the words
            """n => n === document.querySelectorAll('.js-plotly-plot')[1].data
                .filter(t => t.showlegend).map(t => t.x.filter(x => x !== null).length).reduce((a, b) => a + b, 0)""",
            heads,
        )
    labels = page.evaluate(
        "() => document.querySelectorAll('.js-plotly-plot')[1].data.find(t => t.name === 'labels').text"
    )
    assert all(re.fullmatch(r"L\d+H\d", label.strip("\u00a0")) for label in labels)

    # a cell of the diagonal opens nothing
    reader.click_cell(3, 3)
    reader.page.wait_for_timeout(500)
    reader.settled()
    assert page.is_visible(f"text={names[1]} against {names[4]}")
    reader.fits()


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


def test_assumptions(filled: str, browser: object) -> None:
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


def test_contexts(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/contexts")
    reader.until("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 9")
    reader.wait_said("as in the paper")
    reader.wait_said("Click a cell for the answers behind it")
    reader.click_cell(3, 1, chart=1)  # chosen on services, tested on services: there is no such set
    reader.wait_said("There is nothing of this kind")
    reader.click_cell(2, 1, chart=1)  # chosen on purchases
    reader.wait_said("chosen on purchases, tested on services")
    reader.wait_said("Answers in dollars, by group")
    reader.until("() => document.querySelectorAll('.js-plotly-plot').length === 4")
    reader.page.get_by_role("tab", name="Audit").click()
    reader.wait_said("Ask about purchases")
    reader.fits()


EMPTY = "text=Open a file of released scores"


def upload(reader: Reader, name: str, content: bytes) -> None:
    reader.page.locator('[data-testid="stFileUploaderDropzoneInput"]').set_input_files(
        {"name": name, "mimeType": "text/plain", "buffer": content}
    )
    reader.page.wait_for_selector(".js-plotly-plot .main-svg", state="attached", timeout=60_000)
    reader.page.wait_for_selector("text=How far can these scores be trusted?", timeout=60_000)
    reader.settled()


def test_released(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/released", shown=EMPTY)
    upload(reader, "head_scores_gpt2.csv", of_rows(0.9, "gpt2", 144)[1])
    page = reader.page
    reader.wait_points(144)
    assert reader.metric("Critical heads") == "43 of 144"
    assert reader.metric("Pruned heads") == "14 of 144"
    reader.wait_points(14, "pruned")
    stable = page.locator('[data-testid="stCode"]').first.inner_text()
    assert re.match(r"L\d+H\d+\b", stable)

    # a slider changes set, marks and address
    slider = page.get_by_role("slider").nth(1)
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    reader.wait_said("11 of 144")
    reader.wait_points(11, "pruned")
    reader.fits()
    assert parse_qs(urlparse(page.url).query)["released_alpha"] == ["0.08"]

    # the file stays open while another page is looked at
    page.get_by_role("link", name="Explore heads").click()
    page.wait_for_selector("text=Which heads carry bias?")
    page.get_by_role("link", name="Released scores").click()
    reader.wait_said("11 of 144")
    page.get_by_role("button", name="Close file").click()
    page.wait_for_selector(EMPTY)
    assert not reader.errors, reader.errors
