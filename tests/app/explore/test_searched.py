"""The joint search as a method of the page "Explore heads": offered, running, cancelled, found."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.spec import BUILT_IN_SHAPE, ModelSpec
from fasp_core.scoring.search import Found, SearchConfig, Tried
from fasp_core.studies.compare import searching
from fasp_core.studies.compare.limits import Limits
from pages.backend.engine import engine
from pages.backend.requests import Experiment
from tests.support.fakes import Studio
from tests.support.running import AXIS, N_HEADS, change, exploring, labels, metric, press, removed, run, said

SIZE = BUILT_IN_SHAPE[0] * N_HEADS
CONFIG = SearchConfig(max_heads=5, max_ppl=0.1, measurements=40)  # alpha .02
LABEL = "No search yet for up to 5 heads at 10% more perplexity"


@pytest.fixture
def studio(studio: Studio) -> Studio:
    studio.add_scores(AXIS)
    return studio


def keep(studio: Studio, heads: tuple[int, ...], gap: float, config: SearchConfig = CONFIG) -> None:
    """A finished search in the store."""
    weights = studio.load(ModelSpec()).id
    prompts = BiasConfig(AXIS)
    tried = [Tried(heads or (1,), 0.01, gap, 0.004), Tried((0, 1), 0.5, 0.001, 0.002)]
    table = pd.DataFrame(
        {
            "heads": [" ".join(map(str, t.heads)) for t in tried],
            "nats": [t.nats for t in tried],
            "gap": [t.gap for t in tried],
            "predicted": [t.predicted for t in tried],
        }
    )
    studio.store.save(
        searching.KIND,
        searching._key(weights, prompts, config, searching.TOKENS),
        tables={"tried": table},
        meta={"heads": heads, "gap": gap, "nats": 0.01, "base_gap": 0.008, "provenance": {}},
    )


def test_without_a_search_it_is_offered_and_nothing_is_pruned(studio: Studio) -> None:
    at = exploring(method="search", alpha=0.02)
    assert [s.value for s in at.subheader] == [LABEL]
    assert removed(at) == 0
    assert at.get_by_key("gamma").disabled


def test_a_stored_search_is_what_is_pruned_and_measured(studio: Studio) -> None:
    keep(studio, (3, 12, 40, 77, 200), 0.004)
    keep(
        studio, (3, 12, 40, 77, 201), 0.003, SearchConfig(max_heads=5, max_ppl=0.08, measurements=40, seed=1)
    )  # stricter
    keep(studio, (9,), 0.0001, SearchConfig(max_heads=5, max_ppl=0.2, measurements=40))  # a limit that is not kept to
    studio.at_once()
    at = exploring(method="search", alpha=0.02)
    assert removed(at) == 5
    assert "the best of 2 searches: of 4 measured sets" in said(at)
    assert "3.00 after 8.00" in said(at)
    asked = {heads for heads, _ in studio.asked}
    assert PruneSet.from_flat((3, 12, 40, 77, 201), N_HEADS) in asked
    assert removed(change(at, limit=20)) == 1
    assert not at.subheader
    assert [s.value for s in change(at, limit=5).subheader] == [LABEL.replace("10%", "5%")]
    assert metric(change(at, alpha=0.0), "Removed").value.startswith("0 of")


def test_limits_on_tasks_ask_for_a_search_within_them(studio: Studio) -> None:
    keep(studio, (3, 12, 40, 77, 200), 0.004)
    limits = Limits(0.1, lambada_points=2.0)
    at = exploring(method="search", alpha=0.02, lambada_points=2.0)
    assert removed(at) == 0  # what was found within perplexity alone may break the other limit
    assert [s.value for s in at.subheader] == [f"{LABEL} and within the limits on tasks"]
    assert f"It keeps to {limits.text()}" in said(at)
    keep(studio, (3, 12, 40), 0.006, searching.limited(CONFIG, limits))
    assert removed(run(at)) == 3
    assert f"{limits.text()}. It was chosen on validation" in said(at)
    assert removed(change(at, lambada_points=3.0)) == 3  # a stricter search
    assert removed(change(at, lambada_points=1.0)) == 0
    assert removed(change(at, lambada_points=2.0, task_points=5.0)) == 0
    assert removed(change(at, lambada_points=0.0, task_points=0.0)) == 5


def test_a_search_that_found_nothing_says_so(studio: Studio) -> None:
    keep(studio, (), 0.008)
    at = exploring(method="search", alpha=0.02)
    assert removed(at) == 0
    assert "No set within the limits has a smaller validation gap (2 sets measured)." in said(at)


def test_a_search_by_the_offline_scorer_is_none_by_another(studio: Studio, judge: str) -> None:
    keep(studio, (3, 12, 40, 77, 200), 0.004)
    at = exploring(method="search", alpha=0.02, scorer=judge)
    assert removed(at) == 0
    assert "Joint searches are of the offline scorer" in said(at)
    assert "Search" not in labels(at)


def test_a_search_runs_in_the_background(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SearchConfig] = []

    def search(_lm: Any, _table: Any, axis: str, config: SearchConfig, _store: Any, progress: Any) -> Found:
        asked.append(config)
        progress(1, 46, "search: set 2 of 46")
        studio._run(progress)
        keep(studio, (3, 4), 0.004)
        return Found(config, (), 0.0, 0.0, 0.0, ())

    monkeypatch.setattr(searching, "run", search)
    studio.open.clear()
    at = press(
        exploring(method="search", alpha=0.02),
        next(b.key for b in exploring(method="search").button if b.label == "Search"),
    )
    (job,) = [job for job in engine().jobs() if isinstance(job.key, Experiment)]
    assert any(b.label == "Cancel" for b in at.button)
    press(at, next(b.key for b in at.button if b.label == "Cancel"))
    job.wait(20)
    assert job.state == "cancelled"
    assert asked == [CONFIG]
