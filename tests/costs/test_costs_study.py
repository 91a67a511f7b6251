"""Which cost foretells a loss: planted answers, ranks by hand, a run that goes on where it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from fasp_core.data import passages
from fasp_core.errors import InputError
from fasp_core.storage.store import Store
from fasp_core.studies.costs import costs as study
from fasp_core.studies.costs.costs_text import markdown
from fasp_core.tasks import files
from fasp_core.tasks.costs import COSTS
from tests.support.made import comparison, tiny_passages, tiny_questions, write_task
from tests.support.tiny import tiny_lm

TASKS = ("lambada", "piqa")


def planted(seed: int = 0, n: int = 40) -> study.Costs:
    """Accuracy falls by what LAMBADA's last words and the paragraphs say together; sentences say little."""
    rng = np.random.default_rng(seed)
    lambada, paragraphs = rng.uniform(0, 1, (2, n))
    rows = {
        "heads": ["1 2"] * n,
        "chosen": ["random"] * n,
        "size": rng.integers(2, 40, n),
        "perplexity": paragraphs + rng.normal(0, 0.8, n),
        "paragraphs": paragraphs,
        "repeated": rng.normal(0, 1, n),
        "lambada": lambada,
    }
    for task, scale in zip(TASKS, (2.0, 1.0), strict=True):
        loss = scale * (lambada + 0.6 * paragraphs) + rng.normal(0, 0.05, n)
        rows |= {f"accuracy_{task}": -loss, f"likelihood_{task}": -3 * loss}
    base = {f"accuracy_{task}": 0.5 for task in TASKS}
    return study.Costs(study.Plan(tasks=TASKS), pd.DataFrame(rows), base, {})


def test_what_was_planted_is_found() -> None:
    found = planted()
    table = {(one.costs, one.target): one for one in found.foretold(400)}
    loss = found.losses()["accuracy"]
    for name in COSTS:
        assert table[(name,), "accuracy"].rho.value == pytest.approx(spearmanr(found.sets[name], loss).statistic)
    both = found.sets["lambada"].rank() + found.sets["perplexity"].rank()
    pair = table[("perplexity", "lambada"), "accuracy"]
    assert pair.rho.value == pytest.approx(spearmanr(both, loss).statistic)
    assert pair.beyond.value == pytest.approx(pair.rho.value - table[("perplexity",), "accuracy"].rho.value)
    assert table[("perplexity",), "accuracy"].beyond.value == 0
    assert all(e.rho.low <= e.rho.value <= e.rho.high for e in table.values())
    single, beside = found.best("accuracy", list(table.values()))
    assert single.costs == ("lambada",)
    assert beside.costs == ("perplexity", "lambada")
    assert beside.beyond.low > 0
    assert "lambada foretells it best" in found.outcome(list(table.values()))
    text = markdown(found)
    assert "| paragraphs and lambada |" in text
    assert "over 40 sets" in text
    document = found.as_dict()
    assert len(document["correlations"]) == 10 * (4 + len(TASKS))
    assert document["outcome"] in text


def test_costs_that_do_not_change_correlate_with_nothing() -> None:
    found = planted()
    found.sets["repeated"] = 0.0
    table = {(one.costs, one.target): one for one in found.foretold(50)}
    assert np.isnan(table[("repeated",), "accuracy"].rho.value)
    assert found.best("accuracy", list(table.values()))[0].costs == ("lambada",)


def test_sets_are_different_seeded_and_begin_with_the_comparisons() -> None:
    known = comparison()
    sets = study.chosen_sets(study.Plan(sets=12), known, known.n_heads, 270)
    heads = [one for _, one in sets]
    assert len(set(heads)) == len(heads) == 12
    assert heads[:2] == [c.heads for c in known.candidates if c.method == "search"]
    assert sum(title.startswith("random") for title, _ in sets) >= 4
    assert sets == study.chosen_sets(study.Plan(sets=12), known, known.n_heads, 270)
    alone = study.chosen_sets(study.Plan(sets=12, seed=1), None, 9, 270)
    assert {len(h) for _, h in alone} == set(study.SIZES)
    assert len(study.chosen_sets(study.Plan(sets=40), None, 2, 4)) < 40  # a tiny model has no more


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    monkeypatch.setattr(passages, "folder", lambda: tmp_path)
    tiny_passages(tmp_path)
    write_task(tmp_path, "lambada", tiny_questions(40, 1, 3))
    write_task(tmp_path, "piqa", tiny_questions(20, 2))
    return tmp_path


def test_a_stopped_run_goes_on_and_is_read_without_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, store = tiny_lm("llama"), Store(folder / "cache")
    plan = study.Plan(sets=6, tokens=200, passages=8, tasks=TASKS, items=8)

    class Stop(Exception):
        pass

    def stop(done: float, _total: float, _text: str) -> None:
        if done > 3:
            raise Stop

    with pytest.raises(Stop):
        study.run(lm, plan, store, stop)
    assert study.find(plan, lm.id, store) is None
    measured: list[str] = []
    real = study.costs_of
    monkeypatch.setattr(study, "costs_of", lambda *a: measured.append(a[1].format()) or real(*a))
    found = study.run(lm, plan, store)
    assert len(measured) == 7
    assert len(found.sets) == 6
    assert np.isfinite(found.sets[list(COSTS)].to_numpy()).all()
    again = study.find(plan, lm.id, store)
    assert again is not None
    assert again.sets.equals(found.sets)
    assert again.plan == plan
    task = found.sets["accuracy_piqa"] * 8
    assert task.to_numpy() == pytest.approx(task.round().to_numpy())


def test_too_few_sets_are_refused() -> None:
    with pytest.raises(InputError, match="at least 5 sets"):
        study.Plan(sets=4)
