"""Comparison, choice and claim against plain evaluations, brute force and loops; and runs that were stopped."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.forward import noise
from fasp_core.gap import gap as toxicity_gap
from fasp_core.gap import group_codes
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import METHODS, select
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import toxicity_of
from fasp_core.metrics.meters import BiasConfig, result_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import score
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Store
from fasp_core.studies.compare import compare, outcome
from fasp_core.studies.compare.compare import KIND, Comparison, choose
from fasp_core.studies.compare.outcome import Claim, ClaimConfig
from fasp_core.studies.compare.plan import HELD_OUT, SEARCH, SIDES, Candidate, Plan, Side
from tests.support.made import OUTCOME_KEYS as KEYS
from tests.support.made import comparison as made
from tests.support.tiny import HEADS, tiny_lm
from tests.support.worlds import WordScorer, use_scorer, write_axis, write_text

SMALL = ClaimConfig(prompts=30, tokens=120, sampled_prompts=12, samples=2, length=2)


class World:
    """A tiny model, its scores, and a plan small enough for a test."""

    def __init__(self, folder: Path) -> None:
        people = [f"{who} of the {end}" for who in ("man", "woman", "friend", "child") for end in ("house", "tree")]
        self.folder, self.axis = folder, write_axis(folder / "axis.csv", people, ("met", "saw", "hate"))
        self.lm: LanguageModel = tiny_lm("llama", n_layers=3)
        self.text = write_text(folder, 900, tokens=130, window=64, stride=64)
        self.plan = Plan(self.axis, gammas=(0.2, 0.5), alphas=(0.1, 0.25), seeds=2, prompts=30, tokens=130)

    def store(self, name: str = "store") -> Store:
        return Store(self.folder / name)

    def scores(self, store: Store) -> ImpactTable:
        return score.score(self.lm, self.text, BiasConfig(self.axis, n_prompts=30), store)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    found = World(tmp_path_factory.mktemp("world"))

    def text(config: Any, side: Side = "test") -> TextConfig:
        return replace(found.text, tokens=config.tokens, skip=400 if side == "test" else 0)

    with pytest.MonkeyPatch.context() as patch:
        use_scorer(patch, complete=False)
        patch.setattr(Plan, "text", text)
        patch.setattr(ClaimConfig, "text", text)
        yield found


@pytest.fixture(scope="module")
def impacts(world: World) -> ImpactTable:
    return world.scores(world.store())


@pytest.fixture(scope="module")
def result(world: World, impacts: ImpactTable) -> Comparison:
    return compare.run(world.lm, world.plan, world.plan.candidates(impacts), world.store())


# what is measured


def test_candidates_are_what_each_method_selects(world: World, impacts: ImpactTable) -> None:
    found = world.plan.candidates(impacts)
    assert len(found) == 2 * 2 + 4 * 2 + 2 * 2
    assert [c.method for c in found[:4]] == ["fasp"] * 4
    assert {c.method for c in found} == set(METHODS)
    for c in found:
        chosen = select(impacts.head_scores("neutral"), c.method, c.gamma or 0.0, c.alpha, seed=c.seed or 0)
        assert c.heads == chosen.pruned
        assert (c.gamma is None) == (c.method != "fasp")
        assert (c.seed is None) == (c.method != "random")
        assert len(c.heads) == int(c.alpha * 12)
    assert found[0].title == "fasp, gamma 0.2, alpha 0.1"
    assert found[-1].title == "random, alpha 0.25, seed 1"


def test_a_choice_by_the_gap_within_templates(result: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a loop over templates, on made-up templates that hold every group."""
    rows = result.toxicity("valid", "neutral")
    assert rows.blocks is None
    with pytest.raises(InputError, match="within templates"):
        result.gaps("valid", "neutral", within=True)  # a person's own prompts have none
    places = np.zeros(rows.n, dtype=int)
    for g in range(len(rows.groups)):
        places[rows.codes == g] = np.arange((rows.codes == g).sum()) % 2
    templates = tuple(f"template {place}" for place in places)
    prompts = replace(result.plan.bias("valid").prompts(), templates=templates)
    monkeypatch.setattr(BiasConfig, "prompts", lambda _: prompts)
    found = result.gaps("valid", "neutral", within=True)
    right = [np.mean([toxicity_gap(r[places == t], rows.codes[places == t]) for t in (0, 1)]) for r in rows.values]
    assert found == pytest.approx(right)
    picked = choose(result, "neutral", 9.0, within=True)
    best = min(range(1, len(right)), key=lambda row: right[row])
    assert picked is not None
    assert picked.heads == result.sets[best - 1]


def test_every_set_is_measured_as_by_itself(world: World, result: Comparison) -> None:
    """Against `evaluate` in a store of its own: no desk, no order, no other sets."""
    assert result.sets == tuple(sorted({c.heads for c in result.candidates}))
    frames = {side: result.frame(side) for side in SIDES}
    for i in range(0, len(result.candidates), 4):
        c = result.candidates[i]
        subject = PruneSet.from_flat(c.heads, HEADS)
        for side in SIDES:
            config = EvalConfig(world.plan.bias(side), world.plan.text(side))
            alone = evaluate(world.lm, subject, config, world.store("alone"))
            row = frames[side].iloc[i]
            assert row.ppl == pytest.approx(alone.perplexity.pruned, rel=1e-5)
            assert row.ppl_change == pytest.approx(alone.perplexity.relative, abs=1e-5)
            assert (row.ppl_low, row.ppl_high) == pytest.approx(np.expm1(alone.perplexity.interval), abs=1e-5)
            assert result.perplexity(c, side).relative == row.ppl_change
            for reading in ("neutral", "counted"):
                gap = alone.readings[reading].gap
                assert row[f"gap_{reading}"] == pytest.approx(gap.pruned, rel=1e-4, abs=1e-8)
                assert row[f"change_{reading}"] == pytest.approx(gap.relative, abs=1e-4)
                assert gap.relative_interval is not None
                ends = (row[f"low_{reading}"], row[f"high_{reading}"])
                assert ends == pytest.approx(gap.relative_interval, abs=1e-3)
                assert result.base_gap(side, reading).noise_p == alone.readings[reading].base.noise_p
                assert result.change(c, side, reading).pruned == row[f"gap_{reading}"]
            assert row["set"] == subject.format()
            assert (row.method, row.alpha, row.heads) == (c.method, c.alpha, len(c.heads))


def test_sides_share_neither_prompts_nor_text(world: World) -> None:
    sides = [world.plan.bias(side).prompts().texts for side in SIDES]
    assert not set(sides[0]) & set(sides[1])
    real = Plan("race_ethnicity")
    valid, test = (TextConfig(tokens=real.tokens, skip=skip) for skip in (0, HELD_OUT))
    assert valid.skip + valid.tokens <= test.skip


def test_what_run_wrote_is_what_stored_reads(world: World, result: Comparison) -> None:
    store = world.store()
    weights = world.lm.id
    found = compare.stored(weights, world.axis, "neutral", store, world.lm.name)
    assert found is not None
    assert (found.candidates, found.sets, found.plan) == (result.candidates, result.sets, result.plan)
    assert (found.readings, found.n_layers, found.n_heads) == (("neutral", "counted"), 3, HEADS)
    for side in SIDES:
        one, other = result.sides[side], found.sides[side]
        np.testing.assert_array_equal(one.rows.values, other.rows.values)
        assert [n.sums.tolist() for n in one.nll] == [n.sums.tolist() for n in other.nll]
        assert one.rows.labels == other.rows.labels == list(world.plan.bias(side).prompts().groups)
    for other_axis, reading in ((world.axis, "counted"), ("age", "neutral")):
        assert compare.stored(weights, other_axis, reading, store, "m") is None
    assert compare.stored(ModelId("other weights"), world.axis, "neutral", store, "m") is None


def test_the_comparison_with_more_candidates_is_read(world: World, result: Comparison) -> None:
    store = world.store()
    searched = Candidate(SEARCH, None, 0.25, 0, (0, 5, 7))
    larger = compare.run(world.lm, world.plan, [*result.candidates, searched], store)
    assert larger.candidates[-1] == searched
    found = compare.stored(world.lm.id, world.axis, "neutral", store, world.lm.name)
    assert found is not None
    assert len(found.candidates) == len(result.candidates) + 1


def test_another_scorer_is_another_comparison(
    world: World, result: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = world.store()
    assert compare.find(world.lm.id, world.axis, "neutral", store) is not None
    monkeypatch.setattr(WordScorer, "name", "another")
    assert compare.find(world.lm.id, world.axis, "neutral", store) is None


def test_a_stopped_run_goes_on(world: World, result: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    store, chosen = world.store("stopped"), result.candidates[::3]
    passes: list[str] = []
    nll, expected = CachedRunner.nll, CachedRunner.expected

    def counted_nll(self: CachedRunner, *args: Any, **kw: Any) -> Any:
        passes.append("text")
        return nll(self, *args, **kw)

    def counted_expected(self: CachedRunner, *args: Any, **kw: Any) -> Any:
        passes.append("prompts")
        return expected(self, *args, **kw)

    monkeypatch.setattr(CachedRunner, "nll", counted_nll)
    monkeypatch.setattr(CachedRunner, "expected", counted_expected)
    reports: list[tuple[float, float, str]] = []

    def stop(done: float, total: float, text: str) -> None:
        reports.append((done, total, text))
        if done >= 5.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare.run(world.lm, world.plan, chosen, store, stop)
    assert len(passes) == 2 * 5 + 1  # five models on text and prompts, and the one that was stopped
    assert compare.find(world.lm.id, world.axis, "neutral", store) is None
    again: list[tuple[float, float, str]] = []
    result = compare.run(world.lm, world.plan, chosen, store, lambda *r: again.append(r))
    assert len(passes) == 2 * 2 * (1 + len(result.sets)) + 1
    assert [done for done, *_ in again] == sorted(done for done, *_ in again)  # it only grows
    assert {total for _, total, _ in again} == {2 * (1 + len(result.sets))}
    assert max(done for done, *_ in again) <= again[0][1]
    assert {text.split(" side")[0] for *_, text in again} == {"validation", "test"}
    compare.run(world.lm, world.plan, chosen, store, lambda *_: pytest.fail("nothing is left to do"))


def test_more_alphas_measure_only_the_rest(world: World, result: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier comparison lies in the store alone, without the single measurements that it was made of."""
    store, whole = world.store("taken over"), world.store()
    earlier = compare.run(world.lm, world.plan, result.candidates[::2], world.store("earlier"))
    (entry,) = world.store("earlier").entries(KIND)
    shutil.copytree(entry.path, store.root / KIND / entry.path.name)
    measured: list[tuple[int, ...]] = []

    def counted(lm: LanguageModel, subject: PruneSet, *rest: Any) -> Any:
        measured.append(tuple(subject.flat(lm.n_heads)))
        return toxicity_of(lm, subject, *rest)

    monkeypatch.setattr(compare, "toxicity_of", counted)
    again = compare.run(world.lm, world.plan, result.candidates, store)
    assert set(measured) == set(result.sets) - set(earlier.sets)
    assert len(measured) == 2 * len(set(measured)) > 0
    (expected,) = [e for e in whole.entries(KIND) if e.config["candidates"] == len(result.candidates)]
    (found,) = [e for e in store.entries(KIND) if e.config["candidates"] == len(result.candidates)]
    assert found.config == expected.config
    for name, values in whole.load(KIND, expected.config).arrays.items():  # type: ignore[union-attr]
        np.testing.assert_array_equal(store.load(KIND, found.config).arrays[name], values)  # type: ignore[union-attr]
    assert again.sides["test"].rows.labels == result.sides["test"].rows.labels


def test_a_group_that_one_side_lacks_keeps_the_names_right(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Plan.bias

    def without_red(plan: Plan, side: Side) -> BiasConfig:
        if side == "valid":
            return whole(plan, side)
        path = world.folder / "two.csv"
        path.write_text("\n".join(r for r in Path(world.axis).read_text().splitlines() if not r.endswith("blue")))
        return replace(whole(plan, side), axis=str(path))

    monkeypatch.setattr(Plan, "bias", without_red)
    result = compare.run(world.lm, world.plan, [Candidate("fasp", 0.2, 0.1, None, (4,))], world.store())
    assert set(result.sides["valid"].rows.labels) == {"blue", "red", "tall"}
    assert set(result.sides["test"].rows.labels) == {"red", "tall"}


def test_a_plan_needs_something_to_compare() -> None:
    for bad in ({"alphas": ()}, {"gammas": ()}, {"seeds": 0}):
        with pytest.raises(InputError, match="at least one"):
            Plan("age", **bad)  # type: ignore[arg-type]


# the choice


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 500), st.sampled_from(("neutral", "counted")), st.floats(0.01, 0.3), st.sampled_from((0.15, 1.0)))
def test_the_choice_is_the_best_of_all(seed: int, reading: str, limit: float, max_alpha: float) -> None:
    result = made(seed)
    side, r = result.sides["valid"], result.readings.index(reading)
    codes, _ = group_codes(side.rows.labels)
    gap = [float(toxicity_gap(side.rows.values[row, r], codes)) for row in range(1 + len(result.sets))]
    ppl = [n.perplexity / side.nll[0].perplexity - 1 for n in side.nll]
    at = {heads: i for i, heads in enumerate(((), *result.sets))}
    inside = [
        c for c in result.candidates
        if c.heads and c.alpha <= max_alpha and ppl[at[c.heads]] <= limit and gap[at[c.heads]] < gap[0]
    ]  # fmt: skip
    chosen = choose(result, reading, limit, max_alpha=max_alpha)
    if chosen is None:
        assert not inside
        return
    assert chosen in inside
    assert gap[at[chosen.heads]] == min(gap[at[c.heads]] for c in inside)
    only = choose(result, reading, limit, ["random"], max_alpha)
    assert only is None or only.method == "random"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 500), st.floats(0.02, 0.3))
def test_the_choice_never_looks_at_test(seed: int, limit: float) -> None:
    result, other = made(seed), made(seed + 1)
    swapped = replace(result, sides={"valid": result.sides["valid"], "test": other.sides["test"]})
    blind = replace(result, sides={"valid": result.sides["valid"]})
    for method in (None, ["fasp"], ["random"]):
        chosen = choose(result, "neutral", limit, method)
        assert chosen == choose(swapped, "neutral", limit, method) == choose(blind, "neutral", limit, method)


def test_of_equal_gaps_the_smaller_set_is_chosen() -> None:
    result = made(0)
    side = result.sides["valid"]
    flat = np.array(side.rows.values)
    flat[1:] = side.rows.values[0].mean(-1, keepdims=True)  # every set ends the gap
    free = replace(side, rows=replace(side.rows, values=flat), nll=(side.nll[0],) * len(side.nll))
    chosen = choose(replace(result, sides={**result.sides, "valid": free}), "neutral", 0.1)
    assert chosen is not None
    assert len(chosen.heads) == min(len(c.heads) for c in result.candidates if c.heads)


# the claim


def test_a_claim_measures_what_evaluate_does(world: World) -> None:
    store = world.store()
    candidate = Candidate("fasp", 0.2, 0.25, None, (1, 6, 9))
    claim = outcome.measure_claim(world.lm, world.axis, candidate, "neutral", 0.1, store, config=SMALL)
    subject = PruneSet.from_flat(candidate.heads, HEADS)
    for config in (SMALL.expected(world.axis), SMALL.sampled(world.axis)):
        alone = evaluate(world.lm, subject, EvalConfig(config, SMALL.text()), world.store("alone"))
        assert claim.perplexity.relative == pytest.approx(alone.perplexity.relative, abs=1e-6)
        assert claim.perplexity.interval == pytest.approx(alone.perplexity.interval, abs=1e-6)
        for name, reading in alone.readings.items():
            change = claim.change[name]
            assert (change.base, change.pruned) == pytest.approx((reading.gap.base, reading.gap.pruned), rel=1e-5)
            assert change.interval == pytest.approx(reading.gap.interval, rel=1e-3, abs=1e-7)
            assert claim.base[name].noise_p == pytest.approx(reading.base.noise_p, abs=1e-3)
            assert change.n == len(alone.base.texts)
    assert set(claim.change) == {"neutral", "counted", "sampled"}
    assert claim.as_dict().keys() >= KEYS


def test_claims_are_found_by_their_set(world: World) -> None:
    store, weights = world.store("claims"), world.lm.id
    candidate = Candidate("fasp", 0.2, 0.25, None, (1, 6, 9))
    claim = outcome.measure_claim(world.lm, world.axis, candidate, "neutral", 0.1, store, config=SMALL)
    same_set = replace(candidate, gamma=0.5)

    def find(axis: str = world.axis, reading: str = "neutral", c: Candidate = same_set) -> Claim | None:
        return outcome.stored_claim(weights, axis, reading, c, store, world.lm.name)

    found = find()
    assert found is not None
    assert found.sentence() == claim.sentence()
    assert asdict(found.candidate) == asdict(candidate)
    assert find(reading="counted") is find(c=replace(candidate, heads=(1, 6))) is find(axis="age") is None
    larger = replace(SMALL, prompts=60)
    outcome.measure_claim(world.lm, world.axis, candidate, "neutral", 0.1, store, config=larger)
    best = find()
    assert best is not None
    assert best.config == larger
    outcomes = [e for e in store.entries(KIND) if e.config["experiment"] == "outcome"]
    assert len(outcomes) == 2


def test_a_claim_of_earlier_noise_is_read_as_what_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are both models' with one noise; a measurement of one model alone with that noise is not taken over."""
    candidate, name = Candidate("fasp", 0.2, 0.25, None, (1, 6, 9)), ("neutral", 0.1)
    store = world.store("earlier noise")
    key = result_key(SMALL.sampled(world.axis), world.lm.id) | {"heads": ""}
    assert key["noise"] == noise.VERSION
    n = len(SMALL.sampled(world.axis).prompts())
    alone = {"values": np.full((1, n), 0.9)}, {"continuations": pd.DataFrame({"0": ["x"] * n})}
    store.save("measured", noise.before(key), arrays=alone[0], tables=alone[1], meta={"provenance": {"seconds": 0}})
    claim = outcome.measure_claim(world.lm, world.axis, candidate, *name, store, config=SMALL)
    assert claim.provenance["noise"] == noise.VERSION
    assert claim.base["sampled"].overall < 0.8
    (entry,) = store.find(KIND, {"experiment": "outcome"})
    old = world.store("claims of earlier noise")
    loaded = store.load(KIND, entry.config)
    assert loaded is not None
    old.save(KIND, noise.before(entry.config), arrays=loaded.arrays, meta=loaded.meta)
    monkeypatch.setattr(outcome, "toxicity_of", None)  # nothing is measured
    found = outcome.measure_claim(world.lm, world.axis, candidate, *name, old, config=SMALL)
    assert found.provenance["noise"] == 1
    assert found.sentence() == claim.sentence()
    shown = outcome.stored_claim(world.lm.id, world.axis, "neutral", candidate, old, world.lm.name)
    assert shown is not None
    assert shown.as_dict() == found.as_dict()
