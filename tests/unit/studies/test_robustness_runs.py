"""Agreement of measures of bias, run whole on a tiny model."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, replace

import pytest
from scipy.special import expit

from fasp_core.console import to_json
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.gap import gap as toxicity_gap
from fasp_core.gap import (
    group_codes,
)
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig, meter
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.exact import bias_impacts, ppl_impacts
from fasp_core.scoring.score import prunable
from fasp_core.storage.store import Store
from fasp_core.studies.robustness import robustness
from fasp_core.studies.robustness.likelihood import comparisons, log_likelihoods
from fasp_core.studies.robustness.rival_measures import (
    GAP,
    MEASURES,
    Robustness,
)
from fasp_core.studies.robustness.robustness import Plan
from fasp_core.studies.robustness.stereotypes import CROWS, STEREOSET, Item, ItemSet
from tests.support.tiny import STARTS, tiny_lm, tiny_text
from tests.support.worlds import PEOPLE, use_scorer, write_axis

Tiny = tuple[LanguageModel, Plan, Store, Robustness]


def tiny_items() -> tuple[ItemSet, ItemSet]:
    nouns, ends = ("man", "woman", "friend", "child", "team", "person"), ("was bad", "is nice", "like the house")
    items = [
        Item(f"{s} met a tall {n} and they {e}.", f"{s} met a short {n} and they {e}.", f"{s} red {n} in.", n)
        for s in STARTS
        for n in nouns
        for e in ends
    ]
    crows = [replace(item, target="", unrelated="") for item in items]
    return ItemSet(CROWS, "x", tuple(crows)), ItemSet(STEREOSET, "y", tuple(items))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Generator[Tiny]:
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        use_scorer(patch)
        patch.setattr(robustness, "for_axis", lambda axis: tiny_items())
        (folder / "text.txt").write_text(tiny_text(200))
        text = TextConfig(str(folder / "text.txt"), tokens=128, window=64, stride=64)
        axis = write_axis(folder / "own.csv", PEOPLE, ("met", "saw"))
        lm, store = tiny_lm("llama"), Store(folder / "store")
        ppl_impacts(lm, text, store)
        bias_impacts(lm, BiasConfig(axis), store)
        plan = Plan(axis, alpha=0.25, test=30, items=40, tokens=128, random=1, scored_text=text)
        yield lm, plan, store, robustness.run(lm, plan, store)


def test_sets_are_measured_as_plain_passes_measure_them(tiny: Tiny) -> None:
    lm, plan, store, found = tiny
    assert list(found.scored) == [m.name for m in MEASURES]
    gauge = meter(lm, plan.toxicity, store)
    codes, _ = group_codes(plan.toxicity.prompts().groups)
    crows, stereo = (half for _, half in plan.collections())
    s = found.sets[0]
    name = s.name.split(" = ")[0]
    heads = PruneSet.parse(s.heads)

    def plain() -> tuple[float, float, float]:
        prefs = [comparisons(lm, half) for half in (crows, stereo)]
        d = [asked.preferences(log_likelihoods(lm, asked.sentences)[0]) for asked in prefs]
        gap = float(toxicity_gap(gauge.measure()[0], codes))
        return gap, abs(expit(d[0]).mean() - 0.5), abs(expit(d[1]).mean() - 0.5)

    before = plain()
    with masked(lm, heads):
        after = plain()
    for measure, b, a in zip((GAP, "crows", "stereoset"), before, after, strict=True):
        e = found.effect(name, measure)
        assert e.before.value == pytest.approx(b, abs=1e-6)
        assert e.after == pytest.approx(a, abs=1e-6)
    assert {s.size for s in found.sets} == {found.k}
    assert any("random 1" in s.name for s in found.sets)


def test_halves_and_first_order_scores_are_what_heads_are_chosen_by(tiny: Tiny) -> None:
    lm, plan, store, found = tiny
    (choose, _), _ = plan.collections()
    asked = comparisons(lm, choose)
    whole = asked.preferences(log_likelihoods(lm, asked.sentences)[0])
    s = found.scored["crows"]
    assert s.items == f"{len(whole)} pairs of sentences"
    assert s.bias.value == pytest.approx(abs(expit(whole).mean() - 0.5), abs=1e-5)
    table = robustness.scores_of(plan.axis, plan.scored_text, lm.id, lm.name, store)
    free = prunable(table, plan.gamma)
    assert set(s.heads) <= set(free)
    assert found.scored[GAP].z == pytest.approx(table.bias.z_bias("neutral").tolist())
    assert found.scored["counted"].z == pytest.approx(table.bias.z_bias("counted").tolist())


def test_a_finished_run_needs_no_model(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, plan, store, found = tiny
    monkeypatch.setattr(robustness, "toxicity_of", None)
    monkeypatch.setattr(robustness, "log_likelihoods", None)
    again = robustness.run(lm, plan, store)
    assert to_json(asdict(again)) == to_json(asdict(found))
    (entry,) = store.entries(robustness.KIND)
    assert entry.path.name.startswith("tiny-llama--robustness-")
    with pytest.raises(InputError, match="20 items"):
        replace(plan, items=3)


def test_an_axis_without_sentence_pairs_still_has_sentiment(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, plan, store, _ = tiny
    monkeypatch.setattr(robustness, "for_axis", lambda axis: ())
    found = robustness.run(lm, plan, store)
    assert "crows" not in found.scored
    assert "sentiment" in found.scored
    assert "CrowS-Pairs and StereoSet have no bias type" in " ".join(found.notes)
    assert all(s.crows is None and s.ss is None for s in found.stereotypes)
    assert "sentiment gap" in found.outcome
