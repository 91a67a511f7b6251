"""Methods beside each other: what is chosen by validation, measured as by itself, and read again without a model."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import score
from fasp_core.scoring.learned import gains
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.scoring.learned.repair import products, repair
from fasp_core.storage.store import Store
from fasp_core.studies.compare import compare, front, methods
from fasp_core.studies.compare.compare import Comparison, choose
from fasp_core.studies.compare.limits import Limits, Meter
from fasp_core.studies.compare.methods import Bench, Sample
from fasp_core.studies.compare.plan import Plan, Side
from fasp_core.tasks.last_words import passages
from fasp_core.tasks.paired import paired
from fasp_core.tasks.utility import answers_of
from tests.support.tiny import tiny_lm
from tests.support.worlds import use_scorer, write_axis, write_text

LIMITS = Limits(max_ppl=3.0)
ITEMS = 6


class World:
    """A tiny model with a comparison of methods, and gates that were learned on it."""

    def __init__(self, folder: Path) -> None:
        people = [f"{who} of the {end}" for who in ("man", "woman", "friend", "child") for end in ("house", "tree")]
        self.axis = write_axis(folder / "axis.csv", people, ("met", "saw", "hate"))
        self.lm: LanguageModel = tiny_lm("llama", n_layers=3)
        self.text = write_text(folder, 900, tokens=130, window=64, stride=64)
        self.plan = Plan(self.axis, gammas=(0.2,), alphas=(0.1, 0.25), seeds=1, prompts=30, tokens=130)
        self.store = Store(folder / "store")
        self.loads = 0

    def load(self) -> LanguageModel:
        self.loads += 1
        return self.lm

    def sided(self, side: Side, tokens: int) -> TextConfig:
        return replace(self.text, tokens=tokens, skip=400 if side == "test" else 0)

    def learn(self, **told: Any) -> gains.Gains:
        few = {"steps": 6, "rate": 0.2, "prompts": 30, "passages": 0, "paragraphs": 0, "average": 1}
        config = GainsConfig(**few | told)
        return gains.learn(self.lm, BiasConfig(self.axis), self.text, config, self.store)

    def bench(self, found: Comparison, limits: Limits = LIMITS) -> Bench:
        return Bench(found, limits, self.lm.id, self.load, self.store)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    found = World(tmp_path_factory.mktemp("methods"))

    def texts(sample: Sample) -> dict[str, TextConfig]:
        sides = {"text": found.sided(sample.side, 130)}
        return sides | ({"paragraphs": found.sided(sample.side, 90)} if sample.paragraphs else {})

    with pytest.MonkeyPatch.context() as patch:
        use_scorer(patch, complete=False)
        patch.setattr(Plan, "text", lambda plan, side: found.sided(side, plan.tokens))
        patch.setattr(Sample, "texts", texts)
        patch.setattr(methods, "TEXT", found.text)
        yield found


@pytest.fixture(scope="module")
def compared(world: World) -> Comparison:
    impacts = score.score(world.lm, world.text, BiasConfig(world.axis, n_prompts=30), world.store)
    return compare.run(world.lm, world.plan, world.plan.candidates(impacts), world.store)


def test_every_method_on_the_same_prompts(world: World, compared: Comparison) -> None:
    soft, hard = world.learn(cost=1.0), world.learn(method="hard-concrete", heads=2, cost=0.0)
    bench, sample = world.bench(compared), Sample(world.axis, prompts=40, items=ITEMS)
    names = ["gains", "hard-concrete", "fasp", "fasp+repair"]
    found = bench.beside(names, sample)
    assert list(found) == names
    told = {name: one for name, one in found.items() if one["reduction_pct"] is not None}
    assert {"gains", "fasp"} <= set(told)
    for name, one in told.items():
        alone = evaluate(
            world.lm,
            PruneSet.parse(one["prune_set"]),
            EvalConfig(sample.bias, sample.texts()["text"]),
            world.store,
        )
        change = alone.readings["neutral"].gap
        assert one["reduction_pct"] == pytest.approx(-100 * change.relative, abs=1e-4)
        assert one["interval_pct"] == pytest.approx(
            [-100 * e for e in reversed(change.relative_interval or ())], abs=1e-3
        )
        assert one["ppl_change_pct"] == pytest.approx(100 * alone.perplexity.relative, abs=1e-6)
        sides = [
            answers_of(world.lm, s, passages("test", ITEMS, 0), 0, world.store)
            for s in (PruneSet(), PruneSet.parse(one["prune_set"]))
        ]
        assert one["lambada_points"] == paired(sides[0].right, sides[1].right, 0.0).points
        assert (one["prompts"], one["items"]) == (alone.readings["neutral"].gap.n, ITEMS)
        assert one["validation"]["ppl_change_pct"] <= 100 * LIMITS.max_ppl
        assert ("more_than_fasp_points" in one) == (name != "fasp")
        if name != "fasp":
            more = one["reduction_pct"] - told["fasp"]["reduction_pct"]
            assert one["more_than_fasp_points"] == pytest.approx(more, abs=1e-6)
    picked = choose(compared, "neutral", LIMITS.max_ppl, ["fasp"])
    assert picked is not None
    assert PruneSet.parse(told["fasp"]["prune_set"]) == PruneSet.from_flat(picked.heads, compared.n_heads)
    assert PruneSet.parse(told["gains"]["prune_set"]) in {soft.at(s) for s in methods.STRENGTHS}
    if "hard-concrete" in told:
        assert told["hard-concrete"]["prune_set"] == hard.at(1).format()
    known = products(world.lm, world.text, world.store).values
    repaired = {repair(one, known).prune_set for one, _ in bench._looser("fasp")}
    if "fasp+repair" in told:
        assert PruneSet.parse(told["fasp+repair"]["prune_set"]) in repaired
    world.loads = 0
    assert world.bench(compared).beside(names, sample) == found  # all of it is read
    assert world.loads == 0


def test_a_learned_set_is_the_best_within_the_limits(world: World, compared: Comparison) -> None:
    world.learn(cost=1.0)
    bench = world.bench(compared)
    chosen = bench.choose("gains")
    assert chosen is not None
    sample = bench.validation
    base = bench.measured(PruneSet(), sample)
    inside = [
        float(m.rows[0].gaps())
        for m in (bench.measured(one, sample) for one, _ in bench._learned("gains", "gains", methods.STRENGTHS))
        if np.expm1(m.nll["text"].mean - base.nll["text"].mean) <= LIMITS.max_ppl
    ]
    assert chosen.gap == min(inside)
    assert chosen.base_gap == float(base.rows[0].gaps())
    assert chosen.gap < chosen.base_gap


def test_other_limits_hold_for_learned_sets_too(world: World, compared: Comparison) -> None:
    world.learn(cost=1.0)
    free = world.bench(compared).choose("gains")
    assert world.bench(compared, Limits(3.0, lambada_points=100.0, items=4)).choose("gains") == free
    strict = Limits(3.0, lambada_nats=1e-6, items=4)
    found = world.bench(compared, strict).choose("gains")
    assert found is None or all(
        one.kept for one in Meter(world.lm, strict, "valid", world.store).spent(found.prune_set)
    )  # type: ignore[arg-type]


def test_a_method_without_a_set_within_the_limits(
    world: World, compared: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.learn(cost=1.0)
    monkeypatch.setattr(Bench, "_learned", lambda *_: [(PruneSet(), "nothing")])
    bench, sample = world.bench(compared), Sample(world.axis, prompts=40, items=ITEMS)
    assert bench.choose("gains") is None
    found = bench.beside(["gains", "fasp"], sample)
    assert found["gains"] == {"reduction_pct": None, "note": f"No set of it keeps to the limits ({LIMITS.text()})."}
    assert "more_than_fasp_points" not in found["fasp"]
    assert world.bench(compared).beside(["gains"], sample)["gains"]["reduction_pct"] is None


def test_what_there_is_none_of_is_told(world: World, compared: Comparison, tmp_path: Path) -> None:
    empty = Bench(compared, LIMITS, world.lm.id, world.load, Store(tmp_path))
    with pytest.raises(InputError, match=r"run 'python -m fasp_core gains .* --method hard-concrete' first"):
        empty.choose("hard-concrete")
    with pytest.raises(InputError, match="has no sets of 'search': run 'python -m fasp_core search"):
        empty.choose("search")
    with pytest.raises(InputError, match="leave \\+repair out"):
        empty.choose("gains+repair")
    with pytest.raises(InputError, match="no method 'obd'"):
        empty.choose("obd")


def test_every_method_is_read_without_a_model_and_says_what_it_lacks(
    world: World, compared: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "METHODS", ("fasp", "gains*0.5", "gains-all", "search"))
    world.learn(cost=1.0)
    sample = Sample(world.axis, prompts=40, items=ITEMS)
    before = front.stored(compared, LIMITS, world.lm.id, world.store, replace(sample, prompts=50))
    assert before.methods == {}
    assert {"fasp", "gains*0.5"} <= set(before.missing)
    assert "gains --model" in before.lacking["gains-all"]
    made = front.measured(world.bench(compared), sample)
    world.loads = 0
    found = front.stored(compared, LIMITS, world.lm.id, world.store, sample)
    assert world.loads == 0
    assert found.missing == ()
    assert found.methods == made.methods
    assert set(found.methods) | set(found.lacking) == set(front.METHODS)
    assert "search" in found.lacking
    drawn = front.points(found, "lambada")
    assert {p.name for p in drawn} == {name for name, one in found.methods.items() if one["reduction_pct"] is not None}
    for p in drawn:
        assert p.x == -found.methods[p.name]["lambada_points"]
        assert p.x_ends[0] <= p.x_ends[1]
    assert front.markdown(found).count("\n") == len(drawn) + 1
    lowest = max(found.methods.items(), key=lambda one: one[1]["validation"]["reduction_pct"])[0]
    assert found.best == lowest
    assert f"Of the {len(found.methods)} methods" in (said := front.sentence(found) or "")
    assert f"validation chooses `{lowest}`" in said
    assert front.sentence(replace(found, methods={lowest: found.methods[lowest]})) is None  # nothing was chosen
    assert front.sentence(before) is None
    monkeypatch.setattr(front, "PASSAGES", (ITEMS + 1, ITEMS))
    monkeypatch.setattr(front, "Sample", partial(Sample, prompts=40))
    assert front.fullest(compared, LIMITS, world.lm.id, world.store) == found


def test_limits_beside_perplexity_are_read_without_a_model(
    world: World, compared: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "METHODS", ("fasp", "gains*0.5"))
    world.learn(cost=1.0)
    sample, limits = Sample(world.axis, prompts=40, items=ITEMS), Limits(3.0, lambada_points=100.0, items=5)
    assert set(front.stored(compared, limits, world.lm.id, world.store, sample).missing) == {"fasp", "gains*0.5"}
    made = front.measured(world.bench(compared, limits), sample)
    world.loads = 0
    found = front.stored(compared, limits, world.lm.id, world.store, sample)
    assert (world.loads, found.missing, found.methods) == (0, (), made.methods)


def test_a_strength_is_one_candidate(world: World, compared: Comparison) -> None:
    world.learn(cost=1.0)
    bench = world.bench(compared)
    chosen = bench.choose("gains*0.5")
    known = gains.stored(world.lm.id, world.axis, "neutral", "gains", world.store)
    assert chosen is None or chosen.prune_set in {one.at(0.5) for one in known}
    for wrong in ("gains*2", "gains*x", "fasp*0.5", "hard-concrete*0.5"):
        with pytest.raises(InputError, match="names no strength"):
            bench.choose(wrong)
    with pytest.raises(InputError, match="There is no method"):
        bench.choose("fasp-all")


def test_gains_around_a_set_are_a_method_of_their_own(world: World, compared: Comparison) -> None:
    world.learn(cost=1.0)
    bench = world.bench(compared)
    with pytest.raises(InputError, match="--around HEADS' first"):
        bench.choose("gains-around")
    world.learn(cost=1.0, around="L1H2")
    found = world.bench(compared, Limits(9.0)).choose("gains-around")
    assert found is None or (found.prune_set.heads >= {(1, 2)} and "around a set" in found.title)
    (one,) = gains.stored(world.lm.id, world.axis, "neutral", "gains", world.store, around=True)
    assert one.gates[1, 2] == 0
    assert [g.config.around for g in gains.stored(world.lm.id, world.axis, "neutral", "gains", world.store)] == [""]
