"""Chosen on one thing, tested on another: the plan by hand, the choice by brute force, the summaries by definition."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core import defaults
from fasp_core.cli.main import main
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.answers import measures
from fasp_core.studies.contexts import choosing, matrix, summary
from fasp_core.studies.contexts.audit import AuditConfig, audit
from fasp_core.studies.contexts.cells import MatrixConfig
from fasp_core.studies.contexts.choosing import USUAL, Method, Sizes, common_top
from fasp_core.studies.contexts.findings import findings
from fasp_core.studies.contexts.generalisation import Carried, cells_of, rows_of
from fasp_core.studies.contexts.settings import settings
from tests.support.contexts import CONFIG, THREE, WORLD, instruct_lm, made_up


@pytest.fixture
def lm(monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setattr(matrix, "TextConfig", partial(TextConfig, window=64, stride=64))  # the model takes 256 tokens
    return instruct_lm()


def test_the_plan() -> None:
    found = settings(WORLD.scenarios)  # 0, 1: rooms; 2: days; 3: parts
    assert [s.sources for s in found if s.kind == "same"] == [(0,), (1,), (2,), (3,)]
    assert [(s.sources, s.tested) for s in found if s.kind == "context"] == [((1,), 0), ((0,), 1)]
    across = {(s.chosen_on, s.sources, s.tested) for s in found if s.kind == "other"}
    assert across == {
        ("rooms", (0, 1), 2),
        ("rooms", (0, 1), 3),
        ("days", (2,), 0),
        ("days", (2,), 1),
        ("days", (2,), 3),
        ("parts", (3,), 0),
        ("parts", (3,), 1),
        ("parts", (3,), 2),
    }
    together = [(s.sources, s.tested) for s in found if s.kind == "others"]
    assert together == [((2, 3), 0), ((2, 3), 1), ((0, 1, 3), 2), ((0, 1, 2), 3)]
    assert not [s for s in settings(WORLD.scenarios[:2]) if s.kind in ("other", "others")]


@given(st.data())
def test_parts_that_all_scenarios_name_are_an_intersection(data: st.DataObject) -> None:
    n, rows = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3))
    scores = [np.array(data.draw(st.permutations(range(1, n + 1))), dtype=float) for _ in range(rows)]
    count = data.draw(st.integers(1, n))
    found = set(common_top(scores, count).tolist())
    assert len(found) == count
    tops = [set.intersection(*(set(np.argsort(-s)[:r].tolist()) for s in scores)) for r in range(n + 1)]
    before = max((t for t in tops if len(t) <= count), key=len)  # r as large as it may be without too many parts
    after = min((t for t in tops if len(t) >= count), key=len)
    assert before <= found <= after


def test_parts_that_do_not_help_are_left() -> None:
    first, second = np.array([3.0, 2.0, -1.0, np.nan]), np.array([1.0, 2.0, 5.0, 5.0])
    assert set(common_top([first, second], 4).tolist()) == {0, 1}


def test_random_sets_are_as_large_as_those_beside_them(lm: LanguageModel) -> None:
    """By effect fewer parts may serve several scenarios than one; the random set is as small."""
    shape = {"heads": (lm.n_layers, lm.n_heads), "neurons": (lm.n_layers, lm.n_neurons)}

    def says(first: int) -> choosing.Clues:
        scores = {f"{kind}-effect": np.arange(float(np.prod(s))).reshape(s) - first for kind, s in shape.items()}
        scores["weights-effect"] = np.arange(first, first + 3)
        return choosing.Clues(scores, (), 1.0)

    said = [says(int(np.prod(shape["heads"])) - 2), says(3)]
    sizes = replace(CONFIG.sizes, heads=0.9, weight_top=3 / choosing.weights.count(lm), neurons=0.5)
    methods: tuple[Method, ...] = ("heads-random", "neurons-random", "weights-effect-random")
    for method in methods:
        for part in (said, said[:1], said[1:]):
            random, beside = (choosing.choose(lm, m, part, sizes, 1) for m in (method, choosing.BESIDE[method]))
            assert len(random) == len(beside)
            assert {p: len(at) for p, at in random.weights.items()} == {p: len(at) for p, at in beside.weights.items()}
    assert len(choosing.choose(lm, "heads-random", said, sizes)) == 1


def test_everything_is_really_removed_and_kept(lm: LanguageModel, tmp_path: Path, monkeypatch: Any) -> None:
    store = Store(tmp_path)
    told: list[tuple[float, float]] = []
    found = matrix.run(lm, WORLD, CONFIG, store, progress=lambda done, total, _: told.append((done, total)))
    assert len(found.cells) == len(USUAL) * len(settings(WORLD.scenarios))
    assert all(0 <= done <= total for done, total in told)
    assert told == sorted(told)
    test = replace(CONFIG.audit, seed=1)
    for i, scenario in enumerate(WORLD.scenarios):
        for config, answers in ((test, found.base[i]), (CONFIG.audit, found.other[i])):
            expected = audit(lm, scenario, WORLD, config, Store(tmp_path / "other")).answers.values
            np.testing.assert_array_equal(answers.values, expected)
    for cell in found.cells:
        if cell.method.startswith("weights"):
            assert not cell.prune_set
            continue
        subject = PruneSet.parse(cell.prune_set)
        assert len(subject) == cell.parts
        assert not (subject.neurons if cell.method.startswith("heads") else subject.heads)
    picked = found.of("heads-random", "other", "days", "rooms")
    assert [c.setting.tested for c in picked] == [0, 1]
    for cell in picked:
        subject = PruneSet.parse(cell.prune_set)
        (beside,) = [c for c in found.of("heads-effect", "other") if c.setting == cell.setting]
        assert cell.parts == beside.parts
        asked = audit(lm, WORLD.scenarios[cell.setting.tested], WORLD, test, Store(tmp_path / "other"), subject)
        np.testing.assert_array_equal(cell.answers.values, asked.answers.values)
        assert cell.parameters == cell.parts * lm.head_parameters()
    wanda, random = (found.of(m, "same") for m in ("weights-wanda", "weights-random"))  # type: ignore[arg-type]
    assert [c.parts for c in wanda] == [c.parts for c in random]
    assert min(c.parts for c in wanda) > 0
    monkeypatch.setattr(matrix, "audit", lambda *_, **__: pytest.fail("it is stored"))
    (again,) = matrix.stored(lm.id, store)
    assert again.config == found.config
    assert again.scenarios == WORLD.scenarios
    for one, other in zip(again.cells, found.cells, strict=True):
        assert (one.method, one.setting, one.parts) == (other.method, other.setting, other.parts)
        np.testing.assert_array_equal(one.answers.values, other.answers.values)
    assert not matrix.stored(ModelId("another model"), store)


def test_another_method_asks_only_what_is_new(lm: LanguageModel, tmp_path: Path, monkeypatch: Any) -> None:
    """A matrix of other methods lies in the store alone, without the single audits that it was made of."""
    one, both = (replace(CONFIG, methods=m) for m in (("heads-random",), ("neurons-effect", "heads-random")))
    expected = matrix.run(lm, WORLD, both, Store(tmp_path / "whole"))
    matrix.run(lm, WORLD, one, Store(tmp_path / "first"))
    shutil.copytree(tmp_path / "first" / matrix.KIND, tmp_path / "second" / matrix.KIND)
    asked: list[Any] = []

    def counted(*given: Any) -> Any:
        asked.append(given[5])
        return audit(*given)

    monkeypatch.setattr(matrix, "audit", counted)
    found = matrix.run(lm, WORLD, both, Store(tmp_path / "second"))
    per_method = len(settings(WORLD.scenarios))
    assert sum(removed is not None for removed in asked) == per_method
    assert [(c.method, c.setting, c.prune_set) for c in found.cells] == [
        (c.method, c.setting, c.prune_set) for c in expected.cells
    ]
    for a, b in zip(found.cells, expected.cells, strict=True):
        np.testing.assert_array_equal(a.answers.values, b.answers.values)
        np.testing.assert_array_equal(a.nll.sums, b.nll.sums)
        assert a.seconds >= 0
    for time in found.times():
        seconds = [c.seconds for c in found.cells if c.setting.kind == time.kind]
        assert (time.tests, time.timed) == (len(seconds), len(seconds))
        assert time.seconds == pytest.approx(sum(seconds) / len(seconds))
    changed = replace(one, sizes=Sizes(heads=0.5))
    matrix.run(lm, WORLD, changed, Store(tmp_path / "second"))
    assert sum(removed is not None for removed in asked) == 2 * per_method, "another size is another matrix"


def test_effects_are_of_the_samples_that_are_not_tested_on(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def spy(lm: Any, replies: Any, config: AuditConfig, *rest: Any) -> Any:
        seeds.append((config.seed, replies.ids))
        return clues(lm, replies, config, *rest)

    clues = choosing.clues
    monkeypatch.setattr(choosing, "clues", spy)
    config = replace(CONFIG, methods=("heads-effect",))
    found = matrix.run(lm, WORLD, config, Store(tmp_path))
    assert {seed for seed, _ in seeds} == {config.audit.seed}
    tested = audit(lm, WORLD.scenarios[0], WORLD, replace(CONFIG.audit, seed=1), Store(tmp_path))
    assert tested.ids != seeds[0][1]
    np.testing.assert_array_equal(found.base[0].values, tested.answers.values)


@pytest.mark.parametrize("wrong", [{"methods": ()}, {"methods": ("magic",)}, {"names": 1}, {"scenarios": 0}])
def test_what_cannot_be_run_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        MatrixConfig(**wrong)


def test_shares_are_checked() -> None:
    with pytest.raises(InputError):
        Sizes(heads=0.0)


# --- summaries ---


def apart(answers: Any, whole: Any) -> float:
    """How far groups are apart in logs, in SDs of the whole model's."""
    (a, b), (c, d) = ([np.log1p(x.values[x.codes == g]).ravel() for g in (0, 1)] for x in (answers, whole))
    pooled = ((len(c) - 1) * c.var(ddof=1) + (len(d) - 1) * d.var(ddof=1)) / (len(c) + len(d) - 2)
    return float(abs(a.mean() - b.mean()) / np.sqrt(pooled))


def test_summaries_are_means_over_scenarios() -> None:
    found = made_up({("heads-effect", "same"): 0.5, ("heads-effect", "other"): 0.1})
    carried = Carried(found)
    assert rows_of(found) == [("same", ""), ("other", "days"), ("other", "parts")]
    cells = cells_of(found, "heads-effect", ("same", ""))
    assert [c.setting.tested for c in cells] == [0, 1]
    told = carried.summary(cells)
    assert told is not None
    whole = [found.base[i] for i in (0, 1)]
    before = np.mean([apart(w, w) for w in whole])
    after = np.mean([apart(c.answers, w) for c, w in zip(cells, whole, strict=True)])
    assert told.before.value == pytest.approx(before)
    assert told.after.value == pytest.approx(after)
    assert told.change.value == pytest.approx(after - before)
    assert told.change.low < told.change.value < told.change.high < 0
    assert told.change.high - told.change.low < told.after.high - told.after.low  # paired
    assert told.parsed_before == told.parsed_after == (1.0, 1.0)
    usual = [measures.inlier_ratio(found.base[c.setting.tested], c.answers) for c in cells]  # type: ignore[arg-type]
    assert told.inliers == pytest.approx(np.mean(usual))
    other = [measures.inlier_ratio(found.base[i], found.other[i]) for i in (0, 1)]  # type: ignore[arg-type]
    assert told.usual_inliers == pytest.approx(np.mean(other))
    assert told.parts == (3, 3)
    assert told.perplexity == pytest.approx(0.0)
    assert carried.summary(cells_of(found, "heads-effect", ("other", "days"), "days")) is None
    one = carried.summary(cells_of(found, "heads-effect", ("other", "days"), "parts"))
    assert one is not None
    assert one.cells == 1


EVERY = [(m, k) for m in ("heads-effect", "neurons-effect") for k in ("same", "other")]


def test_findings_that_hold() -> None:
    shares = dict(zip(EVERY, (0.5, 0.1, 0.9, 0.2), strict=True))
    neurons, shrink, _ = findings(Carried(made_up(shares)))
    assert (neurons.holds, shrink.holds) == (True, True)
    assert "as in the paper" in neurons.sentence
    assert "Effects shrink" in shrink.sentence


def test_findings_that_do_not() -> None:
    shares = dict(zip(EVERY, (0.5, 0.9, 0.1, 0.5), strict=True))
    neurons, shrink, _ = findings(Carried(made_up(shares)))
    assert (neurons.holds, shrink.holds) == (False, False)


def test_findings_that_nobody_can_tell() -> None:
    shares = dict.fromkeys(EVERY, 0.0)
    neurons, shrink, _ = findings(Carried(made_up(shares, noise=0.5)))
    assert (neurons.holds, shrink.holds) == (None, None)
    assert "is not shown: they differ by at most" in neurons.sentence
    assert "No effect is shown that could shrink" in shrink.sentence
    alone = findings(Carried(made_up({("heads-effect", "same"): 0.5})))
    assert [f.holds for f in alone] == [None, None, None]
    assert "open" in alone[2].sentence
    assert "open" in alone[0].sentence


def test_a_set_that_silences_a_scenario_is_compared_on_the_others() -> None:
    """Scenario 0 loses 90% of its difference by heads and by neurons alike, scenario 1 a tenth: where neurons leave
    scenario 1 without numbers, neurons do not beat heads."""
    made = made_up(dict.fromkeys(EVERY, 0.5))
    rng = np.random.default_rng(3)
    cells = []
    for cell in made.cells:
        share = 0.9 if cell.setting.tested == 0 else 0.1
        whole = made.base[cell.setting.tested].values
        values = whole - share * 10 * (made.codes == 0)[:, None] + 0.2 * rng.normal(size=whole.shape)
        if cell.method == "neurons-effect" and cell.setting.tested == 1:
            values = np.full_like(values, np.nan)
        cells.append(replace(cell, halvings=(measures.Answers(values, made.codes),)))
    carried = Carried(replace(made, cells=tuple(cells)))
    neurons, shrink, _ = findings(carried)
    title = made.scenarios[1].title
    assert neurons.holds is None
    assert f"over 2 pairs of tests (2 more, in {title}, lack numbers)" in neurons.sentence
    assert shrink.holds is None
    assert (
        f"over 3 pairs of tests (1 more, in {title}, lack numbers)" in shrink.sentence
    )  # heads in both, neurons in one
    silenced = carried.summary(carried.matrix.of("neurons-effect", "same"))
    assert silenced is not None
    assert (silenced.cells, silenced.left, silenced.lost) == (1, 1, (title,))


def test_that_effects_shrink_is_said_with_the_sizes_of_sets() -> None:
    shares = dict(zip(EVERY, (0.5, 0.1, 0.9, 0.2), strict=True))
    made = made_up(shares)
    smaller = tuple(replace(c, prune_set="L0H0-1" if c.setting.kind == "other" else "L0H0-12") for c in made.cells)
    told = findings(Carried(replace(made, cells=smaller)))[1]
    assert told.holds is True
    assert "held 2.0 heads instead of 13.0 and 2.0 neurons instead of 13.0" in told.sentence
    assert "held" not in findings(Carried(made))[1].sentence


def test_a_distance_is_winsorised_at_the_limits_of_the_whole_model() -> None:
    """One answer of a billion by the pruned model is no distance of millions of SDs."""
    made = made_up({("heads-effect", "same"): 0.0}, noise=0.0)
    for cell in made.cells:
        cell.answers.values[0, 0] = 1e9
    told = Carried(made, defaults.WINSORISE).summary(made.of("heads-effect", "same"))
    assert told is not None
    assert told.distance < 0.1
    assert Carried(made).summary(made.of("heads-effect", "same")).distance > 1e5  # type: ignore[union-attr]


def test_random_sets_are_no_finding() -> None:
    shares = {("heads-random", "same"): 0.9, ("neurons-effect", "same"): 0.1}
    assert findings(Carried(made_up(shares)))[0].holds is None


@pytest.fixture
def ran(
    lm: LanguageModel, tmp_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Callable[..., tuple[int, str, str]]:
    path = tmp_path / "rooms.toml"
    path.write_text(THREE)
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: lm)

    def run(*more: str) -> tuple[int, str, str]:
        options = ["--scenarios", str(path), "--samples", "2", "--answer-tokens", "2", "--tokens", "64"]
        status = main(["study", "contexts", *options, "--method", "heads-random", "--method", "neurons-random", *more])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_the_command(ran: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = ran("--json")
    assert status == 0
    told = json.loads(out)
    assert {c["method"] for c in told["cells"]} == {"heads-random", "neurons-random"}
    assert {c["chosen_on"] for c in told["cells"]} >= {"rooms", "days", "parts"}
    assert len(told["findings"]) == 3
    assert {t["kind"] for t in told["run_time"]} == {"same", "context", "other", "others"}
    status, out, _ = ran()
    assert status == 0
    assert "## neurons-random" in out
    assert "## Run time" in out
    status, _, err = ran("--winsorise", ".7")
    assert status == 2
    assert "--winsorise" in err


def test_a_set_that_silences_a_group_has_no_change() -> None:
    found = made_up({("heads-effect", "same"): 0.5})
    for cell in found.cells:
        cell.answers.values[found.codes == 0] = np.nan
    told = Carried(found).summary(found.of("heads-effect", "same"))
    assert told is not None
    assert np.isnan(told.change.value)
    assert told.parsed_after == (0.0, 1.0)
    text = summary.markdown(found, 0.0)
    assert "no numbers" in text
    assert "nan" not in text.split("##")[1]


def test_cells_of_two_noises_stand_in_no_matrix(lm: LanguageModel, tmp_path: Path) -> None:
    one, both = (replace(CONFIG, methods=m) for m in (("heads-random",), ("heads-random", "neurons-random")))
    store, old = Store(tmp_path / "store"), Store(tmp_path / "old")
    made = matrix.run(lm, WORLD, one, store)
    assert made.provenance["noise"] == noise.VERSION
    (header,) = matrix.find(lm.id, store)
    entry = store.load(matrix.KIND, header.config)
    assert entry is not None
    arrays = entry.arrays | {"values": entry.arrays["values"] + 1e6}  # answers that no noise gives here
    tables = {"cells": entry.table("cells")}
    old.save(matrix.KIND, noise.before(header.config), tables=tables, arrays=arrays, meta=entry.meta)
    again = matrix.run(lm, WORLD, one, old)  # the same matrix: read as what it is
    assert again.provenance["noise"] == 1
    np.testing.assert_array_equal(again.cells[0].answers.values, made.cells[0].answers.values + 1e6)
    wider = matrix.run(lm, WORLD, both, old)  # another one: nothing of it is taken
    for cell, expected in zip(wider.of("heads-random"), made.cells, strict=True):
        np.testing.assert_array_equal(cell.answers.values, expected.answers.values)
