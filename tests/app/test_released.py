"""The page "Released scores" in every state that a reader can see, on made-up files, without a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from fasp_core.heads.prune_set import PruneSet
from pages.backend import folders
from tests.support.made import Upload, of_rows
from tests.support.running import ROOT, charts, metrics, run, said

PAGE = ROOT / "pages" / "released" / "released.py"
FOLDER = ROOT.parent / "shared" / "data" / "fasp_released"


def of_tables(**models: dict[str, Any]) -> Upload:
    return ("head_contributions.json", json.dumps(models).encode(), "application/json")


def opened(upload: Upload | None = None, **state: Any) -> AppTest:
    at = AppTest.from_file(PAGE, default_timeout=60)
    for name, value in state.items():
        at.session_state[name] = value
    run(at)
    if upload is not None:
        at.file_uploader(key="released_upload").set_value(upload)
        run(at)
    return at


def titles(at: AppTest) -> list[str]:
    return [chart["layout"]["title"]["text"].split("<br>")[0] for chart in charts(at)]


def test_without_a_file_the_page_says_where_files_are_and_what_will_be_seen() -> None:
    at = opened()
    assert "github.com/chandar-lab/FASP" in said(at)
    assert "head_contributions.json" in said(at)
    assert not at.metric
    assert not at.error
    assert titles(at) == []


@pytest.mark.parametrize("path", ["/no/such/file.json", "~nobody_here/x.csv", "a\0b", "x" * 5000, "/"])
def test_a_wrong_path_gives_one_sentence(path: str) -> None:
    at = opened(released_path=path)
    assert len(at.error) == 1
    assert "github.com/chandar-lab/FASP" in said(at), "the page still says what to open"


def test_a_path_is_opened(tmp_path: Path) -> None:
    name, content, _ = of_rows(0.9)
    (tmp_path / name).write_bytes(content)
    at = opened(released_path=f" {tmp_path / name} ")
    assert metrics(at)["Pruned heads"] == "7 of 72"
    (tmp_path / name).write_bytes(of_rows(0.9, "gpt2", 144)[1])  # changed on disk
    assert metrics(run(at))["Pruned heads"] == "14 of 144"


def test_a_file_of_another_kind_gives_one_sentence() -> None:
    at = opened(("notes.json", b"[1, 2]", "application/json"))
    assert len(at.error) == 1
    assert "notes.json" in at.error[0].value


def test_sets_marks_and_reliability_of_a_file_of_rows() -> None:
    at = opened(of_rows(0.9))
    assert metrics(at)["Critical heads"] == "21 of 72"
    assert metrics(at)["Both rules"] == "same set"
    assert titles(at) == ["Perplexity after removal", "Bias after removal", "Bias after removal, heads in order"]
    assert "The ranking repeats in part" in at.main.info[0].value
    sets = [PruneSet.parse(code.value) for code in at.code]
    assert sets[0] == sets[1]
    assert len(sets[0].heads) == 7
    assert "median over heads" in said(at)
    assert "0 is no “no effect”" in said(at)
    assert "Both rules choose the same heads" in said(at)
    assert len(at.dataframe) == 3
    assert at.dataframe[2].value["axis"].tolist() == ["gender and sex", "age"]


def test_noise_is_called_noise() -> None:
    at = opened(of_rows(0.0))
    (warning,) = (w.value for w in at.warning if "noise" in w.value)
    assert "cannot be told from noise" in warning
    assert "the interval holds 0" in warning


def test_a_ranking_above_noise_may_still_be_mostly_noise() -> None:
    at = opened(of_rows(0.22), released_gamma=0.0)
    (warning,) = (w.value for w in at.warning if "noise" in w.value)
    assert "More noise than signal" in warning


@pytest.mark.parametrize(
    ("upload", "method", "reason"),
    [
        (of_tables(gpt2={"cont_to_ppl": list(range(144)), "cont_to_age_bias": list(range(144))}), "fasp", "cannot say"),
        (of_rows(0.5, seeds=(1,)), "fasp", "at least two seeds"),
        (of_rows(0.5), "ppl-only", "reads no bias scores"),
        (of_rows(0.5), "random", "reads no bias scores"),
    ],
)
def test_where_reliability_is_not_known_the_reason_is_given(upload: Upload, method: str, reason: str) -> None:
    at = opened(upload, released_method=method)
    assert metrics(at)["Two seeds agree"] == "not known"
    assert any(reason in info.value for info in at.main.info)


def test_sliders_change_the_set() -> None:
    at = opened(of_rows(0.9))
    at.slider(key="released_alpha").set_value(0.2)
    at.slider(key="released_gamma").set_value(0.5)
    assert metrics(run(at))["Pruned heads"] == "14 of 72"
    assert metrics(at)["Critical heads"] == "36 of 72"


def test_where_the_rules_differ_it_is_said_why() -> None:
    ppl = [9.0] * 4 + [1.0] * 20
    bias = [float(i) for i in range(24)]
    at = opened(of_tables(tiny={"cont_to_ppl": ppl, "cont_to_age_bias": bias}), released_gamma=0.1)
    assert "The shape of **tiny** is not known" in said(at)
    box = at.selectbox(key="released_heads tiny")
    assert box.value is None
    box.set_value(6)
    run(at)
    assert metrics(at)["Both rules"] == "4 heads differ"
    assert "4 heads tie at the threshold of perplexity, 9" in said(at)
    assert "Only by rule `released`: L0H0,L0H1" in said(at)
    assert [code.value for code in at.code] == ["L0H2,L0H3", "L0H0,L0H1"]


@pytest.mark.parametrize(("gamma", "reason"), [(1.0, "protects nothing"), (0.95, "cannot prune")])
def test_where_the_released_rule_breaks_the_stable_one_goes_on(gamma: float, reason: str) -> None:
    at = opened(of_rows(0.9), released_gamma=gamma)
    assert metrics(at)["Both rules"] == "theirs fails"
    assert any(reason in warning.value for warning in at.warning)
    assert "heads are not critical at gamma" in said(at)


def test_missing_numbers_do_not_stop_the_page() -> None:
    ppl: list[Any] = [float(i) for i in range(144)]
    ppl[3] = None
    upload = of_tables(gpt2={"cont_to_ppl": ppl, "cont_to_age_bias": list(range(144))})
    at = opened(upload)
    assert any("L0H3" in warning.value for warning in at.warning)
    (error,) = at.error
    assert error.value.startswith("No heads can be chosen: z_ppl is not a finite number for L0H3")
    assert titles(at) == ["Perplexity after removal", "Bias after removal"]
    assert not at.code
    at.selectbox(key="released_method").set_value("bias-only")
    assert metrics(run(at))["Pruned heads"] == "14 of 144"


def test_a_model_with_baseline_scores_alone() -> None:
    baselines = {"magnitude_l2_structured": list(range(72)), "mask_gradient_l2_structured": list(range(72))}
    at = opened(of_tables(distilgpt2=baselines), released_method="magnitude")
    assert titles(at) == ["Magnitude of the weights", "Size of the gradient"]
    assert metrics(at)["Pruned heads"] == "7 of 72"
    at.selectbox(key="released_method").set_value("fasp")
    run(at)
    assert len(at.error) == 1


def test_models_of_one_file_have_their_own_numbers() -> None:
    """Two models of the same size with the same axis, one all noise and one clear."""
    name, clear, kind = of_rows(0.95)
    noise = of_rows(0.0, "other")[1].split(b"\n", 1)[1]
    at = opened((name, clear + noise, kind))
    assert "The ranking repeats in part" in at.main.info[0].value
    (box,) = (box for box in at.selectbox if box.label == "Model")
    box.set_value("other")
    run(at)
    at.selectbox(key="released_heads other").set_value(12)
    run(at)
    assert any("cannot be told from noise" in warning.value for warning in at.warning)


def test_a_closed_file_is_forgotten() -> None:
    at = opened(of_rows(0.9))
    at.file_uploader(key="released_upload").set_value(None)
    run(at)
    assert not at.metric
    assert "github.com/chandar-lab/FASP" in said(at)


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no released scores: {FOLDER} does not exist")
def test_every_model_and_axis_of_the_released_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama-2 among them, on nothing but a file."""
    monkeypatch.setenv(folders.VARIABLE, str(FOLDER))
    at = opened(released_path=str(FOLDER / "head_contributions.json"))
    (models,) = (box for box in at.selectbox if box.label == "Model")
    for model in list(models.options):
        (box,) = (box for box in at.selectbox if box.label == "Model")
        box.set_value(model)
        run(at)
        (axes,) = (box for box in at.selectbox if box.label == "Axis")
        for option in range(len(axes.options)):
            (axes,) = (box for box in at.selectbox if box.label == "Axis")
            axes.select_index(option)
            run(at)
            assert titles(at)[:2] == ["Perplexity after removal", "Bias after removal"]
            assert len(at.code) == 2
    assert metrics(at)["Critical heads"] == "307 of 1024"


def test_keys_of_charts_do_not_hold_the_file() -> None:
    at = opened(of_rows(0.9))
    found: Any = at.get("plotly_chart")
    assert found
    assert all(len(chart.proto.id) < 500 for chart in found)
