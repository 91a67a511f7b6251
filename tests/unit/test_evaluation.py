"""Evaluations against models whose weights were set to zero, run by transformers alone, and loops over prompts."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasp_core.data.holistic_bias import identity_words
from fasp_core.evaluation import Reading, evaluate
from fasp_core.forward.sampling import GenerationConfig, sample
from fasp_core.gap import gap_stats, paired_gap_changes, paired_mean_change
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import KIND, toxicity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import wrap
from fasp_core.model.spec import ModelSpec
from tests.support.oracles import perplexity_by_hand, toxicity_by_hand, without
from tests.support.tiny import HEAD_DIMS, HEADS, HIDDEN, tiny_lm, tiny_text
from tests.support.worlds import (
    GROUPS,
    PRUNED,
    TOKENS_RUN,
    TYPICAL,
    VALUES,
    WINDOW,
    Blank,
    WordScorer,
    Work,
    calls_of,
    numbers,
    use_scorer,
    work_in,
    write_csv,
)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    return work_in(tmp_path, monkeypatch)


@pytest.fixture
def lm() -> LanguageModel:
    return tiny_lm("llama")


# the oracle


def both_readings(model: Any, ids: list[int]) -> dict[str, float]:
    parts = toxicity_by_hand(model, ids, VALUES, TYPICAL)
    masked = math.fsum(part for word, part in parts.items() if word not in identity_words())
    return {"neutral": masked, "counted": math.fsum(parts.values())}


def check_gaps(found: Reading, before: dict[str, float], after: dict[str, float], rows: list[tuple[str, str]]) -> None:
    """Everything that is said of the groups, from the toxicity of each text."""
    gaps = []
    for toxicity, side in ((before, found.base), (after, found.pruned)):
        overall = sum(toxicity[text] for text, _ in rows) / len(rows)
        means = {}
        for group in GROUPS:
            of_group = [toxicity[text] for text, g in rows if g == group]
            means[group] = sum(of_group) / len(of_group)
        gaps.append(sum(abs(overall - mean) for mean in means.values()))
        assert side.group_means == pytest.approx(means, abs=1e-6)
        assert side.group_sizes == dict.fromkeys(GROUPS, len(rows) // len(GROUPS))
        assert side.overall == pytest.approx(overall, abs=1e-6)
        assert side.gap == pytest.approx(gaps[-1], abs=1e-6)
    assert found.gap.change == pytest.approx(gaps[1] - gaps[0], abs=1e-6)
    assert found.gap.relative == pytest.approx(gaps[1] / gaps[0] - 1, rel=1e-2)
    assert found.gap.interval is not None
    assert found.gap.interval[0] < found.gap.change < found.gap.interval[1]
    assert found.toxicity.change == pytest.approx(found.pruned.overall - found.base.overall)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_expected_measure_against_weights_set_to_zero(work: Work, kind: str) -> None:
    lm = tiny_lm(kind)
    assert {"man", "woman"} <= identity_words()
    ids = lm.tokenizer(tiny_text(300)).input_ids[:TOKENS_RUN]
    whole = without(lm, ())
    before = {text: both_readings(whole, lm.tokenizer(text).input_ids) for text, _ in work.rows}
    base = perplexity_by_hand(whole, ids, WINDOW, WINDOW)
    for heads in (PRUNED, PruneSet.of([(0, h) for h in range(HEADS)])):
        found = evaluate(lm, heads, work.expected, work.store())
        cut = without(lm, heads)
        pruned = perplexity_by_hand(cut, ids, WINDOW, WINDOW)
        assert found.perplexity.base == pytest.approx(base, rel=1e-5)
        assert found.perplexity.pruned == pytest.approx(pruned, rel=1e-5)
        assert abs(pruned / base - 1) > 1e-3  # a wrong head would show
        assert found.perplexity.relative == pytest.approx(pruned / base - 1, abs=1e-5)
        assert found.perplexity.tokens == TOKENS_RUN - 4  # four windows
        low, high = found.perplexity.interval
        assert low < math.log(pruned / base) < high
        after = {text: both_readings(cut, lm.tokenizer(text).input_ids) for text, _ in work.rows}
        for name in ("neutral", "counted"):
            sides = [{text: values[name] for text, values in side.items()} for side in (before, after)]
            check_gaps(found.readings[name], sides[0], sides[1], work.rows)
            for side, expected in zip((found.base, found.pruned), sides, strict=True):
                assert dict(zip(side.texts, side.row(name), strict=True)) == pytest.approx(expected, abs=1e-6)
                assert sorted(zip(side.texts, side.groups, strict=True)) == sorted(work.rows)
    assert found.readings["neutral"].base.gap != pytest.approx(found.readings["counted"].base.gap, rel=0.01)


def test_sampled_measure_against_weights_set_to_zero(work: Work, lm: LanguageModel) -> None:
    found = evaluate(lm, PRUNED, work.sampled, work.store())
    assert list(found.readings) == ["sampled"]
    texts = [text for text, _ in work.rows]
    toxicity = []
    for subject, side in ((PruneSet(), found.base), (PRUNED, found.pruned)):
        changed = wrap(without(lm, subject), lm.tokenizer, ModelSpec("copy", device="cpu"), "")
        written = dict(zip(texts, sample(changed, texts, work.sampled.bias.generation), strict=True))
        assert {t: list(c) for t, c in zip(side.texts, side.continuations, strict=True)} == written
        toxicity.append({text: float(np.mean(WordScorer().score(written[text]))) for text in texts})
        assert dict(zip(side.texts, side.values[0], strict=True)) == pytest.approx(toxicity[-1])
    check_gaps(found.readings["sampled"], toxicity[0], toxicity[1], work.rows)
    assert found.base.continuations != found.pruned.continuations


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_is_removed(work: Work, kind: str) -> None:
    lm = tiny_lm(kind)
    found = evaluate(lm, PRUNED, work.expected, work.store())
    assert found.heads_removed == 3
    assert found.parameters == sum(p.numel() for p in lm.model.parameters())
    own = HIDDEN * HEAD_DIMS[kind]  # keys and values of this llama serve two heads each and stay
    assert found.parameters_removed == 3 * own * (4 if kind == "gpt2" else 2)
    assert found.prune_set == PRUNED
    assert found.config == work.expected


# nothing removed


@pytest.mark.parametrize("measure", ["expected", "sampled"])
def test_removing_nothing_changes_nothing(work: Work, lm: LanguageModel, measure: str) -> None:
    found = evaluate(lm, PruneSet(), getattr(work, measure), work.store())
    p = found.perplexity
    assert (p.change, p.change_nats, p.relative) == (0, 0, 0)
    assert p.interval[0] <= 0 <= p.interval[1]
    assert p.ppl_interval[0] <= p.base <= p.ppl_interval[1]
    for reading in found.readings.values():
        for change in (reading.gap, reading.toxicity):
            assert change.change == 0
            assert change.relative == 0
            assert change.interval is not None
            assert change.interval[0] <= 0 <= change.interval[1]
        assert reading.base == reading.pruned
    assert found.base.continuations == found.pruned.continuations
    assert bool(found.base.continuations) == (measure == "sampled")
    assert (found.heads_removed, found.parameters_removed) == (0, 0)


# sampling


def test_the_seed_decides_the_continuations(work: Work, lm: LanguageModel) -> None:
    one, same = (evaluate(lm, PRUNED, work.sampled, work.store(name)) for name in ("one", "two"))
    assert one.base.continuations == same.base.continuations
    assert one.pruned.continuations == same.pruned.continuations
    np.testing.assert_array_equal(one.pruned.values, same.pruned.values)
    assert one.readings["sampled"].gap == same.readings["sampled"].gap
    bias = replace(work.sampled.bias, generation=GenerationConfig(samples=2, tokens=5, seed=5))
    other = evaluate(lm, PRUNED, replace(work.sampled, bias=bias), work.store("one"))
    assert other.base.continuations != one.base.continuations
    assert other.pruned.continuations != one.pruned.continuations


# the store


def test_what_was_measured_is_not_run_again(work: Work, lm: LanguageModel) -> None:
    calls = calls_of(lm)
    first = evaluate(lm, PRUNED, work.expected, work.store())
    whole = len(calls)
    assert whole > 0
    again = evaluate(lm, PRUNED, work.expected, work.store())  # as another process would
    assert len(calls) == whole
    assert again.perplexity == first.perplexity
    assert numbers(again) == numbers(first)
    np.testing.assert_array_equal(again.pruned.values, first.pruned.values)

    other = evaluate(lm, PruneSet.parse("L0H0-2"), work.expected, work.store())  # the unpruned model is known
    assert len(calls) == whole + whole // 2
    assert other.perplexity.base == first.perplexity.base
    assert other.perplexity.pruned != first.perplexity.pruned
    np.testing.assert_array_equal(other.base.values, first.base.values)
    assert not np.allclose(other.pruned.values, first.pruned.values)
    evaluate(lm, PruneSet(), work.expected, work.store())
    assert len(calls) == whole + whole // 2

    del calls[:]
    evaluate(lm, PRUNED, work.sampled, work.store())  # so is the perplexity of both
    sampled = len(calls)
    assert sampled > 0
    same = evaluate(lm, PRUNED, work.sampled, work.store())
    assert len(calls) == sampled
    assert all(len(c) == 2 for c in same.pruned.continuations)
    assert len(work.store().entries(KIND)) == 3 + 3 + 2  # three sets, two measures, the second of two sets


@pytest.mark.parametrize("changed", ["weights", "text", "prompts", "scorer"])
def test_another_setting_is_measured_anew(
    work: Work, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    first = evaluate(lm, PRUNED, work.expected, work.store())
    config = work.expected
    if changed == "weights":
        lm = tiny_lm("llama", seed=1)
    elif changed == "text":
        (work.folder / "other.txt").write_text(tiny_text(300, seed=5))
        config = replace(config, text=replace(config.text, source=str(work.folder / "other.txt")))
    elif changed == "prompts":
        config = replace(config, bias=replace(config.bias, n_prompts=36))
    else:
        use_scorer(monkeypatch, Blank())
    other = evaluate(lm, PRUNED, config, work.store())
    assert (other.perplexity != first.perplexity) == (changed in ("weights", "text"))
    assert (numbers(other) != numbers(first)) == (changed != "text")


def test_a_file_whose_rows_stand_in_another_order(work: Work, lm: LanguageModel) -> None:
    """The same prompts are the same measurement, and each value stays with its own prompt and group."""
    first = evaluate(lm, PRUNED, work.expected, work.store())
    turned = write_csv(work.folder / "turned.csv", work.rows[::-1])
    config = replace(work.expected, bias=replace(work.expected.bias, axis=turned))
    second = evaluate(lm, PRUNED, config, work.store())
    for one, two in ((first.base, second.base), (first.pruned, second.pruned)):
        values = dict(zip(one.texts, one.row("neutral"), strict=True))
        assert dict(zip(two.texts, two.row("neutral"), strict=True)) == pytest.approx(values, abs=1e-6)
    before, after = (found.readings["neutral"].base.group_means for found in (first, second))
    assert after == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("measure", ["expected", "sampled"])
def test_values_of_rows_in_another_order_are_set_aside_and_measured_again(
    work: Work, lm: LanguageModel, measure: str
) -> None:
    """An entry holds values alone: it is refused where its prompts stand otherwise now. Older entries do not say."""
    store, older, config = work.store(), work.store("older"), getattr(work, measure).bias
    first = toxicity_of(lm, PRUNED, config, store)
    (entry,) = store.entries(KIND)
    entry = store.load(KIND, entry.config) or entry
    tables = {"continuations": entry.table("continuations")} if measure == "sampled" else {}
    meta = {name: value for name, value in entry.meta.items() if name != "rows"}
    assert len(meta) < len(entry.meta)
    older.save(KIND, entry.config, arrays={"values": first.values}, tables=tables, meta=meta)

    calls = calls_of(lm)
    np.testing.assert_array_equal(toxicity_of(lm, PRUNED, config, older).values, first.values)
    assert not calls
    backwards = {"values": first.values[..., ::-1].copy()}
    shutil.rmtree(entry.path)
    store.save(KIND, entry.config, arrays=backwards, tables=tables, meta={**meta, "rows": "of another order"})
    second = toxicity_of(lm, PRUNED, config, store)
    assert calls
    assert len(list((store.root / "damaged").iterdir())) == 1
    assert second.texts == first.texts
    np.testing.assert_array_equal(second.values, first.values)
    made = len(calls)
    toxicity_of(lm, PRUNED, config, store)
    assert len(calls) == made


# with a desk


@pytest.mark.parametrize("measure", ["expected", "sampled"])
def test_a_desk_changes_no_number(work: Work, lm: LanguageModel, measure: str) -> None:
    config, runner = getattr(work, measure), CachedRunner(lm)
    seen: list[tuple[float, float, str]] = []
    for spec in ("L0H1,L1H0,L1H3", "L0H1,L1H0", "L1H0", "", "L0H0-3"):
        heads = PruneSet.parse(spec)
        plain = evaluate(lm, heads, config, work.store("plain"))
        del seen[:]
        found = evaluate(lm, heads, config, work.store("desk"), lambda *report: seen.append(report), runner)
        assert found.perplexity == plain.perplexity
        assert numbers(found) == numbers(plain)
        assert found.pruned.continuations == plain.pruned.continuations
        done = [d for d, _, _ in seen]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, 4)


def test_a_desk_goes_on_from_the_pruned_model(work: Work, lm: LanguageModel) -> None:
    ran: list[int] = []
    for layer, block in enumerate(lm.blocks):
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    runner = CachedRunner(lm)
    evaluate(lm, PRUNED, work.expected, work.store(), runner=runner)
    whole = len(ran)
    del ran[:]
    evaluate(lm, PRUNED.toggled((1, 1)), work.expected, work.store(), runner=runner)
    assert set(ran) == {1}
    assert 4 * len(ran) == whole  # one of two layers, and one of two models


# blocks of prompts


def test_prompts_are_compared_in_their_blocks(work: Work, lm: LanguageModel) -> None:
    config = replace(work.expected, bias=BiasConfig("sexual_orientation", n_prompts=24))
    found = evaluate(lm, PRUNED, config, work.store())
    blocks = found.base.blocks
    assert blocks == config.bias.prompts().blocks
    assert len(blocks) == len(found.base.texts)
    for name, r in found.readings.items():
        before, after = found.base.row(name), found.pruned.row(name)
        for within in (blocks, None):
            wanted = (
                gap_stats(before, found.base.groups, blocks=within),
                gap_stats(after, found.base.groups, blocks=within),
                paired_gap_changes(before, [after], found.base.groups, blocks=within)[0],
                paired_mean_change(before, after, found.base.groups, blocks=within),
            )
            same = [one == other for one, other in zip((r.base, r.pruned, r.gap, r.toxicity), wanted, strict=True)]
            assert same == 4 * [within is not None]
