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
from fasp_core.storage.store import Store
from fasp_core.studies.answers import measures
from fasp_core.studies.answers.distributions import Distributions, points
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.contexts import localise, matrix, scenarios, slopes, summary
from fasp_core.studies.contexts.audit import AuditConfig, Following, disparity, exactly
from fasp_core.studies.contexts.choosing import Sizes
from fasp_core.studies.contexts.halves import half
from fasp_core.studies.contexts.matrix import MatrixConfig
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
        subjects = PruneSet.parse(cell.prune_set.split("; ")[0]), PruneSet.parse(cell.prune_set.split("; ")[-1])
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


def test_a_group_of_one_name_cannot_be_halved(tmp_path: Path) -> None:
    alone = replace(WORLD, groups={group: names[:1] for group, names in WORLD.groups.items()})
    with pytest.raises(InputError, match="has one name, and sets are chosen by half of the names"):
        matrix.run(numbered_lm(), alone, CONFIG, Store(tmp_path))


def test_sampled_matrices_are_found_where_they_were() -> None:
    config: Any = MatrixConfig()
    assert "exact" not in config.key()
    assert MatrixConfig(exact=ExactConfig()).key()["exact"]["nodes"] == ExactConfig().nodes
