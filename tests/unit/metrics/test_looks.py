"""What is known of a set before its sample is whole: paired, at random blocks, without a trace in what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.compute.jobs import Cancelled, Lane
from fasp_core.data.text import TextConfig, token_windows
from fasp_core.evaluation import EvalConfig, Evaluation, evaluate
from fasp_core.gap import anytime, gap, group_codes
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import cached_runner
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.looks import SoFar, complete_blocks
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from tests.support.tiny import tiny_lm

HEADS = PruneSet.of([(0, 1), (1, 0)])
CONFIG = EvalConfig(BiasConfig("race_ethnicity", n_prompts=450), TextConfig(tokens=400, window=100, stride=100))


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("llama")


def measured(lm: LanguageModel, folder: Path, show: Any = None, heads: PruneSet = HEADS) -> Evaluation:
    return evaluate(lm, heads, CONFIG, Store(folder), runner=CachedRunner(lm), show=show)


def test_looks_change_nothing_of_what_is_measured(lm: LanguageModel, tmp_path: Path) -> None:
    shown: list[SoFar] = []
    looked, plain = measured(lm, tmp_path / "a", shown.append), measured(lm, tmp_path / "b")
    assert np.array_equal(looked.pruned.values, plain.pruned.values)
    assert looked.perplexity == plain.perplexity
    assert {p.name for p in (tmp_path / "a").glob("*/*")} == {p.name for p in (tmp_path / "b").glob("*/*")}

    first, last = shown[0], shown[-1]
    assert first.perplexity is None
    assert set(first.gaps) == set(plain.readings)
    assert first.gaps["neutral"].done == 9 * anytime.FIRST
    assert last.gaps["neutral"].done == 9 * 2 * anytime.FIRST
    assert last.perplexity is not None
    assert last.perplexity.done == last.perplexity.total
    assert last.perplexity.pruned == pytest.approx(plain.perplexity.pruned)
    ends = [part.perplexity.interval for part in shown if part.perplexity is not None]
    assert ends[0] is None  # of a window of two blocks nothing can be said yet
    assert all(end is None or end[1] < 1e6 for end in ends)
    tokens = [part.perplexity.done for part in shown if part.perplexity is not None]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) >= 3
    assert all(part.gaps["neutral"].base == pytest.approx(plain.readings["neutral"].base.gap) for part in shown)


def test_a_look_is_what_the_whole_measurement_says_of_its_blocks(lm: LanguageModel, tmp_path: Path) -> None:
    shown: list[SoFar] = []
    whole = measured(lm, tmp_path, shown.append)
    codes, _ = group_codes(whole.base.groups)
    at = complete_blocks(whole.base.groups, whole.base.blocks)
    for r, reading in enumerate(whole.base.readings):
        base, pruned = whole.base.values[r], whole.pruned.values[r]
        expected = anytime.partial_gap(base, codes, at, pruned[at[: anytime.FIRST]], first=True)
        found = shown[0].gaps[reading]
        assert found.pruned == pytest.approx(expected.pruned, rel=1e-4)
        assert found.interval == pytest.approx(expected.interval, rel=1e-3, abs=1e-5)
        everything = anytime.partial_gap(base, codes, at, pruned[at])
        assert everything.pruned == pytest.approx(gap(pruned, codes), rel=1e-9)
        assert everything.done == len(codes)


@pytest.mark.parametrize(
    ("stride", "blocks", "first"),
    [(256, 1, {65}), (256, 2, {129}), (256, 3, {256}), (128, 1, {65, 192}), (128, 2, {256})],
)
def test_the_beginning_of_a_window_is_told_first_where_it_is_half_of_it(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, stride: int, blocks: int, first: set[int]
) -> None:
    """Its blocks are those of the whole text, whose numbers stay as they are."""
    monkeypatch.setattr(cached_runner, "BEGIN", blocks)
    windows = token_windows(lm, TextConfig(tokens=1024, window=256, stride=stride))
    told, lengths = list[tuple[np.ndarray, np.ndarray]](), list[int]()
    embedding: Any = lm.model.get_input_embeddings()
    with embedding.register_forward_pre_hook(lambda _module, inputs: lengths.append(inputs[0].shape[1])):
        whole = CachedRunner(lm).nll(windows, HEADS, seen=lambda *found: told.append(found))
    plain = CachedRunner(lm).nll(windows, HEADS)
    assert np.array_equal(whole.sums, plain.sums)
    assert lengths[0] in first
    assert (begun := lengths[0] < 256) == (first != {256})
    for at, sums in told:
        assert sums == pytest.approx(plain.sums[at], rel=1e-5)
    assert len(told[0][0]) == blocks or not begun
    assert sorted(np.concatenate([at for at, _ in told[begun:]])) == list(range(len(plain.sums)))


def test_what_is_stored_is_not_looked_at_again(lm: LanguageModel, tmp_path: Path) -> None:
    measured(lm, tmp_path)
    shown: list[SoFar] = []
    measured(lm, tmp_path, shown.append)
    assert all(not part.gaps for part in shown)
    measured(lm, tmp_path, shown.append, PruneSet())
    assert all(not part.gaps for part in shown)


def test_prompts_in_no_blocks_and_blocks_without_a_group_are_not_looked_at() -> None:
    assert complete_blocks(("a", "b", "a"), ()).shape == (0, 2)
    assert sorted(complete_blocks(("b", "a", "a", "a", "b"), (1, 1, 2, 3, 3)).tolist()) == [[1, 0], [3, 4]]


def test_a_job_shows_what_it_knows_and_keeps_it_when_it_is_overtaken() -> None:
    lane = Lane()

    def work(progress: Any) -> int:
        progress.show(SoFar())
        while True:
            progress(0, 1)

    job = lane.submit("a", work, owner="reader")
    assert job.so_far is None or job.so_far == SoFar()
    while job.so_far is None:
        pass
    lane.submit("b", lambda progress: 2, owner="reader").wait(5)
    assert job.wait(5)
    assert job.state == "cancelled"
    assert job.so_far == SoFar()
    with pytest.raises(Cancelled):
        assert job.result
