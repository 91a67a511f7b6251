"""The page "Explore heads" when something is missing or goes wrong, without a model."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from fasp_core.errors import InputError
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.scoring.impact_table import ImpactTable
from pages.backend.engine import engine
from tests.support.fakes import Studio
from tests.support.running import (
    AXIS,
    bars,
    change,
    exploring,
    instrument,
    metric,
    press,
    removed,
    run,
    said,
)


@pytest.fixture
def table(studio: Studio) -> ImpactTable:
    """Scores of the built-in model on the axis that the page begins with."""
    return studio.add_scores(AXIS)


def keys(at: AppTest) -> set[str | None]:
    return {button.key for button in at.main.button}


def test_scores_that_are_not_there_yet(studio: Studio) -> None:
    studio.open.clear()
    at = exploring()
    assert at.subheader[0].value == "No scores yet for this model and axis"
    assert "8,192 tokens" in said(at)
    assert "720 validation prompts" in said(at)
    assert not at.metric

    press(at, "run No scores")
    assert [button.label for button in at.main.button] == ["Cancel"]
    (bar,) = bars(at)
    assert bar.startswith("Scoring every head")

    job = studio.running()
    press(at, "cancel No scores")
    assert job.wait(20)
    run(at)
    assert job.state == "cancelled"
    assert "cancelled" in at.info[0].value

    studio.open.set()
    studio.at_once()
    studio.error = InputError("The cache folder cannot be written: make room there.")
    press(at, "run No scores")
    assert [e.value for e in at.error] == [str(studio.error)]

    studio.error = None
    press(at, "run No scores")
    assert removed(at) == 5
    assert len(instrument(at)["maps"]) == 2


def test_models_typed_in(studio: Studio, table: ImpactTable) -> None:
    studio.at_once()
    at = exploring()
    change(at, model="~/nowhere/model.gguf")
    assert "nowhere/model.gguf'" in at.error[0].value
    assert keys(at) == {"load again"}
    press(at, "load again")
    assert len(at.error) == 1

    change(at, model="   ")
    assert "No model is named" in at.error[0].value

    # another shape: 4 layers of 3 heads
    studio.add_scores(AXIS, "tiny one")
    change(at, model="tiny one")
    assert metric(at, "Removed").value == "0 of 12 heads"
    change(at, alpha=0.25)
    assert metric(at, "Removed").value == "3 of 12 heads"
    assert (instrument(at)["layers"], instrument(at)["heads"]) == (4, 3)

    change(at, model=BUILT_IN, alpha=0.02)
    assert metric(at, "Removed").value == "5 of 270 heads"


def test_a_model_that_others_pushed_out_of_memory(studio: Studio) -> None:
    studio.at_once()
    studio.add_scores(AXIS, "tiny one")
    at = exploring(alpha=0.25, model="tiny one")
    assert metric(at, "Removed").value == "3 of 12 heads"
    for source in ("tiny two", "tiny three"):
        engine().models.get(ModelSpec(source))
    run(at)
    assert not at.subheader, at.subheader[0].value  # its scores are there still
    assert metric(at, "Removed").value == "3 of 12 heads"
