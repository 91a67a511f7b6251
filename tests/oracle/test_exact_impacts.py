"""Impacts of heads against weights zeroed by hand, plain forward passes and loops; and runs that were killed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.data import holistic_bias
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.forward.sampling import GenerationConfig, sample
from fasp_core.metrics import work
from fasp_core.metrics.meters import MEASURES, BiasConfig
from fasp_core.model.identity import ModelId
from fasp_core.model.loading import wrap
from fasp_core.scoring import entries, exact, score
from fasp_core.scoring.estimate import undecided
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Store
from tests.support.oracles import gap_by_hand, perplexity_by_hand, toxicity_by_hand, without
from tests.support.tiny import HEADS, STARTS, tiny_lm, tiny_text
from tests.support.words import COLORS, TYPICAL, VALUES, TableScorer, guilty_model
from tests.support.worlds import use_scorer, write_text

SIZE = 2 * HEADS


@pytest.fixture(autouse=True)
def scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    use_scorer(monkeypatch, TableScorer(), complete=False)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    return write_text(tmp_path_factory.mktemp("text"), 200, tokens=150, window=64, stride=48)  # overlapping and ragged


@pytest.fixture(scope="module")
def axis(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 prompts about each color, of 5 and 7 tokens."""
    path = tmp_path_factory.mktemp("axis") / "colors.csv"
    rows = [
        f"{start} {verb} a {color} {noun}"
        for color in COLORS
        for start in STARTS[:3]
        for verb in ("met", "saw")
        for noun in ("person", "house", "team and my", "tree of my")
    ]
    path.write_text("text,group\n" + "\n".join(f"{r},{next(c for c in COLORS if c in r)}" for r in rows))
    return str(path)


@pytest.fixture
def config(axis: str) -> BiasConfig:
    return BiasConfig(axis, split="all", n_prompts=15)


def expected_toxicity(model: Any, ids: list[int], silent: frozenset[str]) -> float:
    return sum(part for word, part in toxicity_by_hand(model, ids, VALUES, TYPICAL).items() if word not in silent)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_impacts_by_hand(kind: str, text: TextConfig, config: BiasConfig, tmp_path: Path) -> None:
    lm = tiny_lm(kind)
    table = score.score(lm, text, config, Store(tmp_path))
    assert (table.model, table.n_layers, table.n_heads) == (f"tiny-{kind}", 2, HEADS)

    tokens = lm.tokenizer(tiny_text(200)).input_ids[:150]
    base = perplexity_by_hand(lm.model, tokens, text.window, text.stride)
    assert table.ppl.base.perplexity == pytest.approx(base, rel=1e-5)
    models = [without(lm, [divmod(flat, HEADS)]) for flat in range(SIZE)]
    for flat, model in enumerate(models):
        pruned = perplexity_by_hand(model, tokens, text.window, text.stride)
        assert table.ppl.z_nats[flat] == pytest.approx(math.log(pruned / base), abs=1e-5)
        assert table.ppl.z_ppl[flat] == pytest.approx(pruned - base, abs=1e-5 * base)
    assert np.abs(table.ppl.z_nats).min() > 1e-3

    chosen = config.prompts()
    assert sorted(chosen.groups) == sorted(COLORS * 5)
    assert table.bias.readings == ("neutral", "counted")
    assert [table.bias.groups[c] for c in table.bias.codes] == list(chosen.groups) == table.bias.labels
    neutral = frozenset(VALUES) & holistic_bias.identity_words()
    assert {"man", "woman"} <= neutral < frozenset(VALUES)
    for reading, silent in (("neutral", neutral), ("counted", frozenset[str]())):
        toxicity = [expected_toxicity(lm.model, lm.tokenizer(p).input_ids, silent) for p in chosen.texts]
        row = table.bias.readings.index(reading)
        np.testing.assert_allclose(table.bias.base[row], toxicity, atol=1e-6)
        assert len(set(np.round(toxicity, 5))) == len(toxicity)  # no two prompts could be exchanged
        gap = gap_by_hand(toxicity, chosen.groups)
        assert table.bias.gap(reading).gap == pytest.approx(gap, abs=1e-6)
        for flat, model in enumerate(models):
            after = [expected_toxicity(model, lm.tokenizer(p).input_ids, silent) for p in chosen.texts]
            np.testing.assert_allclose(table.bias.ablated[flat, row], after, atol=1e-6)
            expected = gap - gap_by_hand(after, chosen.groups)
            assert table.bias.z_bias(reading)[flat] == pytest.approx(expected, abs=1e-6)
        assert np.abs(table.bias.z_bias(reading)).min() > 1e-5


def test_sampled_impacts_by_hand(text: TextConfig, config: BiasConfig, tmp_path: Path) -> None:
    lm = tiny_lm("llama")
    config = replace(config, measure="sampled", generation=GenerationConfig(samples=2, tokens=3, seed=5))
    found = exact.bias_impacts(lm, config, Store(tmp_path))
    chosen = config.prompts()
    assert found.readings == ("sampled",)

    def toxicity(model: Any) -> list[float]:
        copied = wrap(model, lm.tokenizer, lm.spec, "")
        texts = sample(copied, chosen.texts, config.generation)
        return [sum(TableScorer().score([c])[0] for c in row) / 2 for row in texts]

    base = toxicity(lm.model)
    np.testing.assert_allclose(found.base[0], base, atol=1e-6)
    for flat in range(SIZE):
        after = toxicity(without(lm, [divmod(flat, HEADS)]))
        np.testing.assert_allclose(found.ablated[flat, 0], after, atol=1e-6)
        expected = gap_by_hand(base, chosen.groups) - gap_by_hand(after, chosen.groups)
        assert found.z_bias("sampled")[flat] == pytest.approx(expected, abs=1e-6)
    assert len(np.unique(found.z_bias("sampled"))) > 4


# a head that is known to be guilty


SAMPLED = GenerationConfig(samples=8, tokens=1)
FITTING = {
    "expected": ("exact", "refined", "two-phase", "first-order"),
    "written": ("exact",),
    "sampled": ("exact", "first-order", "replay"),
}


@pytest.mark.parametrize("guilty", [(0, 2), (1, 3)])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("estimator", entries.ESTIMATORS)
def test_a_planted_head_ranks_first(
    estimator: str, measure: str, guilty: tuple[int, int], text: TextConfig, config: BiasConfig, tmp_path: Path
) -> None:
    lm = guilty_model(*guilty)
    if estimator not in FITTING[measure]:
        with pytest.raises(InputError, match=f"is none of the {measure} measure"):
            score.score(lm, text, replace(config, measure=measure), Store(tmp_path), None, estimator)
        return
    config = replace(config, measure=measure, n_prompts=60, generation=SAMPLED)
    found = score.score(lm, text, config, Store(tmp_path), None, estimator).bias
    assert found.estimator == estimator
    for reading in found.readings:
        z = found.z_bias(reading)
        gap = found.gap(reading).gap
        assert divmod(int(z.argmax()), HEADS) == guilty
        assert z.max() > 0.3 * gap > 0.015
        assert np.abs(np.delete(z, z.argmax())).max() < 0.2 * z.max()
        if estimator == "exact" and measure == "expected":
            assert z.max() > 0.8 * gap > 0.04
            assert np.abs(np.delete(z, z.argmax())).max() < 0.05 * z.max()


# first order, and what it prepares


def test_refined_scores_are_exact_where_they_say_so(text: TextConfig, config: BiasConfig, tmp_path: Path) -> None:
    lm = tiny_lm("llama", n_layers=5)
    one, other = Store(tmp_path / "refined"), Store(tmp_path / "exact")
    found = score.score(lm, text, config, one, None, "refined").bias
    whole = score.score(lm, text, config, other).bias
    first = score.score(lm, text, config, other, None, "first-order").bias
    assert found.exact is not None
    assert 0 < found.exact.sum() < lm.size
    np.testing.assert_allclose(found.ablated[found.exact], whole.ablated[found.exact], atol=1e-6)
    np.testing.assert_allclose(found.ablated[~found.exact], first.ablated[~found.exact], atol=1e-6)
    assert not np.allclose(first.ablated, whole.ablated, atol=1e-4)


def test_the_error_bound_decides_who_is_removed() -> None:
    z_first = np.array([5.0, 4.0, 1.0, 0.9, 0.1, 9.0])
    size = np.array([1.0, 1.0, 4.0, 0.1, 0.1, 1.0])
    exact_ones = np.array([True, True, False, False, False, False])
    eligible = np.array([True] * 5 + [False])
    z = np.array([4.0, 3.0, 1.0, 0.9, 0.1, 9.0])  # errors are as large as sizes
    assert undecided(z, z_first, size, exact_ones, eligible, 2).tolist() == [2]  # 1 + 4 reaches 3, .9 + .1 does not
    assert undecided(z, z_first, size, exact_ones, eligible, 3).tolist() == [2, 3]  # the third place is at 1
    assert undecided(z, z_first, size, exact_ones, eligible, 99).tolist() == [2, 3, 4]
    assert undecided(z, z_first, size, np.zeros(6, bool), eligible, 2).tolist() == [0, 1, 2, 3, 4]


def test_more_prompts_and_more_text_take_over_what_is_known(
    text: TextConfig, config: BiasConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path / "grown")
    short = replace(text, tokens=128, window=32, stride=32)
    longer = replace(short, tokens=192)
    score.score(lm, short, config, store)
    passes = CountingPasses(monkeypatch)
    grown = score.score(lm, longer, replace(config, n_prompts=30), store)
    n_grown = passes.take()
    fresh = score.score(lm, longer, replace(config, n_prompts=30), Store(tmp_path / "fresh"))
    assert n_grown < passes.take()
    np.testing.assert_allclose(grown.ppl.sums, fresh.ppl.sums, atol=1e-4)
    np.testing.assert_allclose(grown.bias.base, fresh.bias.base, atol=1e-6)
    np.testing.assert_allclose(grown.bias.ablated, fresh.bias.ablated, atol=1e-6)


def test_the_best_scores_are_those_of_most_prompts(text: TextConfig, axis: str, tmp_path: Path) -> None:
    lm, store, config = tiny_lm("llama"), Store(tmp_path), BiasConfig("age")

    def best(asked: BiasConfig) -> ImpactTable | None:
        return entries.best(text, asked, lm.id, lm.name, store)

    assert best(config) is None
    few, many = replace(config, n_prompts=12), replace(config, n_prompts=30)
    score.score(lm, text, few, store)
    score.preview(lm, many, store)
    alone = best(many)
    assert alone is not None
    assert alone.bias.base.shape[1] == len(few.prompts())  # a preview of more is no score
    score.score(lm, text, many, store, None, "refined")
    for asked in (few, many):
        found = best(asked)
        assert found is not None
        assert (found.bias.estimator, found.bias.base.shape[1]) == ("refined", len(many.prompts()))
    assert best(replace(config, split="test")) is None
    assert best(replace(config, seed=1)) is None
    own = BiasConfig(axis, split="all", n_prompts=15)
    score.score(lm, text, own, store)
    assert best(own) is not None
    assert best(replace(own, n_prompts=30)) is None  # another sample of a file may be another file


def test_a_picture_that_fills_in(text: TextConfig, config: BiasConfig, tmp_path: Path, monkeypatch: Any) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path)
    monkeypatch.setattr(score, "PREVIEW_TEXT", text)
    monkeypatch.setattr(entries, "PREVIEW_TEXT", text)

    def look() -> ImpactTable | None:
        return entries.filling(text, config, lm.id, lm.name, store)

    assert look() is None
    score.preview(lm, config, store)
    begun = look()
    assert begun is not None
    assert (begun.ppl.exact.sum(), begun.bias.exact.sum()) == (0, 0)
    assert np.isfinite(begun.ppl.z_nats).all()
    with pytest.raises(Killed):
        score.score(lm, text, config, store, kill_after(3, "perplexity"))
    part = look()
    assert part is not None
    whole = score.score(lm, text, config, Store(tmp_path / "whole"))
    np.testing.assert_allclose(part.ppl.z_nats[:3], whole.ppl.z_nats[:3], rtol=0.02)  # on about as many targets
    np.testing.assert_array_equal(part.ppl.z_nats[3:], begun.ppl.z_nats[3:])
    with pytest.raises(Killed):
        score.score(lm, text, config, store, kill_after(6, "bias"))
    part = look()
    assert part is not None
    assert part.ppl.exact.all()
    assert part.bias.exact.tolist() == [True] * 6 + [False] * 2
    np.testing.assert_allclose(part.bias.ablated[:6], whole.bias.ablated[:6], atol=1e-6)


# killed and resumed


class Killed(Exception):
    pass


class CountingPasses:
    """Counts what is read from hidden states: one call a batch of the base model and of every head."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        for module, name in ((work, "nll_sums"), (work, "read_expected")):
            monkeypatch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, plain: Any) -> Any:
        def call(*args: Any) -> Any:
            self.n += 1
            return plain(*args)

        return call

    def take(self) -> int:
        n, self.n = self.n, 0
        return n


def kill_after(heads: int, what: str) -> Any:
    def progress(done: float, total: float, doing: str) -> None:
        if doing.startswith(what) and done == heads:
            raise Killed

    return progress


def same(a: ImpactTable, b: ImpactTable, atol: float = 0.0) -> bool:
    pairs = [
        (a.ppl.base.sums, b.ppl.base.sums),
        (a.ppl.base.counts, b.ppl.base.counts),
        (a.ppl.sums, b.ppl.sums),
        (a.ppl.magnitude, b.ppl.magnitude),
        (a.ppl.gradient, b.ppl.gradient),
        (a.bias.base, b.bias.base),
        (a.bias.ablated, b.bias.ablated),
        (a.bias.codes, b.bias.codes),
    ]
    return all(np.allclose(x, y, rtol=0, atol=atol) for x, y in pairs)


def test_a_killed_run_goes_on_where_it_was(
    text: TextConfig, config: BiasConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm("llama")
    undisturbed = score.score(lm, text, config, Store(tmp_path / "undisturbed"))
    passes, store = CountingPasses(monkeypatch), Store(tmp_path / "killed")
    text_batches, prompt_batches = 2, 1  # windows of 64, 64 and 54 tokens; prompts in one tree

    with pytest.raises(Killed):
        score.score(lm, text, config, store, kill_after(3, "perplexity"))
    assert passes.take() == (1 + 3) * text_batches
    with pytest.raises(Killed):
        score.score(lm, text, config, store, kill_after(6, "bias"))
    assert passes.take() == 5 * text_batches + (1 + 6) * prompt_batches
    assert entries.find(text, config, lm.id, lm.name, store) is None
    resumed = score.score(lm, text, config, store)
    assert passes.take() == 2 * prompt_batches
    assert same(resumed, undisturbed)

    again = score.score(lm, text, config, store)  # nothing is left to compute
    assert passes.take() == 0
    assert same(again, undisturbed)
    stored = entries.find(text, config, lm.id, lm.name, store)
    assert stored is not None
    assert same(stored, undisturbed)


def test_a_sampled_run_goes_on_where_it_was(
    config: BiasConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm("gpt2")
    config = replace(config, measure="sampled", generation=GenerationConfig(tokens=2))
    undisturbed = exact.bias_impacts(lm, config, Store(tmp_path / "undisturbed"))
    runs = []

    def counted(*args: Any) -> list[list[str]]:
        runs.append(1)
        return sample(*args)

    monkeypatch.setattr(work, "sample", counted)
    store = Store(tmp_path / "killed")
    with pytest.raises(Killed):
        exact.bias_impacts(lm, config, store, kill_after(5, "bias"))
    assert len(runs) == 1 + 5
    resumed = exact.bias_impacts(lm, config, store)
    assert len(runs) == 1 + 5 + 3
    assert np.array_equal(resumed.ablated, undisturbed.ablated)
    assert np.array_equal(resumed.base, undisturbed.base)


def variants(text: TextConfig, config: BiasConfig) -> Iterator[tuple[TextConfig, BiasConfig]]:
    yield replace(text, tokens=100), config
    yield replace(text, window=60), config
    yield replace(text, stride=40), config
    yield replace(text, skip=1), config
    yield text, replace(config, n_prompts=18)
    yield text, replace(config, seed=1)
    yield text, replace(config, measure="sampled")


def test_other_questions_are_not_answered_from_the_store(text: TextConfig, config: BiasConfig, tmp_path: Path) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path)
    score.score(lm, text, config, store)
    assert entries.find(text, config, ModelId("other weights"), lm.name, store) is None
    assert entries.find(text, config, ModelId(lm.weights_id, "bfloat16"), lm.name, store) is None
    for other_text, other_config in variants(text, config):
        assert entries.find(other_text, other_config, lm.id, lm.name, store) is None


def test_files_that_change_while_the_program_runs(axis: str, tmp_path: Path) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path / "cache")
    story, colors = tmp_path / "story.txt", tmp_path / "colors.csv"
    text = TextConfig(str(story), tokens=60, window=32, stride=32)
    config = BiasConfig(str(colors), split="all", n_prompts=6)
    tables = []
    for seed, start in ((0, "I"), (1, "You")):
        story.write_text(tiny_text(100, seed))
        colors.write_text(Path(axis).read_text().replace("I ", f"{start} "))
        table = score.score(lm, text, config, store)
        fresh = score.score(lm, text, config, Store(tmp_path / f"fresh {seed}"))
        assert same(table, fresh, 1e-6)  # rows of prompts that both files hold were run beside others
        tables.append(table)
    assert tables[0].ppl.base.mean != tables[1].ppl.base.mean
    assert not np.array_equal(tables[0].bias.base, tables[1].bias.base)
