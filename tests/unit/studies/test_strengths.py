"""Learned gains at some strengths: measured as anything else is, kept, and straight lines between."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest

from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.learned.gains import Gains
from fasp_core.scoring.learned.gates import GainsConfig
from fasp_core.storage.store import Store
from fasp_core.studies import strengths
from fasp_core.studies.strengths import Strengths
from tests.support.tiny import tiny_lm, tiny_text
from tests.support.worlds import PEOPLE, use_scorer, write_axis

Made = tuple[LanguageModel, Gains, BiasConfig, Store, Strengths]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generator[Made]:
    """A tiny model, random gains of its heads, and what they do."""
    folder = tmp_path_factory.mktemp("strengths")
    with pytest.MonkeyPatch.context() as patch:
        use_scorer(patch)
        (folder / "text.txt").write_text(tiny_text(400))
        patch.setattr(strengths, "SCORE_TEXT", TextConfig(str(folder / "text.txt"), tokens=192, window=64, stride=64))
        bias = BiasConfig(write_axis(folder / "own.csv", PEOPLE, ("met", "saw")), n_prompts=24)
        lm, store = tiny_lm("llama"), Store(folder / "store")
        gates = np.random.default_rng(0).uniform(0, 1.5, (lm.n_layers, lm.n_heads)).round(2)
        found = Gains(GainsConfig(steps=1), np.stack([np.ones_like(gates), gates]), np.ones((1, 3)), 0.1, {})
        yield lm, found, bias, store, strengths.run(lm, found, bias, store)


def test_each_strength_is_measured_as_its_set_is(made: Made) -> None:
    lm, found, bias, store, known = made
    for i, at in enumerate(known.at):
        whole = evaluate(lm, found.at(at), EvalConfig(bias, strengths.SCORE_TEXT), store)
        assert known.perplexity[i] == whole.perplexity
        for name, gaps in known.gaps.items():
            assert gaps[i].relative == pytest.approx(whole.readings[name].gap.relative, rel=1e-4)
            assert known.changes(name, at) == pytest.approx((known.perplexity[i].change_nats, gaps[i].relative))


def test_what_is_stored_is_read_without_a_model(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, found, bias, store, known = made
    monkeypatch.setattr(strengths, "CachedRunner", None)
    again = strengths.find(found, bias, lm.id, store)
    assert again is not None
    assert again.as_dict() == known.as_dict() == strengths.run(lm, found, bias, store).as_dict()
    other = replace(found, path=found.path[::-1])
    assert strengths.find(other, bias, lm.id, store) is None


def test_lines_between_and_the_error_of_one_that_is_left_out(made: Made) -> None:
    *_, known = made
    x, nats, gap = known.line("neutral").T
    assert known.changes("neutral", 0) == (0, 0)
    assert known.changes("neutral", 0.375) == pytest.approx(((nats[1] + nats[2]) / 2, (gap[1] + gap[2]) / 2))
    middle = range(1, 4)  # of strengths that are equally far apart
    assert list(x) == [0, 0.25, 0.5, 0.75, 1]
    ppl_off, gap_off = known.off("neutral")
    assert gap_off == pytest.approx(max(abs((gap[i - 1] + gap[i + 1]) / 2 - gap[i]) for i in middle))
    lines = [np.exp((nats[i - 1] + nats[i + 1]) / 2) for i in middle]
    assert ppl_off == pytest.approx(np.abs(lines - np.exp(nats[1:4])).max())
    assert "| 0.25 | " in strengths.markdown([known])
