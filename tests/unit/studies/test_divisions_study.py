"""Sets on new sentences and new people: each number from plain evaluations, and intervals that hold the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.data.divisions import CELLS
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.gap import PromptRows
from fasp_core.gap.cautious import at_least
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.scoring.learned.gains import learn
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.scoring.score import score
from fasp_core.storage.store import Store
from fasp_core.studies.transfer import divisions as study
from tests.support.tiny import tiny_lm
from tests.support.worlds import use_scorer, write_text


def test_each_cell_is_a_plain_evaluation_of_the_set_that_the_quarter_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_scorer(monkeypatch, complete=False)
    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    text = write_text(tmp_path, 200, tokens=100, window=64, stride=48)
    plan = study.Plan("race_ethnicity", alpha=0.25, divisions=2, scored=27, prompts=27, text=text)
    found = study.run(lm, plan, store)
    other = Store(tmp_path / "other")
    for d, flat in enumerate(found.heads):
        table = score(lm, text, plan.choice(d), other, estimator="refined")
        assert flat == select(table.head_scores("neutral"), "fasp", plan.gamma, plan.alpha).pruned
        whole = [evaluate(lm, PruneSet.from_flat(flat, 4), EvalConfig(plan.test(c, d), text), other) for c in CELLS]
        assert found.perplexity[d] == pytest.approx(whole[0].perplexity.relative)
        for cell, evaluation in zip(CELLS, whole, strict=True):
            for reading, by_cell in found.cells.items():
                right = evaluation.readings[reading]
                assert by_cell[cell].base[d] == pytest.approx(right.base.gap, abs=1e-7)
                assert by_cell[cell].pruned[d] == pytest.approx(right.pruned.gap, abs=1e-7)
                assert by_cell[cell].prompts[d] == right.base.n
    assert study.find(plan, lm.id, store) == found
    assert study.find(replace(plan, gamma=0.2), lm.id, store) is None
    said = study.markdown(found)
    assert found.outcome in said
    assert said.count("\n| neutral, ") == 4


def test_a_cautious_choice_ranks_by_what_heads_are_worth_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_scorer(monkeypatch, complete=False)
    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    text = write_text(tmp_path, 200, tokens=100, window=64, stride=48)
    plain = study.Plan("race_ethnicity", alpha=0.25, divisions=2, scored=54, prompts=27, text=text)
    plan = replace(plain, choose="cautious")
    found = study.run(lm, plan, store)
    for d, flat in enumerate(found.heads):
        table, prompts = score(lm, text, plan.choice(d), store, estimator="refined"), plan.choice(d).prompts()
        rows = PromptRows.paired(table.bias.base[0], table.bias.ablated[:, 0], table.bias.codes)
        worth = at_least(rows, prompts.templates, prompts.descriptors)
        scores = replace(table.head_scores("neutral"), z_bias=worth)
        assert flat == select(scores, "fasp", plan.gamma, plan.alpha).pruned
    assert "Chosen cautiously" in found.outcome
    assert study.find(plain, lm.id, store) is None
    assert "choose" not in plain.key(lm.id)  # keys of before there was a choice
    with pytest.raises(InputError, match="mean, cautious or gains"):
        replace(plain, choose="boldly")
    with pytest.raises(InputError, match="Only steps that learn gains"):
        replace(plan, precision="bfloat16")


def test_gains_are_those_that_are_learned_on_the_quarter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch, complete=False)
    monkeypatch.setattr(study, "GainsConfig", quick)
    lm, store = tiny_lm("llama"), Store(tmp_path / "store")
    text = write_text(tmp_path, 200, tokens=100, window=64, stride=48)
    plan = study.Plan("race_ethnicity", divisions=2, scored=54, prompts=27, text=text, choose="gains")
    assert (plan.learning.cells, plan.learning.patience > 0, plan.learning.reading) == ("worst", True, "neutral")
    found = study.run(lm, plan, store)
    other = Store(tmp_path / "other")
    for d, written in enumerate(found.gates):
        learned = learn(lm, plan.choice(d), text, plan.learning, other).at(1.0)
        assert written == learned.format()
        assert list(found.heads[d]) == learned.flat(lm.n_heads)
        for cell in CELLS:
            whole = evaluate(lm, learned, EvalConfig(plan.test(cell, d), text), other)
            assert found.cells["neutral"][cell].pruned[d] == pytest.approx(whole.readings["neutral"].pruned.gap, 1e-4)
            assert found.perplexity[d] == pytest.approx(whole.perplexity.relative)
    assert any(found.gates)
    assert found.outcome.startswith("Learned on half")
    assert study.find(plan, lm.id, store) == found
    assert study.find(replace(plan, precision="bfloat16"), lm.id, store) is None
    assert study.find(replace(plan, choose="mean"), lm.id, store) is None


def quick(reading: str, **more: Any) -> GainsConfig:
    """A few steps without passages or paragraphs."""
    return GainsConfig(reading, steps=5, prompts=27, passages=0, paragraphs=0, rate=0.02, average=1, **more)


def test_intervals_of_a_ratio_hold_it() -> None:
    """Divisions drawn with a known ratio of sums."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        base = rng.gamma(20, 0.05, 5)
        pruned = base * rng.normal(0.6, 0.1, 5)
        found = study.ratio_change(base, pruned)
        assert found.value == pytest.approx(pruned.sum() / base.sum() - 1)
        held += found.low <= -0.4 <= found.high
    assert 0.91 <= held / 400 <= 0.99
    assert not study.ratio_change(np.zeros(3), np.ones(3)).shown


def test_a_single_division_is_refused() -> None:
    with pytest.raises(InputError, match="give no interval"):
        study.Plan("race_ethnicity", divisions=1)


def test_shares_of_heads_mean_nothing_to_gains() -> None:
    for told in ({"gamma": 0.2}, {"alpha": 0.1}):
        with pytest.raises(InputError, match="gamma and alpha choose none"):
            study.Plan("race_ethnicity", choose="gains", **told)
