"""Scoring goes on until its ranking is sure, or says why it is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fasp_core.data.text import TextConfig
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring import score
from fasp_core.scoring.impact_table import BiasImpacts
from fasp_core.storage.store import Store
from tests.support.tiny import tiny_lm
from tests.support.worlds import use_scorer, write_axis, write_text


@pytest.fixture
def text(tmp_path: Path) -> TextConfig:
    return write_text(tmp_path, 200, tokens=150, window=64, stride=48)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BiasConfig:
    """72 prompts, of which 15 are asked for."""
    use_scorer(monkeypatch, complete=False)
    return BiasConfig(write_axis(tmp_path / "axis.csv"), split="all", n_prompts=15)


@pytest.mark.parametrize(
    ("reliability", "noise_p", "minutes", "reached", "why"),
    [
        (0.97, 0.001, 9.0, True, "Reliability 0.97"),
        (0.97, 0.4, 9.0, False, "not above noise"),
        (0.5, 0.001, 9.0, False, "prompts would be needed, and all 72 prompts of this side are used"),
        (-0.1, 0.001, 9.0, False, "do not agree at all"),
        (0.5, 0.001, 1e-9, False, "do not suffice"),
    ],
)
def test_scoring_goes_on_until_it_is_sure_or_says_why_not(
    reliability: float,
    noise_p: float,
    minutes: float,
    reached: bool,
    why: str,
    text: TextConfig,
    config: BiasConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def as_told(self: BiasImpacts, _reading: str, *_heads: Any) -> Any:
        return SimpleNamespace(whole=reliability, noise_p=noise_p)

    monkeypatch.setattr(BiasImpacts, "reliability", as_told)
    monkeypatch.setattr(BiasImpacts, "gap", as_told)
    lm, store = tiny_lm("llama"), Store(tmp_path)
    impacts, search = score.score_until(lm, text, config, store, score.Goal(0.95, minutes), None, "exact")
    assert search.reached == {"neutral": reached, "counted": reached}
    assert all(why in said for said in search.why.values())
    sizes = [r.prompts for r in search.rounds]
    assert sizes == ([15] if reached or minutes < 1 else [15, 30, 60, 72])
    assert impacts.bias.base.shape[1] == sizes[-1]


def test_prompts_that_would_be_needed() -> None:
    for n, r, target in ((100, 0.5, 0.9), (720, 0.83, 0.95)):
        needed = score._needed(n, r, target)
        ratio = needed / n  # Spearman-Brown with that many times the prompts
        assert ratio * r / (1 + (ratio - 1) * r) == pytest.approx(target, abs=0.01)
