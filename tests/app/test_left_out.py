"""What prompts leave out, on the pages where their axis is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from tests.support.fakes import Studio
from tests.support.running import run

ROOT = Path(__file__).resolve().parents[2]
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
