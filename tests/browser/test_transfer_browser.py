"""The page "Transfer between biases" in real Chromium, on the committed scores: a clicked cell shows its heads."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import Reader

pytestmark = pytest.mark.browser
AXES = 7


def test_a_person_opens_the_heads_of_a_cell(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/transfer", width=1280, shown="text=Correlation of z_bias over heads")
    page = reader.page
    reader.wait_points(AXES**2)
    cells = page.evaluate("() => document.querySelector('.js-plotly-plot').data.find(t => t.name === 'text').text")
    names = page.evaluate("() => document.querySelector('.js-plotly-plot')._fullLayout.yaxis.ticktext")
    assert len(cells) == AXES**2

    for row, column, heads in ((1, 4, 270), (4, 1, 189)):  # above the diagonal, and its mirror below
        reader.click_head(row, column)
        one, other = sorted((row, column))
        wanted = f"{names[one]} against {names[other]}"
        page.wait_for_selector(f"text={wanted}", timeout=60_000)
        r = cells[AXES * row + column]
        page.wait_for_function(
            "([r, n]) => new RegExp(`r = ${r.replace('.', '[.]')} .*over ${n} heads`).test(document.body.innerText)",
            arg=[r, heads],
            timeout=60_000,
        )
        page.wait_for_function(  # the chart is drawn a moment after the words
            """n => n === document.querySelectorAll('.js-plotly-plot')[1].data
                .filter(t => t.showlegend).map(t => t.x.filter(x => x !== null).length).reduce((a, b) => a + b, 0)""",
            arg=heads,
            timeout=60_000,
        )
    labels = page.evaluate(
        "() => document.querySelectorAll('.js-plotly-plot')[1].data.find(t => t.name === 'labels').text"
    )
    assert all(re.fullmatch(r"L\d+H\d", label.strip("\u00a0")) for label in labels)

    # a cell of the diagonal opens nothing
    reader.click_head(3, 3)
    reader.until("() => !document.querySelector('.fasp-clicked')")
    reader.settled()
    assert page.is_visible(f"text={names[1]} against {names[4]}")

    # somebody quicker than the page ends where the last click was
    reader.click_quickly([(2, 5), (6, 0), (0, 3)])
    page.wait_for_selector(f"text={names[0]} against {names[3]}", timeout=60_000)
    page.wait_for_function("() => !document.querySelector('.fasp-clicked')")
    reader.wait_said("over 270 heads")
    assert page.is_visible(f"text={names[0]} against {names[3]}")
    page.wait_for_selector("text=Does a set chosen on one axis help the others?")
    assert not reader.errors, reader.errors
