"""Two models of a hub one after the other, and a classifier of the hub, in a browser: each shows numbers of its own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import CELLS, Reader, cached, serving
from tests.support.hub import Hub, files_of, model_folders
from tests.support.hub import serving as hub_serving

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return model_folders(tmp_path / "models")


@pytest.fixture
def served(folders: dict[str, Path], tmp_path: Path) -> Generator[tuple[str, Hub]]:
    """An app that may ask a hub on this machine, with nothing stored."""
    cache = tmp_path / "cache"
    cache.mkdir()
    with hub_serving() as hub:
        for name, kind in (("one", "one"), ("two", "other"), ("scorer", "scorer")):
            hub.add(f"org/{name}", files_of(folders[kind]))
        asked = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        with serving(cache, cached(cache, **asked, TRANSFORMERS_OFFLINE="0", OMP_NUM_THREADS="1")) as url:
            yield url, hub


def scored(reader: Reader) -> Any:
    """Score all heads of the model in view; what both maps say."""
    reader.wait_said("Score all heads")
    reader.page.get_by_role("button", name="Score all heads").click()
    reader.measured()
    reader.wait_said("About these numbers")
    reader.page.locator(CELLS).first.wait_for(state="attached")
    labels = reader.page.locator(CELLS).evaluate_all("cells => cells.map(cell => cell.ariaLabel.split('; '))")
    return [[parts[i] for parts in labels] for i in (1, 2)]


def test_two_models_and_a_scorer_of_a_hub_show_their_own(browser: object, served: tuple[str, Hub]) -> None:
    url, hub = served
    seen = []
    for i, name in enumerate(("org/one", "org/two@main"), start=1):
        link = f"{url}/?model={name}&alpha=0.25&prompts=90&tokens=512"
        reader = Reader(browser, link, height=900, shown='button:has-text("Open this link")')
        reader.page.get_by_role("button", name="Open this link").click()
        reader.page.wait_for_selector("text=Open this link", state="detached")  # so does what the page showed before
        grids = scored(reader)
        seen.append((grids, *reader.measured()))
        reader.page.get_by_role("tab", name="About these numbers").click()
        commit = hub.repos[name.split("@")[0]].refs["main"]
        reader.wait_said(f"{name} at commit {commit}")
        reader.keep(f"hub-{i}.png")
        assert reader.errors == []
        if i == 2:
            _by_a_scorer_of_the_hub(reader, seen[1], hub)
        reader.close()
    assert seen[0] != seen[1]
    assert seen[0][0] != seen[1][0]


def _by_a_scorer_of_the_hub(reader: Reader, before: tuple[Any, ...], hub: Hub) -> None:
    reader.page.get_by_text("Scorer", exact=True).first.click()
    field = reader.page.get_by_role("textbox", name="Toxicity scorer")
    field.fill("org/scorer")
    field.press("Enter")
    grids = scored(reader)
    reader.page.get_by_role("tab", name="About these numbers").click()
    reader.wait_said(f"scorer org/scorer label toxic (sigmoid) @{hub.repos['org/scorer'].refs['main']}")
    assert grids[0] == before[0][0]  # perplexity knows no scorer
    assert grids[1] != before[0][1]
    assert "scorer=org%2Fscorer" in reader.page.url or "scorer=org/scorer" in reader.page.url
