"""The page "Released scores" in real Chromium: a file is uploaded, grids and sets follow the sliders."""

from __future__ import annotations

import csv
import io
import re
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from tests.browser.conftest import Reader

pytestmark = pytest.mark.browser
EMPTY = "text=Open a file of released scores"


def made_up() -> bytes:
    """Rows of a model with the shape of gpt2 and three seeds; head L0H3 is chosen by each of them."""
    rng = np.random.default_rng(0)
    ppl = np.round(np.append(rng.uniform(30, 31, 134), rng.uniform(35, 60, 10)), 1)
    true = rng.normal(0.4, 0.01, 144)
    true[3], ppl[3] = 0.2, 30.0
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["Group", "Bias", "Model", "Head id", "Seed", "Split", "PPL"])
    for seed in (1, 2, 3):
        for head in range(144):
            writer.writerow(
                ["gender_and_sex", true[head] + rng.normal(0, 0.02), "gpt2", head + 1, seed, "valid", ppl[head]]
            )
    return out.getvalue().encode()


def upload(reader: Reader, name: str, content: bytes) -> None:
    reader.page.locator('[data-testid="stFileUploaderDropzoneInput"]').set_input_files(
        {"name": name, "mimeType": "text/plain", "buffer": content}
    )
    reader.page.wait_for_selector(".js-plotly-plot .main-svg", state="attached", timeout=60_000)
    reader.page.wait_for_selector("text=How far can these scores be trusted?", timeout=60_000)
    reader.settled()


def test_a_person_opens_a_released_file(app: str, browser: object) -> None:
    reader = Reader(browser, f"{app}/released", shown=EMPTY)
    upload(reader, "head_scores_gpt2.csv", made_up())
    page = reader.page
    reader.wait_points(144)
    assert reader.metric("Critical heads") == "43 of 144"
    assert reader.metric("Pruned heads") == "14 of 144"
    reader.wait_points(14, "pruned")
    stable = page.locator('[data-testid="stCode"]').first.inner_text()
    assert re.search(r"\bL0H3\b", stable)

    # a slider changes set, marks and address
    slider = page.get_by_role("slider").nth(1)
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.body.innerText.includes('11 of 144')", timeout=30_000)
    reader.wait_points(11, "pruned")
    reader.fits()
    assert parse_qs(urlparse(page.url).query)["released_alpha"] == ["0.08"]

    # the file stays open while another page is looked at
    page.get_by_role("link", name="Explore heads").click()
    page.wait_for_selector("text=Which heads carry bias?")
    page.get_by_role("link", name="Released scores").click()
    page.wait_for_function("() => document.body.innerText.includes('11 of 144')", timeout=30_000)
    page.get_by_role("button", name="Close file").click()
    page.wait_for_selector(EMPTY)
    assert not reader.errors, reader.errors
