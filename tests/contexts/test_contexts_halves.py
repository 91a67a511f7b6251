"""A matrix of exact answers: names in halves, numbers with their probabilities, and what is stored of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import Nll
from fasp_core.storage.store import Store
from fasp_core.studies.answers import distributions, measures
from fasp_core.studies.answers.distributions import Distributions, points
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.contexts import choosing, localise, matrix, scenarios, slopes, summary
from fasp_core.studies.contexts.audit import AuditConfig, Following, disparity, exactly
from fasp_core.studies.contexts.cells import Cell, Matrix, MatrixConfig
from fasp_core.studies.contexts.choosing import Sizes
from fasp_core.studies.contexts.generalisation import Carried, widened
from fasp_core.studies.contexts.halves import half, levelled
from fasp_core.studies.contexts.scenarios import by_turns
from tests.support.numbered import numbered_lm

WORLD = scenarios.parse(
    """
[contexts.rooms]
unit = "dollars"
opening = "$"
question = "the {item} for {name}"
scenarios = ["house"]
[contexts.days]
unit = "hours"
question = "{item} to {name}"
scenarios = ["My"]
[groups]
one = ["red", "the", "to"]
two = ["blue", "My", "for"]
""",
    "rooms.toml",
)
LIMITS = ExactConfig(nodes=8, draws=4)
NLL = Nll(np.ones(2), np.ones(2, dtype=np.int64))
CONFIG = MatrixConfig(
    ("heads-effect", "neurons-effect", "heads-random"),
    AuditConfig(tokens=3),
    Sizes(heads=0.3, neurons=0.05),
    tokens=64,
    exact=LIMITS,
)


def with_rare(rare: float, value: float) -> Distributions:
    """Names of two groups that are .6 SDs apart, each with a rare answer beyond all others."""
    names, rng = 32, np.random.default_rng(0)
    codes = np.repeat([0, 1], names // 2)
    plain = rng.normal(50, 10, (names, 100)).clip(1) + 6 * (codes == 0)[:, None]
    values = np.concatenate([plain, np.full((names, 1), value)], 1)
    masses = np.concatenate([np.full((names, 100), (1 - rare) / 100), np.full((names, 1), rare)], 1)
    of = np.repeat(np.arange(names), 101)
    return Distributions(values.ravel(), masses.ravel(), of, np.zeros(values.size, dtype=bool), codes)


def smd(found: Distributions, share: float) -> float:
    kept = found.winsorised(share)
    return float(measures.smd(kept.moments(), kept.codes, None, kept.spent))


@pytest.mark.parametrize(("rare", "value"), [(1e-5, 1e9), (1e-4, 1e6), (2e-3, 1e4)])
@pytest.mark.parametrize("share", [0.01, 0.05])
def test_a_matrix_winsorises_what_an_audit_does(rare: float, value: float, share: float) -> None:
    found = with_rare(rare, value)
    assert smd(found, share) > 0.4
    assert smd(found.thinned(), share) == pytest.approx(smd(found, share), abs=0.003)
    whole = replace(found, values=found.values.round())  # of at most three digits, as prices are
    assert smd(whole.thinned(), share) == pytest.approx(smd(whole, share), abs=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.01, 1), st.booleans()), min_size=1), st.floats(0, 0.5))
def test_what_is_kept_has_the_mean_and_the_share_of_its_distribution(
    rows: list[tuple[float, float, bool]], none: float
) -> None:
    values, masses, drawn = (np.array(x) for x in zip(*rows, strict=True))
    masses = (1 - none) * masses / masses.sum()
    found = Distributions(
        np.array([*values, np.nan]),
        np.array([*masses, none]),
        np.zeros(len(values) + 1, dtype=np.int64),
        np.array([*drawn, False]),
        np.array([0]),
    )
    kept = found.thinned()
    assert kept.shares() == pytest.approx(found.shares())
    assert kept.covered == pytest.approx(found.covered)
    mean = [x.values[x.given] @ x.masses[x.given] for x in (found, kept)]
    assert mean[0] == pytest.approx(mean[1])
    assert np.nanmax(kept.values) == pytest.approx(values.max(), rel=0.01)
    shown = points(found, 32)[0]
    assert np.isfinite(shown).sum() == round(32 * float(found.shares()[0]))
    assert set(shown[np.isfinite(shown)]) <= set(values)


def test_halves_hold_every_name_once() -> None:
    both = [half(WORLD, h) for h in (0, 1)]
    assert both[0].groups == {"one": ("red", "to"), "two": ("blue", "for")}
    assert both[1].groups == {"one": ("the",), "two": ("My",)}
    assert both[0].scenarios == WORLD.scenarios


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 5))
def test_every_halving_is_of_as_many_names(first: int, second: int, halving: int) -> None:
    codes = np.repeat([0, 1], (first, second))
    turns = by_turns(codes, halving)
    for group, size in ((0, first), (1, second)):
        assert (turns[codes == group] == 0).sum() == (size + 1) // 2
    if first == second:  # pairs stay together
        np.testing.assert_array_equal(turns[:first], turns[first:])
    world = replace(WORLD, groups={g: tuple(f"{g}{i}" for i in range(n)) for g, n in (("a", first), ("b", second))})
    held = [half(world, h, halving).groups for h in (0, 1)]
    names = [f"a{i}" for i in range(first)] + [f"b{i}" for i in range(second)]
    for h, groups in enumerate(held):
        assert [*groups["a"], *groups["b"]] == [name for name, turn in zip(names, turns, strict=True) if turn == h]


def test_halvings_differ() -> None:
    codes = np.repeat([0, 1], 16)
    assert len({tuple(by_turns(codes, i)) for i in range(6)}) == 6


def test_what_two_sets_do_otherwise_is_no_difference_between_names() -> None:
    """Where one half is moved as a whole, resampled names are as if none was."""
    plain = with_rare(0.0, 1.0)
    turns = by_turns(plain.codes, 3)
    moved = replace(plain, values=plain.values + 500.0 * turns[plain.names])
    level, expected = levelled(moved, 3), levelled(plain, 3)
    counts = measures.draws(plain.codes, 200)
    found = [measures.smd(x.moments(), x.codes, counts, x.spent, plain.moments()) for x in (level, expected)]
    np.testing.assert_allclose(found[0], found[1])
    for x, before in ((level, moved), (expected, plain)):
        for g in (0, 1):
            assert np.average(x.of(g)[0], weights=x.of(g)[1]) == pytest.approx(
                np.average(before.of(g)[0], weights=before.of(g)[1])
            )


def test_intervals_of_a_halved_test_hold() -> None:
    """Names scatter within halves that are far apart: of 300 made-up tests about 95 in 100 intervals hold the truth."""
    rng, held = np.random.default_rng(1), []
    codes = np.repeat([0, 1], 12)
    turns = by_turns(codes)
    names = np.arange(24)
    base = Distributions(np.exp(names % 5 + 1.0), np.ones(24), names, np.zeros(24, bool), codes)
    setting = matrix.settings(WORLD.scenarios[:1])[0]
    for _ in range(300):
        logs = 3 + 0.5 * (codes == 0) + 2.0 * turns + 0.2 * rng.normal(size=24)
        answers = replace(base, values=np.expm1(logs))
        cell = Cell("heads-effect", setting, 1, 1, "", (answers,), NLL)
        made = Matrix(
            "made-up", CONFIG, {}, WORLD.scenarios[:1], ("one", "two"), (), (base,), (base,), NLL, (cell,), {}
        )
        _, after = Carried(made, resamples=300).signed(cell)
        spread = np.sqrt(np.log1p(base.values)[codes == 0].var() / 2 + np.log1p(base.values)[codes == 1].var() / 2)
        held.append(after.low <= 0.5 / spread <= after.high)
    assert 0.9 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("names", [6, 16])
@pytest.mark.parametrize("halvings", [1, 4])
def test_levelled_halves_are_widened_to_what_names_scatter(names: int, halvings: int) -> None:
    """Where sets do nothing, means of levelled halves scatter as those of whole groups."""
    rng, codes = np.random.default_rng(0), np.repeat([0, 1], names)
    logs = rng.normal(3, 1, (200, 2 * names))
    counts = measures.draws(codes, 400)

    def spread(values: Any) -> Any:
        means = [(counts * (codes == g)) @ values / names for g in (0, 1)]
        return (means[0] - means[1]).std()

    ratios = []
    for row in logs:
        one = Distributions(row, np.ones(2 * names), np.arange(2 * names), np.zeros(2 * names, bool), codes)
        level = np.mean([levelled(one, i).values for i in range(halvings)], axis=0)
        ratios.append((spread(level) * widened(names, halvings) / spread(row)) ** 2)
    assert np.sqrt(np.mean(ratios)) == pytest.approx(1, abs=0.05)
    assert np.isnan(widened(2, halvings))
    assert widened(names, 0) == 1


def test_a_set_that_removes_nothing_changes_nothing_for_sure() -> None:
    rng, codes = np.random.default_rng(0), np.repeat([0, 1], 8)
    base = Distributions(np.expm1(rng.normal(3, 1, 16)), np.ones(16), np.arange(16), np.zeros(16, bool), codes)
    setting = matrix.settings(WORLD.scenarios[:1])[0]
    cell = Cell("heads-effect", setting, 1, 1, "", (base, base), NLL)
    made = Matrix("made-up", CONFIG, {}, WORLD.scenarios[:1], ("one", "two"), (), (base,), (base,), NLL, (cell,), {})
    found = Carried(made, resamples=200).summary([cell])
    assert found is not None
    assert found.change == pytest.approx((0, 0, 0))
    assert found.before.value == pytest.approx(found.after.value)
    assert found.before.low < found.before.value < found.before.high


def test_halvings_count_as_one_test_the_mean_of_theirs() -> None:
    rng, codes = np.random.default_rng(0), np.repeat([0, 1], 6)
    names = np.arange(12)

    def drawn() -> Distributions:
        return Distributions(np.expm1(rng.normal(3, 1, 12)), np.ones(12), names, np.zeros(12, bool), codes)

    base, several = drawn(), (drawn(), drawn(), drawn())
    setting = matrix.settings(WORLD.scenarios[:1])[0]
    cell = Cell("heads-effect", setting, 1, 1, "", several, NLL)
    made = Matrix("made-up", CONFIG, {}, WORLD.scenarios[:1], ("one", "two"), (), (base,), (base,), NLL, (cell,), {})
    found = Carried(made, resamples=200).summary([cell])
    assert found is not None

    def apart(x: Distributions) -> float:
        logs = np.log1p(x.values)
        spread = np.sqrt((np.log1p(base.values)[codes == 0].var() + np.log1p(base.values)[codes == 1].var()) / 2)
        return float((logs[codes == 0].mean() - logs[codes == 1].mean()) / spread)

    assert found.after.value == pytest.approx(np.mean([abs(apart(x)) for x in several]))
    assert found.inliers == pytest.approx(np.mean([distributions.moved(base, x, 0.0)[0] for x in several]))
    assert cell.answers.shares() == pytest.approx(np.ones(12))
    few = replace(cell, halvings=tuple(x.between((0,), (1,)) for x in several))
    assert Carried(replace(made, cells=(few,)), resamples=50).signed(few)[1].value == pytest.approx(
        np.mean([apart(x) for x in several])
    )


def test_several_halvings_are_asked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "TextConfig", partial(TextConfig, window=64, stride=64))
    lm, store, twice = numbered_lm(), Store(tmp_path), replace(CONFIG, halvings=2)
    once = matrix.run(lm, WORLD, CONFIG, store)
    found = matrix.run(lm, WORLD, twice, store)
    for one, two in zip(once.cells, found.cells, strict=True):
        assert len(two.halvings) == (2 if two.setting.kind == "same" and not two.method.endswith("random") else 1)
        np.testing.assert_array_equal(one.halvings[0].values, two.halvings[0].values)
    following = Following(WORLD, CONFIG.audit, LIMITS)
    for cell in found.of("neurons-effect", "same"):
        subjects = [PruneSet.parse(part) for part in cell.sets or ()]
        assert len(subjects) == 4
        for i, h in np.ndindex(2, 2):
            others = replace(following, scenarios=half(WORLD, 1 - h, i))
            said = exactly(lm, WORLD.scenarios[cell.setting.tested], others, store, subjects[2 * i + h])
            names = [name for name, _ in found.people]
            shares = cell.halvings[i].shares()
            expected = dict(zip([name for name, _ in said.people], said.found.shares(), strict=True))
            assert {n: shares[names.index(n)] for n in expected} == pytest.approx(expected)
    again = next(m for m in matrix.stored(lm.id, store) if m.config.halvings == 2)
    for one, two in zip(again.cells, found.cells, strict=True):
        assert one.setting == two.setting
        for a, b in zip(one.halvings, two.halvings, strict=True):
            np.testing.assert_array_equal(a.values, b.values)
    with pytest.raises(InputError, match="halved once or more"):
        replace(CONFIG, halvings=0)
    with pytest.raises(InputError, match="Sets at random depend on no names"):
        replace(twice, methods=("heads-random", "neurons-random"))
    with pytest.raises(InputError, match="only for exact answers"):
        replace(twice, exact=None)


def test_a_matrix_of_exact_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "TextConfig", partial(TextConfig, window=64, stride=64))
    lm, store = numbered_lm(), Store(tmp_path)
    found = matrix.run(lm, WORLD, CONFIG, store)
    assert found.base == found.other
    following = Following(WORLD, CONFIG.audit, LIMITS)
    for base, scenario in zip(found.base, WORLD.scenarios, strict=True):
        asked = [exactly(lm, scenario, following, store)]
        assert isinstance(base, Distributions)
        assert smd(base, 0.01) == pytest.approx(float(disparity(asked, 0.01).values[0]), abs=1e-6, nan_ok=True)
    for cell in found.of("neurons-effect", "same"):
        subjects = [PruneSet.parse(part) for part in cell.sets or ()]
        for h, subject in enumerate(subjects):  # chosen on one half, tested on the other
            others = replace(following, scenarios=half(WORLD, 1 - h))
            said = exactly(lm, WORLD.scenarios[cell.setting.tested], others, store, subject)
            names = [name for name, _ in found.people]
            expected = dict(zip([name for name, _ in said.people], said.found.shares(), strict=True))
            shares = cell.answers.shares()
            assert {n: shares[names.index(n)] for n in expected} == pytest.approx(expected)
    same, other = found.of("heads-effect", "same"), found.of("heads-random", "other")
    assert all(c.prune_set.count(";") <= 1 for c in same)
    for cell in other:
        (beside,) = [c for c in found.of("heads-effect", "other") if c.setting == cell.setting]
        assert cell.parts == len(PruneSet.parse(cell.prune_set)) == beside.parts
    sentence = summary.document(found, 0.0)["findings"][1]["sentence"]
    assert "carr" in sentence or "open" in sentence
    monkeypatch.setattr("fasp_core.studies.contexts.halves.exactly", lambda *_, **__: pytest.fail("it is stored"))
    again = matrix.run(lm, WORLD, CONFIG, store)
    assert again.config == CONFIG
    (stored,) = matrix.stored(lm.id, store)
    for one, two in zip(stored.cells, found.cells, strict=True):
        assert isinstance(one.answers, Distributions)
        assert isinstance(two.answers, Distributions)
        np.testing.assert_array_equal(one.answers.values, two.answers.values)
        np.testing.assert_array_equal(one.answers.names, two.answers.names)
    monkeypatch.setattr(matrix, "EXACT", {**matrix.EXACT, "how": 0})  # followed in another way: not shown
    assert not matrix.stored(lm.id, store)


@pytest.mark.parametrize("limits", [LIMITS, None])
def test_random_sets_beside_known_ones_need_no_effects(
    limits: ExactConfig | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the matrix beside them they need the sizes of its sets alone, and are the same sets."""
    monkeypatch.setattr(matrix, "TextConfig", partial(TextConfig, window=64, stride=64))
    lm, both = numbered_lm(), replace(CONFIG, exact=limits)
    expected = matrix.run(lm, WORLD, both, Store(tmp_path / "whole"))
    matrix.run(lm, WORLD, replace(both, methods=both.methods[:2]), Store(tmp_path / "first"))
    shutil.copytree(tmp_path / "first" / matrix.KIND, tmp_path / "second" / matrix.KIND)
    monkeypatch.setattr(slopes, "effects", lambda *_, **__: pytest.fail("no effect is asked for"))
    monkeypatch.setattr(localise, "effects", lambda *_, **__: pytest.fail("no effect is asked for"))
    found = matrix.run(lm, WORLD, both, Store(tmp_path / "second"))
    assert [(c.setting, c.prune_set) for c in found.of("heads-random")] == [
        (c.setting, c.prune_set) for c in expected.of("heads-random")
    ]
    alone = matrix.run(lm, WORLD, replace(both, methods=("heads-random",)), Store(tmp_path / "second"))
    assert [c.prune_set for c in alone.cells] == [c.prune_set for c in expected.of("heads-random")]


def test_cells_are_taken_over_where_their_own_sizes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with another share of weights need not ask again about heads."""
    monkeypatch.setattr(matrix, "TextConfig", partial(TextConfig, window=64, stride=64))
    lm, store = numbered_lm(), Store(tmp_path)
    first = matrix.run(lm, WORLD, CONFIG, store)
    sizes = CONFIG.sizes
    for fields, mine in (("heads", "heads-effect"), ("unit_top unit_other", "neurons-activation")):
        for name in fields.split():
            changed = replace(sizes, **{name: getattr(sizes, name) / 2})
            for method in choosing.METHODS:
                same = method not in (mine, mine.replace("effect", "random"), mine.replace("effect", "attention"))
                assert (sizes.of(method) == changed.of(method)) == same, (name, method)
    asked: list[str] = []
    original = matrix.Whole.cell

    def cell(self: Any, method: choosing.Method, *rest: Any) -> Any:
        asked.append(method)
        return original(self, method, *rest)

    monkeypatch.setattr(matrix.Whole, "cell", cell)
    other = replace(CONFIG, sizes=replace(sizes, weight_top=0.003), methods=(*CONFIG.methods, "weights-effect"))
    found = matrix.run(lm, WORLD, other, store)
    assert set(asked) == {"weights-effect"}
    assert [c.prune_set for c in found.of("heads-effect")] == [c.prune_set for c in first.of("heads-effect")]
    asked.clear()
    matrix.run(lm, WORLD, replace(other, sizes=replace(other.sizes, heads=CONFIG.sizes.heads / 3)), store)
    assert set(asked) == {m for m in CONFIG.methods if m.startswith("heads")}


def test_a_group_of_one_name_cannot_be_halved(tmp_path: Path) -> None:
    alone = replace(WORLD, groups={group: names[:1] for group, names in WORLD.groups.items()})
    with pytest.raises(InputError, match="has one name, and sets are chosen by half of the names"):
        matrix.run(numbered_lm(), alone, CONFIG, Store(tmp_path))


def test_sampled_matrices_are_found_where_they_were() -> None:
    config: Any = MatrixConfig()
    assert "exact" not in config.key()
    assert MatrixConfig(exact=ExactConfig()).key()["exact"]["nodes"] == ExactConfig().nodes
