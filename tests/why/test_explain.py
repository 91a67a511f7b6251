"""A set explained on tiny models: the parts against what was measured and against Shapley values by enumeration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.gap import gap, group_codes
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.storage.store import Store
from fasp_core.studies.explain import explain, shapley
from fasp_core.studies.explain.explain import Explained
from fasp_core.studies.explain.plan import Plan, movers
from tests.support.tiny import STARTS, tiny_lm
from tests.support.words import COLORS, TableScorer, guilty_model
from tests.support.worlds import use_scorer, write_axis, write_text

SET = PruneSet.parse("L0H1,L0H3,L1H0,L1H2*0.5,L1H3*1.3")
GUILTY = (1, 3)


@pytest.fixture
def bias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BiasConfig:
    use_scorer(monkeypatch, TableScorer(), complete=False)
    axis = write_axis(tmp_path / "axis.csv", ("person", "house", "team", "tree"), ("met", "saw"), STARTS[:4], COLORS)
    return BiasConfig(axis, "all", 96)


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_text(tmp_path, 300, tokens=250, window=48, stride=48)


@pytest.fixture
def found(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> Explained:
    return explain.run(tiny_lm("gpt2"), Plan(SET, bias, text), Store(tmp_path / "store"))


def test_parts_sum_to_what_an_evaluation_measures(
    found: Explained, bias: BiasConfig, text: TextConfig, tmp_path: Path
) -> None:
    e = evaluate(tiny_lm("gpt2"), SET, EvalConfig(bias, text), Store(tmp_path / "other"))
    change = e.readings["neutral"].gap
    assert (found.gap.base, found.gap.end) == pytest.approx((change.base, change.pruned))
    assert found.nats.change == pytest.approx(e.perplexity.change_nats)
    for parts in (found.gap, found.nats):
        assert np.abs(parts.values).max() > 1e-3
        assert abs(parts.error) < 0.01 * np.abs(parts.values).max()
    d = found.as_dict()
    assert [row["head"] for row in d["heads"]] == ["L0H1", "L0H3", "L1H0", "L1H2*0.5", "L1H3*1.3"]
    for name in ("gap", "nats"):
        assert sum(row[name]["part"] for row in d["heads"]) == pytest.approx(d[name]["sum_of_parts"])
        assert d[name]["sum_of_parts"] - d[name]["change"] == pytest.approx(d[name]["quadrature_error"])
    assert (d["prompts"], d["blocks"], d["tokens"]) == (96, 96, 244)


def test_the_error_of_the_quadrature_falls_with_its_nodes_and_a_large_one_is_told(
    found: Explained, bias: BiasConfig, text: TextConfig, tmp_path: Path
) -> None:
    assert not any("nodes" in note for note in found.notes)
    rough = explain.run(tiny_lm("gpt2"), Plan(SET, bias, text, nodes=1), Store(tmp_path / "store"))
    for few, many in ((rough.gap, found.gap), (rough.nats, found.nats)):
        assert abs(many.error) < 0.05 * abs(few.error)
    told = [note for note in rough.notes if "nodes" in note]
    assert f"{abs(rough.gap.error) / np.abs(rough.gap.values).max():.0%} of the largest part of the gap" in told[0]
    assert all("raise --nodes above 1" in note for note in told)


def test_parts_come_near_shapley_values_by_enumeration(
    found: Explained, bias: BiasConfig, text: TextConfig, tmp_path: Path
) -> None:
    """Of a transformer they are two answers to one question: near each other, and not the same."""
    lm, store = tiny_lm("gpt2"), Store(tmp_path / "store")
    runner, every = CachedRunner(lm), movers(SET)
    codes, _ = group_codes(bias.prompts().groups)

    def some(joined: frozenset[int]) -> PruneSet:
        return explain.without(SET, explain._of([every[i] for i in range(len(every)) if i not in joined]))

    gaps = shapley.exact(
        lambda s: float(gap(toxicity_of(lm, some(s), bias, store, None, runner).row("neutral"), codes)), len(every)
    )
    nats = shapley.exact(lambda s: perplexity_of(lm, some(s), text, store, None, runner)[0].mean, len(every))
    for exact, parts in ((gaps, found.gap), (nats, found.nats)):
        assert exact.sum() == pytest.approx(parts.change)
        off = np.abs(parts.values - exact).max() / np.abs(exact).max()
        print(f"largest difference from Shapley values: {off:.1%} of the largest")
        assert off < 0.5
        assert np.corrcoef(parts.values, exact)[0, 1] > 0.9


def test_a_head_that_spoils_its_set_is_named_with_what_leaving_it_out_gains(
    bias: BiasConfig, text: TextConfig, tmp_path: Path
) -> None:
    """One head makes the gap; scaled up it raises it, and removed it takes all of it."""
    lm, store = guilty_model(*GUILTY), Store(tmp_path / "store")
    worse = explain.run(lm, Plan(PruneSet.parse("L0H0,L1H1,L1H3*1.5"), bias, text), store)
    assert [worse.names[i] for i in worse.spoilers] == ["L1H3*1.5"]
    (left,) = worse.without
    assert left.kept == PruneSet.parse("L0H0,L1H1")
    assert left.gap.change == pytest.approx(-worse.gap.change, rel=0.2)
    assert "L1H3*1.5 raises it beyond noise, and leaving it out changes it by -" in worse.sentence()
    row = worse.as_dict()["heads"][2]
    assert row["spoils"]
    assert row["gap"]["part"] == pytest.approx(worse.gap.change, rel=0.2)

    better = explain.run(lm, Plan(PruneSet.parse("L0H0,L1H1,L1H3"), bias, text), store)
    assert not better.without
    assert better.gap.beyond_noise.tolist() == [0, 0, -1]
    assert better.gap.values[2] == pytest.approx(better.gap.change, rel=0.05)
    assert "the largest part is L1H3's, -" in better.sentence()
    assert better.sentence().endswith("no head's part raises the gap beyond noise.")


def test_it_is_stored_node_by_node_and_found_without_a_model(
    bias: BiasConfig, text: TextConfig, tmp_path: Path
) -> None:
    lm, store, plan = tiny_lm("gpt2"), Store(tmp_path / "store"), Plan(SET, bias, text)
    assert explain.find(plan, lm.id, store) is None
    assert explain.stored(lm.id, SET, bias, "neutral", store) is None

    class Stop(Exception): ...

    def until_the_third_node(done: float, total: float, said: str) -> None:
        if "3 of 5" in said:
            raise Stop

    with pytest.raises(Stop):
        explain.run(lm, plan, store, until_the_third_node)
    seen: list[str] = []
    result = explain.run(lm, plan, store, lambda done, total, said: seen.append(said))
    assert not any("1 of 5 places" in said or "2 of 5 places" in said for said in seen)
    assert any("3 of 5 places" in said for said in seen)
    whole = explain.run(tiny_lm("gpt2"), plan, Store(tmp_path / "another"))
    for again in (whole, explain.find(plan, lm.id, store), explain.stored(lm.id, SET, bias, "neutral", store)):
        assert again is not None
        assert {**again.as_dict(), "provenance": 0} == {**result.as_dict(), "provenance": 0}
    assert explain.stored(lm.id, SET, bias, "counted", store) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prune_set": PruneSet()}, "name at least one"),
        ({"prune_set": PruneSet.parse("L0H1,L0N3")}, "no neurons"),
        ({"reading": "sampled"}, "no reading 'sampled'"),
        ({"nodes": 0}, "choose 1 to 32"),
        ({"nodes": 33}, "choose 1 to 32"),
        ({"measure": "written"}, "choose that measure"),
        ({"contexts": 2, "steps": 3}, "choose that measure"),
    ],
)
def test_what_cannot_be_split_is_one_sentence(
    change: dict[str, Any], words: str, bias: BiasConfig, text: TextConfig
) -> None:
    of_bias = {name: value for name, value in change.items() if name in ("measure", "contexts", "steps")}
    rest = {name: value for name, value in change.items() if name not in of_bias}
    with pytest.raises(InputError, match=words):
        Plan(**{"prune_set": SET, "bias": replace(bias, **of_bias), "text": text, **rest})


def test_a_head_outside_the_model_is_named(bias: BiasConfig, text: TextConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="L7H0 does not exist"):
        explain.run(tiny_lm("gpt2"), Plan(PruneSet.parse("L7H0"), bias, text), Store(tmp_path))
