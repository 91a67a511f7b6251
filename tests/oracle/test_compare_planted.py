"""A model in which one head is known to be guilty: comparison and choice find it, and so does the search."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import score
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.search import Heads, Problem, SearchConfig, search
from fasp_core.storage.store import Store
from fasp_core.studies.compare import compare, outcome
from fasp_core.studies.compare.outcome import ClaimConfig
from fasp_core.studies.compare.plan import Plan
from tests.support.tiny import HEADS, STARTS
from tests.support.words import COLORS, TableScorer, guilty_model
from tests.support.worlds import use_scorer

LIMIT = 0.2
ENDS = ("person", "house", "team", "tree", "team and my", "tree of my", "house of my", "person and my", "house and a")


@dataclass(frozen=True)
class World:
    """A model with its guilty head, and what it is measured on."""

    lm: LanguageModel
    guilty: int
    axis: str
    text: TextConfig
    store: Store
    impacts: ImpactTable


@pytest.fixture(scope="module", params=[(0, 2), (1, 3)], ids=["L0H2", "L1H3"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """The guilty head says "idiot" where "green" was read.

    The text repeats each word, as the model without that head expects, so the head harms it and is not critical.
    """
    folder = tmp_path_factory.mktemp("planted")
    rows = [
        f"{start} {verb} a {color} {end},{color}"
        for color in COLORS
        for start in STARTS[:3]
        for verb in ("met", "saw")
        for end in ENDS
    ]
    (folder / "axis.csv").write_text("text,group\n" + "\n".join(rows))
    words = np.random.default_rng(0).choice([*COLORS, "a", "met", "saw", *" ".join(ENDS).split()], 100)
    (folder / "text.txt").write_text(" ".join(np.repeat(words, 5)))
    text = TextConfig(str(folder / "text.txt"), tokens=150, window=64, stride=64)

    def own(config: Any, side: str = "test") -> TextConfig:
        return replace(text, tokens=150, skip=200 if side == "test" else 0)

    with pytest.MonkeyPatch.context() as patch:
        use_scorer(patch, TableScorer(), complete=False)
        patch.setattr(Plan, "text", own)
        patch.setattr(ClaimConfig, "text", own)
        lm, store, axis = guilty_model(*request.param), Store(folder), str(folder / "axis.csv")
        impacts = score.score(lm, text, BiasConfig(axis, n_prompts=60), store)
        yield World(lm, request.param[0] * HEADS + request.param[1], axis, text, store, impacts)


def test_what_validation_chooses_holds_the_guilty_head(world: World) -> None:
    plan = Plan(world.axis, gammas=(0.25, 0.5), alphas=(0.125, 0.25), seeds=2, prompts=60)
    result = compare.run(world.lm, plan, plan.candidates(world.impacts), world.store)
    fasp = compare.choose(result, "neutral", LIMIT, ["fasp"])
    best = compare.choose(result, "neutral", LIMIT)
    assert fasp is not None
    assert best is not None
    assert world.guilty in fasp.heads
    assert world.guilty in best.heads
    innocent = [c for c in result.candidates if world.guilty not in c.heads]
    assert innocent
    for side in compare.SIDES:
        fall = result.change(fasp, side, "neutral").relative
        assert fall < -0.8
        assert all(abs(result.change(c, side, "neutral").relative) < 0.1 for c in innocent)

    small = ClaimConfig(prompts=60, tokens=150, sampled_prompts=30, samples=4, length=1)
    claim = outcome.measure_claim(world.lm, world.axis, fasp, "neutral", LIMIT, world.store, config=small)
    assert claim.shown
    assert not claim.cautions()
    alone = PruneSet.from_flat([world.guilty], HEADS)
    known = evaluate(world.lm, alone, EvalConfig(small.expected(world.axis), small.text()), world.store)
    assert claim.change["neutral"].relative == pytest.approx(known.readings["neutral"].gap.relative, abs=0.1)


def test_the_search_finds_the_guilty_head(world: World) -> None:
    config = BiasConfig(world.axis, n_prompts=60)
    runner = CachedRunner(world.lm)
    base, _ = perplexity_of(world.lm, PruneSet(), world.text, world.store, None, runner)

    def measure(heads: Heads) -> tuple[float, np.ndarray]:
        subject = PruneSet.from_flat(heads, HEADS)
        nll, _ = perplexity_of(world.lm, subject, world.text, world.store, None, runner)
        return nll.mean - base.mean, toxicity_of(world.lm, subject, config, world.store, None, runner).row("neutral")

    problem = Problem.of(world.impacts, "neutral")
    innocent = tuple(head for head in range(8) if head != world.guilty)[:2]
    found = search(problem, SearchConfig("neutral", 2, LIMIT, measurements=5), measure, [innocent])
    assert found.tried[0].gap > 0.9 * found.base_gap
    assert world.guilty in found.heads
    assert found.gap < 0.2 * found.base_gap
    assert found.nats <= np.log1p(LIMIT)
