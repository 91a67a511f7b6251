"""Evaluations against models whose weights were set to zero, run by transformers alone, and loops over prompts."""

from __future__ import annotations

import copy
import csv
import json
import math
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fasp_core.compute.jobs import Cancelled
from fasp_core.console import to_json
from fasp_core.data.holistic_bias import identity_words
from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.evaluation import KIND, EvalConfig, Evaluation, Reading, evaluate, toxicity_of
from fasp_core.forward.sampling import GenerationConfig, sample
from fasp_core.gap import gap_stats, paired_gap_change, paired_mean_change
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import meters
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.meters import BiasConfig
from fasp_core.metrics.token_toxicity import word_values
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import wrap
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from tests.support.tiny import CONTEXT, HEAD_DIMS, HEADS, HIDDEN, STARTS, TOKENS, WORDS, tiny_lm, tiny_text

GROUPS = ("blue", "red", "tall")
NOUNS = ("man", "woman", "friend", "child")
TYPICAL = 0.04  # what most words are worth, so that it is the median
VALUES = {"stupid": 0.9, "idiot": 1.0, "fool": 0.7, "hate": 0.5, "woman": 0.6, "man": 0.3}
PRUNED = PruneSet.parse("L0H1,L1H0,L1H3")
TOKENS_RUN, WINDOW = 200, 64


class WordScorer:
    """A text is worth the mean of its words."""

    name = "table"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([np.mean([VALUES.get(w, TYPICAL) for w in t.split()]) if t.split() else 0.0 for t in texts])


class Blank:
    """Nothing is toxic."""

    name = "blank"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.zeros(len(texts))


@dataclass
class Work:
    """What an evaluation needs, in a folder of its own."""

    folder: Path
    expected: EvalConfig
    sampled: EvalConfig
    rows: list[tuple[str, str]]  # text, group

    def store(self, name: str = "store") -> Store:
        return Store(self.folder / name)


def write_csv(path: Path, rows: list[tuple[str, str]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "group"), *rows])
    return str(path)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(meters, "scorer_for", lambda source, label=None: WordScorer())
    # each token is a word of its own here; completed words have oracles of their own
    monkeypatch.setattr(meters, "word_values", partial(word_values, complete=False))
    rows = [(f"{start} met a {group} {noun}", group) for start in STARTS for noun in NOUNS for group in GROUPS]
    (tmp_path / "text.txt").write_text(tiny_text(300))
    text = TextConfig(str(tmp_path / "text.txt"), tokens=TOKENS_RUN, window=WINDOW, stride=WINDOW)
    bias = BiasConfig(write_csv(tmp_path / "own.csv", rows), split="all", n_prompts=72)
    generation = GenerationConfig(samples=2, tokens=5, seed=4)
    return Work(
        tmp_path,
        EvalConfig(bias, text),
        EvalConfig(replace(bias, measure="sampled", generation=generation), text),
        rows,
    )


@pytest.fixture
def lm() -> LanguageModel:
    return tiny_lm("llama")


def numbers(found: Evaluation) -> dict[str, Any]:
    """All that was found out about toxicity."""
    return {name: (r.base, r.pruned, r.gap, r.toxicity) for name, r in found.readings.items()}


def calls_of(lm: LanguageModel) -> list[int]:
    """Grows by one entry whenever the model is run."""
    calls: list[int] = []
    lm.model.base_model.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


# the oracle


def without(lm: LanguageModel, heads: PruneSet, kind: str) -> Any:
    """A copy of the model in which no weight leads from these heads to the output."""
    model = copy.deepcopy(lm.model)
    dim = HEAD_DIMS[kind]
    with torch.no_grad():
        for layer, head in heads:
            cut = slice(head * dim, (head + 1) * dim)
            if kind == "gpt2":
                model.transformer.h[layer].attn.c_proj.weight[cut] = 0
            else:
                model.model.layers[layer].self_attn.o_proj.weight[:, cut] = 0
    return model


@torch.no_grad()
def perplexity_by_hand(model: Any, ids: list[int]) -> float:
    nats = []
    for start in range(0, len(ids), WINDOW):
        row = ids[start : start + WINDOW]
        log_p = model(torch.tensor([row])).logits[0].double().log_softmax(-1)
        nats += [-float(log_p[t - 1, row[t]]) for t in range(1, len(row))]
    return math.exp(math.fsum(nats) / len(nats))


@torch.no_grad()
def toxicity_by_hand(model: Any, ids: list[int]) -> dict[str, float]:
    """Expected value of the next word, counted from the typical word, in both readings."""
    p = model(torch.tensor([ids])).logits[0, -1].double().softmax(-1).tolist()
    total = {"neutral": 0.0, "counted": 0.0}
    for word in WORDS:
        value = p[TOKENS.index(f"Ġ{word}")] * max(0.0, VALUES.get(word, TYPICAL) - TYPICAL) / (1 - TYPICAL)
        total["counted"] += value
        total["neutral"] += 0.0 if word in identity_words() else value
    return total


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
    whole = without(lm, PruneSet(), kind)
    before = {text: toxicity_by_hand(whole, lm.tokenizer(text).input_ids) for text, _ in work.rows}
    base = perplexity_by_hand(whole, ids)
    for heads in (PRUNED, PruneSet.of([(0, h) for h in range(HEADS)])):
        found = evaluate(lm, heads, work.expected, work.store())
        cut = without(lm, heads, kind)
        pruned = perplexity_by_hand(cut, ids)
        assert found.perplexity.base == pytest.approx(base, rel=1e-5)
        assert found.perplexity.pruned == pytest.approx(pruned, rel=1e-5)
        assert abs(pruned / base - 1) > 1e-3  # a wrong head would show
        assert found.perplexity.relative == pytest.approx(pruned / base - 1, abs=1e-5)
        assert found.perplexity.tokens == TOKENS_RUN - 4  # four windows
        low, high = found.perplexity.interval
        assert low < math.log(pruned / base) < high
        after = {text: toxicity_by_hand(cut, lm.tokenizer(text).input_ids) for text, _ in work.rows}
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
        changed = wrap(without(lm, subject, "llama"), lm.tokenizer, ModelSpec("copy", device="cpu"), "")
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


def test_both_models_get_the_same_noise(work: Work, lm: LanguageModel) -> None:
    """A head that hardly matters leaves most continuations word for word; other noise would leave almost none."""
    quiet = copy.deepcopy(lm.model)
    with torch.no_grad():
        quiet.model.layers[1].self_attn.o_proj.weight[:, : HEAD_DIMS["llama"]] *= 0.01
    lm = wrap(quiet, lm.tokenizer, lm.spec, "quiet")
    found = evaluate(lm, PruneSet.of([(1, 0)]), work.sampled, work.store())
    same = np.mean([a == b for a, b in zip(found.base.continuations, found.pruned.continuations, strict=True)])
    assert same > 0.8
    bias = replace(work.sampled.bias, generation=GenerationConfig(samples=2, tokens=5, seed=5))
    other = evaluate(lm, PruneSet(), replace(work.sampled, bias=bias), work.store())
    assert np.mean([a == b for a, b in zip(found.base.continuations, other.base.continuations, strict=True)]) < 0.1


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
        monkeypatch.setattr(meters, "scorer_for", lambda source, label=None: Blank())
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
                paired_gap_change(before, after, found.base.groups, blocks=within),
                paired_mean_change(before, after, found.base.groups, blocks=within),
            )
            same = [one == other for one, other in zip((r.base, r.pruned, r.gap, r.toxicity), wanted, strict=True)]
            assert same == 4 * [within is not None]


# what is said of it


def assert_plain(value: Any, where: str = "") -> None:
    """Only what JSON has."""
    if isinstance(value, dict):
        for key, item in value.items():
            assert type(key) is str, where
            assert_plain(item, f"{where}/{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            assert_plain(item, where)
    else:
        assert value is None or type(value) in (str, int, float, bool), where


def test_json(work: Work, lm: LanguageModel) -> None:
    found = evaluate(lm, PRUNED, work.expected, work.store())
    out = found.as_dict()
    assert_plain(out)
    assert json.loads(to_json(out)) == json.loads(json.dumps(out, allow_nan=False))
    assert out["heads"] == [[0, 1], [1, 0], [1, 3]]
    assert out["prune_set"] == "L0H1,L1H0,L1H3"
    assert out["prompts"] == 72
    assert out["perplexity"]["base"] == found.perplexity.base
    assert out["perplexity"]["tokens"] == TOKENS_RUN - 4
    for name, reading in found.readings.items():
        said = out["readings"][name]
        assert said["gap_base"] == reading.base.gap
        assert said["gap_change"] == pytest.approx(said["gap_pruned"] - said["gap_base"])
        assert said["toxicity"] == [reading.base.overall, reading.pruned.overall]
        assert {g: said["groups"][g]["n"] for g in GROUPS} == dict.fromkeys(GROUPS, 24)
    assert out["provenance"]["weights"] == lm.weights_id
    assert "continuations" not in found.as_dict(5)  # there are none to show


def test_json_of_numbers_that_do_not_exist(work: Work, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "scorer_for", lambda source, label=None: Blank())
    found = evaluate(lm, PRUNED, work.expected, work.store())
    out = json.loads(to_json(found.as_dict()), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    said = out["readings"]["neutral"]
    assert said["gap_base"] == said["gap_pruned"] == said["gap_change"] == 0
    assert said["gap_relative_change"] is None
    assert said["gap_relative_interval"] is None
    assert said["min_max_ratio"] == [None, None]


def test_side_by_side(work: Work, lm: LanguageModel) -> None:
    found = evaluate(lm, PRUNED, work.sampled, work.store())
    frame = found.side_by_side()
    change = (frame.toxicity_pruned - frame.toxicity_base).abs().tolist()
    assert change == sorted(change, reverse=True)
    assert change[0] > 0
    assert len(frame) == len(work.rows)
    place = {text: i for i, text in enumerate(found.base.texts)}
    for row in frame.to_dict("records"):
        i = place[row["prompt"]]
        assert row["group"] == found.base.groups[i]
        assert row["toxicity_base"] == found.base.values[0, i]
        assert row["toxicity_pruned"] == found.pruned.values[0, i]
        assert row["continuation_base"] == found.base.continuations[i][0]
        assert row["continuation_pruned"] == found.pruned.continuations[i][0]
    first = found.as_dict(3)["continuations"]
    assert [r["prompt"] for r in first] == frame.prompt[:3].tolist()
    assert_plain(first)
    expected = evaluate(lm, PRUNED, work.expected, work.store()).side_by_side()
    assert not [name for name in expected if str(name).startswith("continuation")]


# what cannot be done


def test_a_head_outside_the_model_is_refused_before_anything_runs(work: Work, lm: LanguageModel) -> None:
    calls = calls_of(lm)
    reports: list[float] = []
    with pytest.raises(InputError, match="L2H0 does not exist: this model has layers 0 to 1 with heads 0 to 3"):
        evaluate(lm, PruneSet.of([(0, 0), (2, 0)]), work.expected, work.store(), lambda d, t, w: reports.append(d))
    assert not calls
    assert not reports
    assert not work.store().entries(KIND)


def test_a_model_of_few_positions_gets_the_windows_that_it_takes(work: Work, lm: LanguageModel) -> None:
    """It takes half of the usual 512; asked for by name, the same windows are the same result."""
    source, store = work.expected.text.source, work.store()
    found = evaluate(lm, PRUNED, replace(work.expected, text=TextConfig(source)), store)
    assert (found.config.text.window, found.config.text.stride) == (CONTEXT, CONTEXT)
    told = found.as_dict()["perplexity"]
    assert told["windows"] == f"windows of {CONTEXT} tokens (as many as this model takes) without a beginning token"
    stored = len(store.entries(KIND))
    named = TextConfig(source, window=CONTEXT, stride=CONTEXT)
    again = evaluate(lm, PRUNED, replace(work.expected, text=named), store)
    assert again.perplexity == found.perplexity
    assert len(store.entries(KIND)) == stored


# progress and cancelling


@pytest.mark.parametrize("measure", ["expected", "sampled"])
def test_progress_never_goes_back(work: Work, lm: LanguageModel, measure: str) -> None:
    seen: list[tuple[float, float, str]] = []

    def run() -> Evaluation:
        del seen[:]
        return evaluate(lm, PRUNED, getattr(work, measure), work.store(), lambda *report: seen.append(report))

    for fresh in (True, False):  # once computed, once read
        run()
        done = [d for d, _, _ in seen]
        assert done == sorted(done)
        assert {t for _, t, _ in seen} == {4}
        assert (done[0], done[-1]) == (0, 4)
        assert len(seen) > 8 if fresh else len(seen) == 5
        for subject in ("unpruned", "pruned"):
            assert any(text.startswith(f"perplexity of the {subject} model") for _, _, text in seen)
            assert any(text.startswith(f"toxicity of the {subject} model") for _, _, text in seen)


def hooks(lm: LanguageModel) -> int:
    return sum(len(lm.out_proj(layer)._forward_pre_hooks) for layer in range(lm.n_layers))


def is_free(lock: Any) -> bool:
    """Whether another thread gets it: the thread that holds a reentrant lock always does."""
    got: list[bool] = []

    def take() -> None:
        if lock.acquire(blocking=False):
            got.append(True)
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return bool(got)


@pytest.mark.parametrize("measure", ["expected", "sampled"])
def test_cancelling_leaves_nothing_behind(work: Work, lm: LanguageModel, measure: str) -> None:
    config = getattr(work, measure)
    reports = 0
    was_masked = was_locked = False

    def count(*_: Any) -> None:
        nonlocal reports
        reports += 1

    whole = evaluate(lm, PRUNED, config, work.store("whole"), count)
    stops = range(0, reports, 3)
    for stop in stops:
        left = stop

        def report(*_: Any) -> None:
            nonlocal left, was_masked, was_locked
            left -= 1
            if left < 0:
                was_masked |= hooks(lm) > 0
                was_locked |= not is_free(lm.lock)
                raise Cancelled

        with pytest.raises(Cancelled):
            evaluate(lm, PRUNED, config, work.store(str(stop)), report)
        assert hooks(lm) == 0
        assert is_free(lm.lock)
    assert was_masked  # it was stopped while heads were off,
    assert was_locked  # and while the model was in use
    for stop in stops[:: len(stops) // 2]:  # what was stopped can be asked for again
        found = evaluate(lm, PRUNED, config, work.store(str(stop)))
        assert found.perplexity == whole.perplexity
        assert numbers(found) == numbers(whole)
