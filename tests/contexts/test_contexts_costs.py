"""What a matrix' sets cost: the mean over tests of what each set takes, one by one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fasp_core.cli.main import main
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import Nll
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.contexts import costing, matrix, summary
from fasp_core.studies.contexts.cells import Cell, Matrix
from fasp_core.tasks.costs import CostConfig, costs_of
from fasp_core.tasks.paired import paired
from tests.contexts.test_contexts_halves import CONFIG, NLL, WORLD
from tests.support.contexts import made_up
from tests.support.numbered import numbered_lm


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LanguageModel, Matrix, Store]:
    monkeypatch.setattr(matrix, "TextConfig", partial(TextConfig, window=64, stride=64))
    monkeypatch.setattr(costing, "CONFIG", CostConfig(("paragraphs", "lambada"), "test", 256, 6))
    lm, store = numbered_lm(), Store(tmp_path)
    return lm, matrix.run(lm, WORLD, CONFIG, store), store


def test_costs_of_a_row_are_means_over_its_tests(
    ran: tuple[LanguageModel, Matrix, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, found, store = ran
    costs = costing.measure(lm, found, store)
    for kind in ("same", "other"):
        cells = found.of("neurons-effect", kind)  # type: ignore[arg-type]
        sums, right = [], []
        for cell in cells:
            each = [
                costs_of(lm, PruneSet.parse(one), costing.CONFIG, Store(store.root / "other"))
                for one in cell.sets or ()
            ]
            sums.append(np.mean([c["paragraphs"].rows.mean for c in each]))
            right.append(np.mean([c["lambada"].right for c in each]))
        whole = costs_of(lm, PruneSet(), costing.CONFIG, Store(store.root / "other"))
        told = costs.of(cells)
        assert told is not None
        assert told.paragraphs.change_nats == pytest.approx(np.mean(sums) - whole["paragraphs"].rows.mean)
        assert whole["lambada"].right is not None
        assert told.points.value == pytest.approx(100 * (np.mean(right) - whole["lambada"].right.mean()))
        assert told.passages == 6
        assert "tokens), LAMBADA" in told.said
    assert costs.of([]) is None
    monkeypatch.setattr(costing, "costs_of", lambda *_, **__: pytest.fail("it is stored"))
    again = costing.stored(lm.id, found, store)
    assert again is not None
    assert again.of(found.of("heads-effect")) == costs.of(found.of("heads-effect"))
    document = summary.document(found, 0.01, costs)
    assert all(cell["costs"] is not None for cell in document["cells"])
    assert summary.markdown(found, 0.01, costs).count("Its sets cost, on average: paragraphs") == 3
    assert "Its sets cost" not in summary.markdown(found, 0.01)


def test_other_sets_are_other_costs(ran: tuple[LanguageModel, Matrix, Store]) -> None:
    lm, found, store = ran
    costing.measure(lm, found, store)
    *others, changed = found.cells
    other = replace(found, cells=(*others, replace(changed, prune_set="L0H0,L1H1")))
    assert costing.stored(lm.id, other, store) is None


def test_single_weights_are_not_told() -> None:
    (cell, *_) = made_up({("weights-wanda", "same"): 0.1}).cells
    assert cell.sets is None
    assert cell.size == cell.parts


@pytest.mark.parametrize(
    ("text", "halvings", "sets", "size"),
    [
        ("; L0H1", 1, ("", "L0H1"), 0.5),
        ("L0H1; ", 1, ("L0H1", ""), 0.5),
        ("; ", 1, ("", ""), 0.0),
        ("; L0H1,L0H2; L0N3; ", 2, ("", "L0H1,L0H2", "L0N3", ""), 0.75),
        ("L0H1", 1, None, 2),  # an earlier version left out which half names nothing
    ],
)
def test_a_half_that_names_nothing_is_a_set_too(
    text: str, halvings: int, sets: tuple[str, ...] | None, size: float
) -> None:
    codes = np.array([0, 1])
    one = Distributions(np.ones(2), np.ones(2), np.arange(2), np.zeros(2, bool), codes)
    setting = matrix.settings(WORLD.scenarios[:1])[0]
    cell = Cell("heads-effect", setting, 2, 2, text, (one,) * halvings, NLL)
    assert (cell.sets, cell.size) == (sets, size)
    right = {"": np.array([1.0, 0.0]), "L0H1": np.array([0.0, 0.0]), "L0H1,L0H2": np.array([0.0, 0.0])}
    costs = costing.SetCosts({s: Nll(np.array([1.0 + len(s)]), np.array([1])) for s in right}, right, {})
    found = costs.of([cell])
    if sets is None:
        assert found is None
        return
    assert found is not None
    assert found.points.value == pytest.approx(100 * np.mean([(right[s] - right[""]).mean() for s in sets[:2]]))


def test_where_no_answer_changed_some_might() -> None:
    """As the interval for paired answers does of one set."""
    for lost, won, n in ((0, 0, 60), (5, 2, 60), (4, 0, 4)):
        changes = np.repeat([-1.0, 1.0, 0.0], (lost, won, n - lost - won))
        expected = paired(changes <= 0, (changes == 0) | (changes > 0), 0.0)
        found = costing.points_of(changes)
        assert (expected.lost, expected.gained, found.value) == (lost, won, pytest.approx(expected.points))
        ends = max(expected.interval[0], -100.0), min(expected.interval[1], 100.0)
        assert (found.low, found.high) == pytest.approx(ends, abs=1e-5)
    assert costing.points_of(np.zeros(60)).high > 1


def test_costs_that_cannot_be_had_are_told_before_anything_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: numbered_lm())
    monkeypatch.setattr(matrix, "run", lambda *_, **__: pytest.fail("it is run"))
    assert main(["study", "contexts", "--costs", "--method", "weights-wanda"]) == 2
    assert "--costs is of heads and neurons" in capsys.readouterr().err

    def lacking(self: CostConfig) -> None:
        raise InputError("LAMBADA is not here.")

    monkeypatch.setattr(CostConfig, "look_up", lacking)
    assert main(["study", "contexts", "--costs"]) == 2
    assert "LAMBADA is not here." in capsys.readouterr().err
