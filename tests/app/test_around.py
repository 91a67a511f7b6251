"""What stands around every page: runs, help, the tour of a first visit, and the demo."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
from streamlit import config
from streamlit.testing.v1 import AppTest

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.storage import catalog
from fasp_core.storage.store import Store
from fasp_core.studies.compare.plan import Plan
from pages.backend import folders
from pages.backend.engine import engine
from pages.backend.requests import Experiment, Load, LoadScorer, Measure, Request, Score
from pages.explore.looking import Look, Write
from pages.shell import runs, tour
from pages.widgets import glossary
from tests.support.fakes import MADE, Studio
from tests.support.running import AXIS, labels, opened, press, run, texts

PAGES = ("explore", "presentation", "compare", "transfer", "assumptions", "contexts", "released")


@pytest.fixture
def demonstration(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Generator[Studio]:
    """The same app as a demo."""
    details = config.get_option("client.showErrorDetails")
    monkeypatch.setenv("FASP_DEMO", "1")
    studio.add_scores(AXIS)
    yield studio
    config.set_option("client.showErrorDetails", details)


def popovers(at: AppTest) -> list[str]:
    found = []

    def walk(node: Any) -> None:
        proto = getattr(node, "proto", None)
        if proto is not None and hasattr(proto, "HasField") and "popover" in {f.name for f, _ in proto.ListFields()}:
            found.append(proto.popover.label)
        for child in getattr(node, "children", {}).values():
            walk(child)

    walk(at._tree)
    return found


def until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about")


# --- runs ---


def test_the_line_says_what_runs_and_opens_to_it(studio: Studio) -> None:
    studio.add_scores(AXIS)
    studio.open.clear()
    at = opened()
    assert "1 running" in popovers(at)
    assert "Measuring a set" not in texts(at)  # until it is opened
    until(lambda: studio.running().log)
    at.session_state[runs.OPEN] = True
    run(at)
    said = texts(at)
    assert "Measuring a set" in said
    assert "SmolLM2" in said
    assert "axis: race_ethnicity" in said
    assert "half way" in said
    job = studio.running()
    next(button for button in at.button if button.label == "Cancel" and "runs" in str(button.key)).click()
    run(at)
    assert job.wait(20)
    assert job.state == "cancelled"


def test_nothing_runs(studio: Studio) -> None:
    at = opened(**{runs.OPEN: True})
    assert "Runs" in popovers(at)
    assert "Nothing runs at the moment." in texts(at)
    assert "Cancel" not in labels(at)


@pytest.mark.parametrize("error", [InputError("Name a <b>*model*</b>."), ValueError("/home/me/secret")])
def test_what_failed_is_told_can_go_on_and_be_forgotten(studio: Studio, error: Exception) -> None:
    studio.error = error
    engine().score(Score(ModelSpec(), BiasConfig(AXIS)))
    studio.finish()
    at = opened("compare", **{runs.OPEN: True})
    (one,) = engine().lanes.past()
    said = texts(at)
    assert "secret" not in said
    told = "Name a <b>*model*</b>." if isinstance(error, InputError) else "(ValueError)"
    assert any(told in text.value for text in at.text)  # as text, not as Markdown
    studio.error = None
    at.button(f"runs resume {one.number}").click()
    run(at)
    until(lambda: not engine().jobs() and [past.state for past in engine().lanes.past()] != ["failed"])
    (done,) = engine().lanes.past()
    assert (done.state, done.key, done.error) == ("done", one.key, "")
    assert engine().results.scores(ModelSpec(), BiasConfig(AXIS)) is not None


def test_forgetting_and_what_was_read_from_disk(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    engine().score(Score(ModelSpec(), BiasConfig(AXIS)))
    studio.finish()
    (one,) = engine().lanes.past()
    at = opened("compare", **{runs.OPEN: True})
    assert "Ended since the server was started" not in texts(at)  # done in no time: it was on disk
    monkeypatch.setattr(runs, "SHORT", 0.0)
    run(at)
    assert f"runs resume {one.number}" not in [button.key for button in at.button]
    at.button(f"runs forget {one.number}").click()
    run(at)
    assert engine().lanes.past() == []


def test_a_run_resumed_by_another_reader_is_seen_on_the_page(studio: Studio) -> None:
    studio.open.clear()
    engine().score(Score(ModelSpec(), BiasConfig(AXIS)))
    at = opened()
    assert "Cancel" in labels(at)
    assert "Score all heads" not in labels(at)


@pytest.mark.parametrize(
    ("asked", "model", "title", "part"),
    [
        (Load(ModelSpec("me/model")), "me/model", "Loading the model", {"precision": "float32"}),
        (LoadScorer("me/scorer", None, None), "", "Loading the scorer", {}),
        (
            Measure(ModelSpec(), PruneSet.parse("L0H3"), EvalConfig(BiasConfig("age"))),
            "SmolLM2-135M-Instruct",
            "Measuring a set",
            {"removed": "L0H3", "axis": "age", "tokens of text": "1024"},
        ),
        (Score(ModelSpec("x"), BiasConfig("age", n_prompts=90)), "x", "Scoring every head", {"n prompts": "90"}),
        (
            Experiment(ModelSpec("x"), "A title", (Plan("age", "counted"), "word")),
            "x",
            "A title",
            {"reading": "counted"},
        ),
        (Look(ModelSpec("x", bos="yes"), "a secret", 3), "x", "Running one prompt", {"beginning token": "yes"}),
        (
            Write(ModelSpec("x"), "a secret", PruneSet(), GenerationConfig(samples=9), "offline", None),
            "x",
            "Running one prompt",
            {"removed": "nothing", "samples": "9"},
        ),
    ],
)
def test_requests_in_words(asked: Request, model: str, title: str, part: dict[str, str]) -> None:
    assert (asked.model, asked.title) == (model, title)
    assert asked.settings().items() >= part.items()
    assert not {"secret", "word"} & set(" ".join(asked.settings().values()).split())


def test_stored_results_are_listed_and_only_ones_own_deleted(studio: Studio) -> None:
    studio.add_scores(AXIS)
    own = {"weights": "w", "score": "ppl", "tokens": 90}
    made = {**MADE, "model": "me/model", "device": "cpu", "command": "python -m fasp_core score --model me/model"}
    entry = studio.store.save("scores", own, label="me-model", meta={"provenance": made})
    at = opened("compare", **{runs.OPEN: True})
    at.button("runs stored").click()
    run(at)
    said = texts(at)
    assert "me/model" in {o for box in at.selectbox if box.key == "stored model" for o in box.options}
    at.selectbox("stored model").set_value("me/model")
    at.session_state[runs.STORED] = True  # here a whole run closes the dialog
    run(at)
    said = texts(at)
    assert made["command"] in said
    assert "tokens: 90" in said
    delete = at.button(f"stored delete {entry.path.name}")
    assert delete.disabled
    at.checkbox(f"stored sure {entry.path.name}").check()
    at.session_state[runs.STORED] = True
    run(at)
    at.button(f"stored delete {entry.path.name}").click()
    at.session_state[runs.STORED] = True
    run(at)
    assert not entry.path.exists()
    assert len(catalog.kept(Store())) == 2


# --- help and tour ---


@pytest.mark.parametrize("page", PAGES)
def test_help_is_on_every_page(studio: Studio, page: str) -> None:
    at = opened(page)
    assert {"Runs", "Help"} <= set(popovers(at)) or {"1 running", "Help"} <= set(popovers(at))
    assert glossary.GLOSSARY["gap"].meaning in texts(at)


def test_the_tour_has_four_steps_and_does_not_come_back(studio: Studio) -> None:
    """Whether it begins by itself is for a browser: here every reader seems to bring the cookie."""
    studio.add_scores(AXIS)
    at = opened(**{tour.STEP: 0})
    for number, (title, _) in enumerate(tour.STEPS, 1):
        assert f"**{title}** ({number} of 4)" in texts(at)
        assert at.button("tour back").disabled == (number == 1)
        at.button("tour next").click()
        run(at)
    assert "of 4)" not in texts(at)
    assert "of 4)" not in texts(run(at))
    press(at, "Show the tour")
    assert "(1 of 4)" in texts(at)
    at.button("tour skip").click()
    run(at)
    assert "of 4)" not in texts(at)


def test_the_tour_is_on_the_first_page_only(studio: Studio) -> None:
    at = opened("compare")
    assert "of 4)" not in texts(at)
    assert "Show the tour" not in labels(at)


# --- demo ---


def widgets(at: AppTest) -> list[Any]:
    return [*at.text_input, *at.text_area, *at.get("file_uploader"), *at.selectbox, *at.multiselect]


@pytest.mark.parametrize("page", PAGES)
def test_a_demo_takes_no_files_paths_or_models(demonstration: Studio, page: str) -> None:
    at = opened(page)
    assert "Demo: read-only" in texts(at)
    assert not at.get("file_uploader")
    for box in (*at.text_input, *at.text_area):
        assert not any(word in f"{box.label} {box.placeholder}".lower() for word in ("path", "folder", "file", "csv"))
    for box in at.selectbox:
        assert not box.proto.accept_new_options
        assert not any("csv" in str(option).lower() or "own" in str(option).lower().split() for option in box.options)
    started = {"Score all heads", "Compare the methods", "Run", "Ask", "Search", "Measure", "Measure it on test"}
    assert not started & set(labels(at))
    assert config.get_option("client.showErrorDetails") == "none"


def test_the_same_pages_take_them_where_it_is_no_demo(studio: Studio) -> None:
    """So that the test above can fail."""
    at = opened("released")
    assert at.get("file_uploader")
    assert any("path" in box.label for box in at.text_input)
    assert any(box.proto.accept_new_options for box in opened("compare").selectbox)


@pytest.mark.parametrize("asked", ["/etc/passwd", "openai-community/gpt2", "../x.gguf"])
def test_a_link_to_another_model_opens_with_the_built_in_one(demonstration: Studio, asked: str) -> None:
    at = opened(query={"model": asked})
    assert sum("The link asks for a model" in note.value for note in at.info) == 1
    assert asked not in texts(at)
    assert at.selectbox("model").value == BUILT_IN
    assert all(job.key.spec == ModelSpec() for job in engine().jobs())
    assert "270 heads" in "".join(metric.value for metric in at.metric)
    kept = [prune for prune, _ in demonstration.asked]
    assert all(isinstance(prune, PruneSet) for prune in kept)


def test_other_models_by_name(demonstration: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASP_DEMO_MODELS", f" {BUILT_IN}, tiny one ")
    at = opened(query={"model": "tiny one"})
    assert not any("The link asks" in note.value for note in at.info)
    assert at.selectbox("model").options == ["SmolLM2-135M-Instruct", "tiny one"]
    assert engine().load(ModelSpec("tiny one")).wait(20)


SMALL = EvalConfig(BiasConfig(AXIS, n_prompts=210), TextConfig(tokens=1024))
REFUSED = {
    "model": lambda: engine().load(ModelSpec("/etc/passwd")),
    "precision": lambda: engine().load(ModelSpec(dtype="float16")),
    "scores": lambda: engine().score(Score(ModelSpec(), BiasConfig(AXIS))),
    "experiment": lambda: engine().experiment(Experiment(ModelSpec(), "x", ()), lambda *_: None),
    "upload": lambda: folders.keep_upload(b"text,group", "x.csv"),
    "path": lambda: engine().results.scores(ModelSpec(), BiasConfig("/etc/passwd")),
    "loading": lambda: engine().models.runner(ModelSpec("/etc/passwd")),
    "axis": lambda: measure(replace(SMALL, bias=BiasConfig("/etc/passwd", n_prompts=90))),
    "prompts": lambda: measure(replace(SMALL, bias=BiasConfig(AXIS, n_prompts=211))),
    "tokens": lambda: measure(replace(SMALL, text=TextConfig(tokens=1025))),
    "text": lambda: measure(replace(SMALL, text=TextConfig("/etc/passwd"))),
    "scorer": lambda: measure(replace(SMALL, bias=BiasConfig(AXIS, n_prompts=90, scorer="me/scorer"))),
    "sampled": lambda: measure(replace(SMALL, bias=BiasConfig(AXIS, n_prompts=90, measure="sampled"))),
    "samples": lambda: measure(
        replace(SMALL, bias=BiasConfig(AXIS, n_prompts=36, measure="sampled", generation=GenerationConfig(samples=9)))
    ),
}


def measure(given: EvalConfig) -> Any:
    return engine().measure(Measure(ModelSpec(), PruneSet(), given), ("reader", "main"))


@pytest.mark.parametrize("name", REFUSED)
def test_the_engine_refuses_what_a_demo_has_not(demonstration: Studio, name: str, monkeypatch: Any) -> None:
    with pytest.raises(InputError, match="demo"):
        REFUSED[name]()
    assert engine().jobs() == []
    assert not (Store().root / "uploads").exists()
    monkeypatch.delenv("FASP_DEMO")
    Load(ModelSpec("/etc/passwd")).check()  # and only there


def test_the_engine_measures_within_the_limits(demonstration: Studio) -> None:
    sampled = replace(SMALL, bias=BiasConfig(AXIS, n_prompts=36, measure="sampled"))
    for given in (SMALL, sampled):
        job = measure(given)
        assert job.wait(20)
        assert job.state == "done", job.error


def test_a_cancelled_run_is_not_resumed_in_a_demo(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    studio.error = ValueError()
    engine().score(Score(ModelSpec(), BiasConfig(AXIS)))
    studio.finish()
    (one,) = engine().lanes.past()
    monkeypatch.setenv("FASP_DEMO", "1")
    with pytest.raises(InputError, match="demo"):
        engine().resume(one)
