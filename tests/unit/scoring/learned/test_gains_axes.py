"""One set of gates for several axes: their relative gaps together, and how what was learned is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fasp_core import defaults
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.learned import gains
from fasp_core.scoring.learned.gain_prompts import combined
from fasp_core.scoring.learned.gain_steps import Course
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.storage.store import Store
from tests.support.tiny import STARTS
from tests.support.words import COLORS, TableScorer, guilty_model
from tests.support.worlds import use_scorer, write_axis, write_text

GUILTY = (1, 3)
QUICK = GainsConfig(steps=2, prompts=48, windows=1, passages=0, paragraphs=0)


@pytest.fixture
def axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    use_scorer(monkeypatch, TableScorer(), complete=False)
    sides = (("person", "house", "team", "tree", "river"), ("song", "day", "book", "friend", "child"))
    found = [
        write_axis(tmp_path / f"axis-{i}.csv", nouns, ("met", "saw"), STARTS[:4], COLORS)
        for i, nouns in enumerate(sides)
    ]
    monkeypatch.setattr(defaults, "AXES", tuple(found))
    return found


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_text(tmp_path, 200, tokens=150, window=48, stride=48)


def course(axes: list[str], text: TextConfig, tmp_path: Path, config: GainsConfig = QUICK) -> Course:
    biases = [BiasConfig(axis, "valid", 60) for axis in axes]
    return Course(guilty_model(*GUILTY), biases, text, config, Store(tmp_path / "course"), None)


@pytest.mark.parametrize("across", ["mean", "worst"])
def test_the_gap_of_several_axes_is_that_of_their_relative_gaps(
    axes: list[str], text: TextConfig, tmp_path: Path, across: str
) -> None:
    config = replace(QUICK, prompts=2000, across=across)  # all of the sample, so that nothing hangs on what is drawn
    gates = torch.from_numpy(np.random.default_rng(1).uniform(0.3, 1.4, (2, 4)).astype(np.float32))
    alone, slopes = [], []
    for some in ([axes[0]], [axes[1]], axes):
        run = course(some, text, tmp_path, config)
        assert run._gap(np.random.default_rng(0)) == pytest.approx(1, rel=1e-5)
        with torch.no_grad():
            run.values.copy_(gates)
        run.values.grad = None
        alone.append(run._gap(np.random.default_rng(0)))
        assert run.values.grad is not None
        slopes.append(run.values.grad.clone())
    each = torch.tensor(alone[:2], dtype=torch.float64, requires_grad=True)
    together = combined(each, across, torch.ones(()))
    weights = torch.autograd.grad(together, each)[0].float()
    assert alone[2] == pytest.approx(float(together.detach()), rel=1e-5)
    torch.testing.assert_close(slopes[2], weights[0] * slopes[0] + weights[1] * slopes[1], atol=1e-5, rtol=1e-4)


def test_steps_see_a_share_of_each_axis(axes: list[str], text: TextConfig, tmp_path: Path) -> None:
    run = course(axes, text, tmp_path)
    parts = [axis.parts(np.random.default_rng(0), 0) for axis in run.axes]
    assert all(18 <= sum(len(part.ids) for part in some) <= 30 for some in parts)  # half of 48, in whole groups
    with pytest.raises(InputError, match="several axes are learned by the next word"):
        Course(run.lm, [BiasConfig(axis, steps=2) for axis in axes], text, QUICK, Store(tmp_path / "course"), None)


def test_what_was_learned_of_all_axes_is_found_by_that_name(axes: list[str], text: TextConfig, tmp_path: Path) -> None:
    lm, store = guilty_model(*GUILTY), Store(tmp_path / "store")
    asked = BiasConfig(defaults.ALL_AXES, "valid", 60)
    assert [one.axis for one in gains.axes_of(asked)] == axes
    found = gains.learn(lm, asked, text, QUICK, store)
    assert found.losses.shape == (2, 3)
    again = gains.find(lm.id, asked, text, QUICK, store)
    assert again is not None
    assert np.array_equal(again.path, found.path)
    (kept,) = gains.stored(lm.id, defaults.ALL_AXES, "neutral", "gains", store)
    assert np.array_equal(kept.path, found.path)
    assert gains.stored(lm.id, axes[0], "neutral", "gains", store) == []
    key = gains.gains_key(lm.id, asked, text, QUICK)
    assert key != gains.gains_key(lm.id, asked, text, replace(QUICK, across="worst"))
    assert key["axis"] == "all"
    one = gains.gains_key(lm.id, replace(asked, axis=axes[0]), text, QUICK)
    assert "across" not in one["gains"]  # what was learned before there was a choice keeps its name
