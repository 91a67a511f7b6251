"""Gaps within templates against a loop over templates, and against effects that are known."""

from __future__ import annotations

import numpy as np
import pytest

from fasp_core.errors import InputError
from fasp_core.gap import PromptRows
from fasp_core.gap.within import within_templates

GROUPS = ("a", "b", "c")


def made(templates: int, blocks: int, effect: np.ndarray, noise: float, seed: int = 0) -> tuple[PromptRows, list[str]]:
    """Values [2, n]: a template's own level, an effect [2, templates, 3] of the groups in it, and noise."""
    rng = np.random.default_rng(seed)
    t, b, g = (x.ravel() for x in np.meshgrid(*map(np.arange, (templates, blocks, 3)), indexing="ij"))
    level = rng.normal(size=(templates, blocks))
    values = level[t, b] + effect[:, t, g] + noise * rng.normal(size=(2, t.size))
    return PromptRows.of(values, [GROUPS[i] for i in g], t * blocks + b), [f"t{i}" for i in t]


def test_the_mean_over_templates_by_a_loop() -> None:
    rng = np.random.default_rng(1)
    rows, templates = made(5, 3, rng.normal(size=(2, 5, 3)), 0.3)
    found = within_templates(rows, templates, resamples=50)
    for m in range(2):
        for t, name in enumerate(found.templates):
            here = [i for i, of in enumerate(templates) if of == name]
            mean = np.mean([rows.values[m, i] for i in here])
            each = [np.mean([rows.values[m, i] for i in here if rows.labels[i] == g]) for g in GROUPS]
            assert found.gaps[m, t] == pytest.approx(sum(abs(mean - x) for x in each))
    assert found.means == pytest.approx(found.gaps.mean(1))
    assert found.changes[0].change == pytest.approx(found.means[1] - found.means[0])


def test_signs_that_cancel_between_templates_count_within_them() -> None:
    """Half of the templates favour a group by as much as the others hold it back: pooled there is nothing to see."""
    effect = np.zeros((2, 8, 3))
    effect[0, ::2, 0], effect[0, 1::2, 0] = 1, -1
    effect[1] = effect[0] / 2
    rows, templates = made(8, 4, effect, 0.01)
    found = within_templates(rows, templates)
    assert rows.gaps()[0] < 0.02
    assert found.means == pytest.approx([4 / 3, 2 / 3], abs=0.02)
    assert found.changes[0].relative == pytest.approx(-0.5, abs=0.02)
    assert found.changes[0].relative_interval[1] < -0.45  # type: ignore[index]
    assert found.noise[1][0] < 0.01


def test_noise_alone_is_called_noise() -> None:
    """Without any effect the gap is that of shuffled labels, and its change is as often a rise as a fall."""
    p, inside = [], 0
    for seed in range(60):
        rows, templates = made(10, 3, np.zeros((2, 10, 3)), 1.0, seed)
        found = within_templates(rows, templates, resamples=200)
        p.append(found.noise[1][0])
        low, high = found.changes[0].interval  # type: ignore[misc]
        inside += low <= 0 <= high
        assert found.means[0] == pytest.approx(found.noise[0][0], rel=0.5)
    assert np.mean(np.array(p) <= 0.05) <= 0.12
    assert 0.35 < np.mean(p) < 0.65
    assert inside >= 52


@pytest.mark.parametrize(("templates", "high", "low"), [(5, 0.3, 0.1), (7, 0.7, 0.2), (7, 1.0, 0.0)])
def test_shuffles_that_change_nothing_are_ties(templates: int, high: float, low: float) -> None:
    """Two blocks of two groups, alike in every template: half of the shuffles of a template change no gap."""
    t = np.repeat(np.arange(templates), 4)
    rows = PromptRows.of(
        np.tile([high, low], (2, 2 * templates)), ["a", "b"] * 2 * templates, 2 * t + np.tile([0, 0, 1, 1], templates)
    )
    p = within_templates(rows, [f"t{i}" for i in t], resamples=4000).noise[1][0]
    assert p == pytest.approx(2.0**-templates, rel=0.5)


def test_intervals_hold_what_other_templates_would_show() -> None:
    """Templates are drawn from many whose effects are known: 95% intervals hold their mean change."""
    hits, rng = 0, np.random.default_rng(5)
    for seed in range(100):
        size = rng.gamma(4, 0.25, size=16)
        effect = np.zeros((2, 16, 3))
        effect[0, :, 0], effect[1, :, 0] = size, 0.4 * size
        rows, templates = made(16, 2, effect, 0.001, seed)
        low, high = within_templates(rows, templates, resamples=300).changes[0].interval  # type: ignore[misc]
        hits += low <= -0.6 * 4 / 3 <= high
    assert 88 <= hits <= 100


def test_templates_that_lack_a_group_are_left_out() -> None:
    rows, templates = made(3, 2, np.zeros((2, 3, 3)), 1.0)
    keep = [i for i, t in enumerate(templates) if not (t == "t2" and rows.labels[i] == "c" and i % 2)]
    part = PromptRows.of(rows.values[:, keep], [rows.labels[i] for i in keep])
    found = within_templates(part, [templates[i] for i in keep], resamples=20)
    assert found.templates == ("t0", "t1")
    assert found.n == 12
    with pytest.raises(InputError, match="1 templates hold"):
        within_templates(rows, ["t0" if t == "t0" else "" for t in templates])
