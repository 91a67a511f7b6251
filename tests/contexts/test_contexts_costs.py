"""What a matrix' sets cost: the mean over tests of what each set takes, one by one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fasp_core.data.text import TextConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.contexts import costing, matrix, summary
from fasp_core.studies.contexts.cells import Matrix
from fasp_core.tasks.costs import CostConfig, costs_of
from tests.contexts.test_contexts_halves import CONFIG, WORLD
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
                for one in cell.prune_set.split("; ")
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
    (changed, *others) = found.cells
    other = replace(found, cells=(replace(changed, prune_set="L0H0,L1H1"), *others))
    assert costing.stored(lm.id, other, store) is None


def test_single_weights_are_not_told() -> None:
    (cell, *_) = made_up({("weights-wanda", "same"): 0.1}).cells
    assert costing.sets_of(cell) is None
