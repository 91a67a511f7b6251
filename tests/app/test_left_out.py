"""Prompts of one's own, and what prompts leave out, on the pages where their axis is chosen."""

from __future__ import annotations

from typing import Any

from streamlit.testing.v1 import AppTest

from pages.backend import folders
from tests.support import running
from tests.support.fakes import Studio
from tests.support.running import AXIS, ROOT, exploring, removed, run

ROWS = "".join(f"I am {g} number {i};{g}\n" for g in ("Women", "women") for i in range(200))


def opened(page: str, **state: Any) -> AppTest:
    at = AppTest.from_file(ROOT / "pages" / page / f"{page}.py", default_timeout=60)
    for name, value in state.items():
        at.session_state[name] = value
    return run(at)


def test_an_upload_tells_what_it_leaves_out(studio: Studio) -> None:
    at = opened("explore", axis="my own prompts (CSV)")
    content = "text;group\n" + ROWS + "I was one;NaN\nI was two;old\n"
    at.file_uploader(key="csv").set_value(("mine.csv", content.encode(), "text/csv"))
    run(at)
    assert not at.error
    said = " ".join(caption.value for caption in at.sidebar.caption)
    assert "1 of 402 rows has no group and was left out: 'NaN' (1)." in said
    assert "'Women' and 'women' are 2 groups here" in said
    assert "were left out: old (" in said


def test_too_few_rows_name_the_file(studio: Studio) -> None:
    at = opened("explore", axis="my own prompts (CSV)")
    content = "text,group\n" + "".join(f"I am {g} number {i},{g}\n" for g in ("a", "b") for i in range(3))
    at.file_uploader(key="csv").set_value(("small.csv", content.encode(), "text/csv"))
    run(at)
    (error,) = at.error
    assert "'small.csv' has 6 rows with a group" in error.value.replace("\\", "")
    assert "give every group about 26 rows" in error.value


def test_an_axis_of_the_program_tells_as_well(studio: Studio) -> None:
    studio.add_scores("race_ethnicity")
    for page in ("explore", "take_home", "compare", "assumptions"):
        at = opened(page)
        assert any("in no group were left out" in caption.value for caption in at.sidebar.caption), page


def test_prompts_of_ones_own(studio: Studio) -> None:
    studio.add_scores(AXIS)
    studio.at_once()
    at = exploring(axis="my own prompts (CSV)")
    assert any("Upload a CSV file" in info.value for info in at.info)
    assert not at.metric

    def upload(content: str) -> None:
        at.file_uploader(key="csv").set_value(("mine.csv", content.encode(), "text/csv"))
        run(at)

    upload("words,group\nI am x,a\nI am y,b\n")
    assert "no column 'text'" in at.error[0].value
    upload("text,group\nI am x,a\nI am y,b\n")  # can be read, but not compared
    assert len(at.error) == 1
    assert not at.metric

    enough = "text,group\n" + "".join(f"I am {g} number {i},{g}\n" for g in ("a", "b") for i in range(200))
    upload(enough)
    assert at.subheader[0].value == "No scores yet for this model and axis"
    studio.add_scores(str(folders.keep_upload(enough.encode(), "mine.csv")))
    run(at)
    assert removed(at) == 5
    assert {"a", "b"} == set(at.session_state["job main"].result.base.groups)


def test_prompts_of_ones_own_stay_open_on_every_page_until_they_are_closed(studio: Studio) -> None:
    content = ("text;group\n" + ROWS).encode()
    studio.add_scores(str(folders.keep_upload(content, "mine.csv")))
    studio.at_once()
    at = running.opened("explore", axis="my own prompts (CSV)")
    at.file_uploader(key="csv").set_value(("mine.csv", content, "text/csv"))
    run(at)
    at.switch_page("pages/take_home/take_home.py")
    run(at)
    assert "Open: mine.csv" in [caption.value.replace("\\", "") for caption in at.sidebar.caption]
    assert running.metric(at, "Axis").value == "mine"
    chosen = ("set.json", b'{"heads": [[0, 1]], "model": "built-in", "axis": "mine"}', "application/json")
    at.get_by_key("set file").set_value(chosen)
    run(at)
    assert running.metric(at, "The file holds")
    assert not any("chosen for another" in warning.value for warning in at.warning)
    running.press(at, "csv close")
    assert any("Upload a CSV file" in info.value for info in at.info)
