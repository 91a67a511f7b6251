"""A matrix of exact answers: names in halves, distributions as points, and what is stored of them."""

from __future__ import annotations

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
from fasp_core.studies.answers.distributions import Distributions
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.contexts import matrix, scenarios, summary
from fasp_core.studies.contexts.audit import AuditConfig
from fasp_core.studies.contexts.choosing import Sizes
from fasp_core.studies.contexts.halves import POINTS, half, points
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
CONFIG = MatrixConfig(
    ("heads-effect", "neurons-effect", "heads-random"),
    AuditConfig(tokens=3),
    Sizes(heads=0.3, neurons=0.05),
    tokens=64,
    exact=ExactConfig(nodes=8, draws=4),
)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0.01, 1)), min_size=1, max_size=30), st.floats(0, 0.5))
def test_points_have_the_mean_of_their_distribution(rows: list[tuple[float, float]], none: float) -> None:
    values, masses = (np.array(x) for x in zip(*rows, strict=True))
    masses = (1 - none) * masses / masses.sum()
    found = Distributions(
        np.array([*values, np.nan]),
        np.array([*masses, none]),
        np.zeros(len(values) + 1, dtype=np.int64),
        np.zeros(len(values) + 1, dtype=bool),
        np.array([0]),
    )
    (row,) = points(found)
    assert np.isfinite(row).sum() == round(POINTS * (1 - none))
    assert np.nanmean(row) == pytest.approx(values @ masses / masses.sum(), rel=1e-6, abs=1e-9)
    assert np.all(np.diff(row[np.isfinite(row)]) >= -1e-6)


def test_halves_hold_every_name_once() -> None:
    both = [half(WORLD, h) for h in (0, 1)]
    assert both[0].groups == {"one": ("red", "to"), "two": ("blue", "for")}
    assert both[1].groups == {"one": ("the",), "two": ("My",)}
    assert both[0].scenarios == WORLD.scenarios


def test_a_matrix_of_exact_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "TextConfig", partial(TextConfig, window=64, stride=64))
    lm, store = numbered_lm(), Store(tmp_path)
    found = matrix.run(lm, WORLD, CONFIG, store)
    assert found.base.shape == (2, 6, POINTS)
    assert np.array_equal(found.base, found.other, equal_nan=True)
    assert all(c.values.shape == (6, POINTS) for c in found.cells)
    same, other = found.of("heads-effect", "same"), found.of("heads-random", "other")
    assert all(c.prune_set.count(";") <= 1 for c in same)
    for cell in other:
        assert cell.parts == len(PruneSet.parse(cell.prune_set)) == int(0.3 * lm.size)
    sentence = summary.document(found, 0.0)["findings"][1]["sentence"]
    assert "carr" in sentence or "open" in sentence
    monkeypatch.setattr("fasp_core.studies.contexts.halves.exactly", lambda *_, **__: pytest.fail("it is stored"))
    again = matrix.run(lm, WORLD, CONFIG, store)
    assert again.config == CONFIG
    (stored,) = matrix.stored(lm.id, store)
    for one, two in zip(stored.cells, found.cells, strict=True):
        np.testing.assert_array_equal(one.values, two.values)


def test_a_group_of_one_name_cannot_be_halved(tmp_path: Path) -> None:
    alone = replace(WORLD, groups={group: names[:1] for group, names in WORLD.groups.items()})
    with pytest.raises(InputError, match="has one name, and sets are chosen by half of the names"):
        matrix.run(numbered_lm(), alone, CONFIG, Store(tmp_path))


def test_sampled_matrices_are_found_where_they_were() -> None:
    config: Any = MatrixConfig()
    assert "exact" not in config.key()
    assert MatrixConfig(exact=ExactConfig()).key()["exact"]["nodes"] == ExactConfig().nodes
