"""Classifiers of a hub as scorers: which one a name means, on which device, and how labels are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fasp_core.data import classifiers
from fasp_core.data.classifiers import ClassifierScorer
from fasp_core.data.scorers import make_scorer
from fasp_core.errors import InputError
from fasp_core.metrics import meters
from fasp_core.metrics.meters import BiasConfig, scorer_of
from tests.support.hub import LABELS, Hub
from tests.support.tiny import tiny_lm

Files = dict[str, dict[str, bytes]]
TEXTS = ["I met a red person", "They hate the stupid river.", ""]


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    meters._scorer.cache_clear()
    monkeypatch.setattr(meters, "_commits", {})


def test_a_classifier_is_the_folder_that_was_put_there(hub: Hub, folders: dict[str, Path], files: Files) -> None:
    commit = hub.add("org/scorer", files["scorer"]).refs["main"]
    one, same = make_scorer("org/scorer"), make_scorer(str(folders["scorer"]))
    np.testing.assert_array_equal(one.score(TEXTS), same.score(TEXTS))
    assert one.name == f"org/scorer label toxic (sigmoid) @{commit}"
    assert hub.fetched()[0] == "config.json"


def test_each_commit_folder_label_and_reading_has_its_name(hub: Hub, files: Files) -> None:
    repo = hub.add("org/scorer", files["scorer"])
    names = [make_scorer("org/scorer").name, make_scorer("org/scorer@main", "insult").name]
    names.append(make_scorer("org/scorer", reading="softmax").name)
    assert make_scorer(f"org/scorer@{repo.refs['main']}").name == names[0]
    repo.push({**files["scorer"], "README.md": b"more", **{f"sub/{n}": d for n, d in files["scorer"].items()}})
    names += [make_scorer("org/scorer").name, make_scorer("org/scorer/sub").name]
    assert len(set(names)) == 5


def test_a_name_means_the_same_as_long_as_the_process_lives(hub: Hub, files: Files) -> None:
    repo = hub.add("org/scorer", files["scorer"])
    config = BiasConfig("religion", scorer="org/scorer")
    name = scorer_of(config).name
    repo.push({**files["scorer"], "README.md": b"more"})
    meters._scorer.cache_clear()  # as others that are loaded push it out
    assert scorer_of(config).name == name
    assert name in scorer_of(BiasConfig("religion", scorer="org/scorer", label="insult")).name.replace(
        "insult", "toxic"
    )


def test_a_classifier_runs_where_the_model_does(hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/scorer", files["scorer"])
    config, lm = BiasConfig("religion", scorer="org/scorer"), tiny_lm("llama")
    on_cpu = scorer_of(config, lm)
    name, scores = on_cpu.name, on_cpu.score(TEXTS)
    assert isinstance(on_cpu, ClassifierScorer)
    monkeypatch.setattr(type(lm), "device", torch.device("meta"))
    moved = scorer_of(config, lm)
    assert isinstance(moved, ClassifierScorer)
    assert moved._model.device == torch.device("meta")
    assert moved.name == name
    assert scores.shape == (3,)


def test_what_holds_no_classifier_is_refused_before_it_is_fetched(hub: Hub, files: Files) -> None:
    hub.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x", "vocab.txt": b"x"})
    hub.add("org/gated", files["scorer"], access="gated")
    for name, said in (
        ("org/pickled", "pickled weights are not read"),
        ("org/gated", "is gated"),
        ("org/no", "no folder"),
    ):
        with pytest.raises(InputError, match=said):
            make_scorer(name)
    assert hub.fetched() == []


def test_a_choice_of_reading_is_asked_for_before_weights_are_fetched(
    hub: Hub, folders: dict[str, Path], files: Files
) -> None:
    hub.add("org/unsaid", files["unsaid"])
    for name in ("org/unsaid", str(folders["unsaid"])):
        with pytest.raises(InputError, match=r"6 labels \(toxic, severe_toxic.*--scorer-reading sigmoid"):
            make_scorer(name)
    assert hub.fetched() == ["config.json"]
    told = {reading: make_scorer("org/unsaid", reading=reading) for reading in classifiers.READINGS}
    trained = make_scorer(str(folders["scorer"]))  # the same weights, and a config that says it
    np.testing.assert_array_equal(told["sigmoid"].score(TEXTS), trained.score(TEXTS))
    assert " (sigmoid) @" in told["sigmoid"].name
    assert " (softmax) @" in told["softmax"].name
    shares = [make_scorer("org/unsaid", label, reading="softmax").score(TEXTS) for label in LABELS]
    np.testing.assert_allclose(np.sum(shares, 0), 1.0)


@pytest.mark.parametrize(
    ("labels", "problem", "reading"),
    [
        (["non-toxic", "toxic"], None, "softmax"),
        (["LABEL_0", "LABEL_1"], None, "softmax"),
        (["negative", "neutral", "positive"], None, "softmax"),
        (["NOT_HATE", "offensive", "hate"], None, "softmax"),
        (["nothate", "hate", "toxic"], None, "softmax"),
        (["hate", "offensive", "neither"], None, "softmax"),
        (["toxic"], None, "sigmoid"),
        (["a", "b", "c"], "single_label_classification", "softmax"),
        (["a", "b"], "multi_label_classification", "sigmoid"),
        (["toxic", "severe_toxic"], None, None),
        (list(LABELS), None, None),
        (["Toxicity", "Severe toxicity", "Identity attack", "Sexual explicit"], None, None),
        (["neutral", "insult", "obscenity", "threat", "dangerous"], None, None),
        (["LABEL_0", "LABEL_1", "LABEL_2"], None, None),
        (["hate", "spam", "violence"], None, None),
    ],
)
def test_which_labels_say_how_they_are_read(labels: list[str], problem: str | None, reading: str | None) -> None:
    if reading is not None:
        assert classifiers._reading("x", labels, problem) == reading
    else:
        with pytest.raises(InputError, match="exclude each other"):
            classifiers._reading("x", labels, problem)


def test_readings_that_are_none(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="choose sigmoid or softmax"):
        make_scorer(str(folders["scorer"]), reading="argmax")
    for name in ("offline", "vader"):
        with pytest.raises(InputError, match="leave the reading out"):
            make_scorer(name, reading="sigmoid")


def test_a_scorer_without_an_identity_is_an_error_of_the_program(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "_found", lambda *_: (folders["scorer"], "org/x", "None", ()))
    with pytest.raises(ValueError, match="without an identity"):
        make_scorer("org/x")
