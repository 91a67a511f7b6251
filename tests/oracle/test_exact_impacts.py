"""Impacts of heads against weights zeroed by hand, plain forward passes and loops; and runs that were killed."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fasp_core import measures, prompts
from fasp_core.generation import GenerationConfig, sample
from fasp_core.impacts import exact
from fasp_core.impacts.table import ImpactTable
from fasp_core.measures import BiasConfig
from fasp_core.models import LanguageModel, wrap
from fasp_core.store import Store
from fasp_core.text import TextConfig
from tests.tiny import HEADS, STARTS, TOKENS, WORDS, tiny_lm, tiny_text

SIZE = 2 * HEADS
VALUES = {"stupid": 0.9, "idiot": 1.0, "fool": 0.7, "hate": 0.5, "ugly": 0.6, "man": 0.4, "woman": 0.3}
TYPICAL = 0.05
COLORS = ("red", "green", "blue")


class TableScorer:
    name = "table of words"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([max((VALUES.get(w, TYPICAL) for w in text.split()), default=0.0) for text in texts])


@pytest.fixture(autouse=True)
def scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "scorer_for", lambda _source, _label=None: TableScorer())


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text(tiny_text(200))
    return TextConfig(str(path), tokens=150, window=64, stride=48)  # overlapping, the last window ragged


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


OUT_PROJ = {"gpt2": "transformer.h.{}.attn.c_proj", "llama": "model.layers.{}.self_attn.o_proj"}


def without(lm: LanguageModel, kind: str, flat: int) -> Any:
    """A copy of the model with one head's rows or columns of the output projection at zero."""
    model = copy.deepcopy(lm.model)
    layer, head = divmod(flat, HEADS)
    weight = model.get_submodule(OUT_PROJ[kind].format(layer)).weight.data
    part = slice(8 * head, 8 * head + 8)
    weight[part if kind == "gpt2" else (slice(None), part)] = 0
    return model


@torch.no_grad()
def perplexity_by_hand(model: Any, tokens: list[int], config: TextConfig) -> float:
    total, count, scored_to = 0.0, 0, 1
    for start in range(0, len(tokens), config.stride):
        row = tokens[start : start + config.window]
        log_p = model(torch.tensor([row])).logits[0].double().log_softmax(-1)
        for t in range(max(1, scored_to - start), len(row)):
            total -= float(log_p[t - 1, row[t]])
            count += 1
        scored_to = start + len(row)
        if scored_to == len(tokens):
            break
    return math.exp(total / count)


@torch.no_grad()
def toxicity_by_hand(model: Any, tokenizer: Any, prompt: str, silent: frozenset[str]) -> float:
    p = model(torch.tensor([tokenizer(prompt).input_ids])).logits[0, -1].double().softmax(-1).tolist()
    floor = median(VALUES.get(word, TYPICAL) for word in WORDS)
    return sum(
        p[TOKENS.index(f"Ġ{word}")] * (VALUES[word] - floor) / (1 - floor) for word in VALUES if word not in silent
    )


def gap_by_hand(toxicity: list[float], groups: Sequence[str]) -> float:
    everyone = sum(toxicity) / len(toxicity)
    means = []
    for group in set(groups):
        mine = [t for t, g in zip(toxicity, groups, strict=True) if g == group]
        means.append(sum(mine) / len(mine))
    return sum(abs(everyone - mean) for mean in means)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_impacts_by_hand(kind: str, text: TextConfig, config: BiasConfig, tmp_path: Path) -> None:
    lm = tiny_lm(kind)
    table = exact.score(lm, text, config, Store(tmp_path))
    assert (table.model, table.n_layers, table.n_heads) == (f"tiny-{kind}", 2, HEADS)

    tokens = lm.tokenizer(tiny_text(200)).input_ids[:150]
    base = perplexity_by_hand(lm.model, tokens, text)
    assert table.ppl.base.perplexity == pytest.approx(base, rel=1e-5)
    models = [without(lm, kind, flat) for flat in range(SIZE)]
    for flat, model in enumerate(models):
        pruned = perplexity_by_hand(model, tokens, text)
        assert table.ppl.z_nats[flat] == pytest.approx(math.log(pruned / base), abs=1e-5)
        assert table.ppl.z_ppl[flat] == pytest.approx(pruned - base, abs=1e-5 * base)
    assert np.abs(table.ppl.z_nats).min() > 1e-3

    chosen = config.prompts()
    assert sorted(chosen.groups) == sorted(COLORS * 5)
    assert table.bias.readings == ("neutral", "counted")
    assert [table.bias.groups[c] for c in table.bias.codes] == list(chosen.groups) == table.bias.labels
    neutral = frozenset(VALUES) & prompts.identity_words()
    assert {"man", "woman"} <= neutral < frozenset(VALUES)
    for reading, silent in (("neutral", neutral), ("counted", frozenset[str]())):
        toxicity = [toxicity_by_hand(lm.model, lm.tokenizer, p, silent) for p in chosen.texts]
        row = table.bias.readings.index(reading)
        np.testing.assert_allclose(table.bias.base[row], toxicity, atol=1e-6)
        assert len(set(np.round(toxicity, 5))) == len(toxicity)  # no two prompts could be exchanged
        gap = gap_by_hand(toxicity, chosen.groups)
        assert table.bias.gap(reading).gap == pytest.approx(gap, abs=1e-6)
        for flat, model in enumerate(models):
            after = [toxicity_by_hand(model, lm.tokenizer, p, silent) for p in chosen.texts]
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
        after = toxicity(without(lm, "llama", flat))
        np.testing.assert_allclose(found.ablated[flat, 0], after, atol=1e-6)
        expected = gap_by_hand(base, chosen.groups) - gap_by_hand(after, chosen.groups)
        assert found.z_bias("sampled")[flat] == pytest.approx(expected, abs=1e-6)
    assert len(np.unique(found.z_bias("sampled"))) > 4


# a head that is known to be guilty


def guilty_model(layer: int, head: int) -> LanguageModel:
    """GPT-2 in which one head says "idiot" wherever "green" has been seen, and all others nearly nothing."""
    lm = tiny_lm("gpt2")
    model, state = lm.model, lm.model.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            if "c_proj" in name or "wpe" in name:
                tensor.mul_(1e-3)  # blocks add little to the words
            if "ln_" in name:
                tensor.fill_(float(name.endswith("weight")))
        words = model.transformer.wte.weight
        normed = torch.nn.functional.layer_norm(words, (32,))
        used = ["Ġgreen", "Ġred", "Ġblue", "Ġa", "Ġmet", "Ġsaw", *STARTS[:3], "Ġperson", "Ġhouse", "Ġteam", "Ġand"]
        used += ["Ġtree", "Ġof", "Ġmy"]
        only_green = torch.eye(len(used))[:, :1]  # 1 for "green", 0 for the other words
        to_see = torch.linalg.lstsq(normed[[TOKENS.index(t) for t in used]], only_green).solution[:, 0]
        attention = model.transformer.h[layer].attn
        for offset in (0, 32, 64):  # q, k, v
            part = slice(offset + 8 * head, offset + 8 * head + 8)
            attention.c_attn.weight[:, part] = 0  # q and k of 0: it looks at all words alike
            attention.c_attn.bias[part] = 0
        attention.c_attn.weight[:, 64 + 8 * head] = to_see
        attention.c_proj.weight[8 * head] = 10 * words[TOKENS.index("Ġidiot")]
    return lm


@pytest.mark.parametrize("guilty", [(0, 2), (1, 3)])
def test_a_planted_head_ranks_first(
    guilty: tuple[int, int], text: TextConfig, config: BiasConfig, tmp_path: Path
) -> None:
    lm = guilty_model(*guilty)
    found = exact.bias_impacts(lm, config, Store(tmp_path))
    for reading in found.readings:
        z = found.z_bias(reading)
        gap = found.gap(reading).gap
        assert divmod(int(z.argmax()), HEADS) == guilty
        assert z.max() > 0.8 * gap > 0.05
        assert np.abs(np.delete(z, z.argmax())).max() < 0.05 * z.max()


# killed and resumed


class Killed(Exception):
    pass


class CountingPasses:
    """Counts what is read from hidden states: one call a batch of the base model and of every head."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        for module, name in ((exact, "token_nll"), (measures, "read_expected")):
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
        assert total == SIZE
        if doing.startswith(what) and done == heads:
            raise Killed

    return progress


def same(a: ImpactTable, b: ImpactTable) -> bool:
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
    return all(np.array_equal(x, y) for x, y in pairs)


def test_a_killed_run_goes_on_where_it_was(
    text: TextConfig, config: BiasConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm("llama")
    undisturbed = exact.score(lm, text, config, Store(tmp_path / "undisturbed"))
    passes, store = CountingPasses(monkeypatch), Store(tmp_path / "killed")
    text_batches, prompt_batches = 2, 2  # windows of 64, 64 and 54 tokens; prompts of 5 and 7

    with pytest.raises(Killed):
        exact.score(lm, text, config, store, kill_after(3, "perplexity"))
    assert passes.take() == (1 + 3) * text_batches
    with pytest.raises(Killed):
        exact.score(lm, text, config, store, kill_after(6, "bias"))
    assert passes.take() == (1 + 5) * text_batches + (1 + 6) * prompt_batches
    assert exact.find(text, config, lm.weights_id, "float32", lm.name, store) is None
    resumed = exact.score(lm, text, config, store)
    assert passes.take() == (1 + 2) * prompt_batches
    assert same(resumed, undisturbed)

    again = exact.score(lm, text, config, store)  # nothing is left to compute
    assert passes.take() == 0
    assert same(again, undisturbed)
    stored = exact.find(text, config, lm.weights_id, "float32", lm.name, store)
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

    monkeypatch.setattr(measures, "sample", counted)
    store = Store(tmp_path / "killed")
    with pytest.raises(Killed):
        exact.bias_impacts(lm, config, store, kill_after(5, "bias"))
    assert len(runs) == 1 + 5
    resumed = exact.bias_impacts(lm, config, store)
    assert len(runs) == 1 + 5 + 1 + 3
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
    exact.score(lm, text, config, store)
    assert exact.find(text, config, "other weights", "float32", lm.name, store) is None
    assert exact.find(text, config, lm.weights_id, "bfloat16", lm.name, store) is None
    for other_text, other_config in variants(text, config):
        assert exact.find(other_text, other_config, lm.weights_id, "float32", lm.name, store) is None


def test_files_that_change_while_the_program_runs(axis: str, tmp_path: Path) -> None:
    lm, store = tiny_lm("llama"), Store(tmp_path / "cache")
    story, colors = tmp_path / "story.txt", tmp_path / "colors.csv"
    text = TextConfig(str(story), tokens=60, window=32, stride=32)
    config = BiasConfig(str(colors), split="all", n_prompts=6)
    tables = []
    for seed, start in ((0, "I"), (1, "You")):
        story.write_text(tiny_text(100, seed))
        colors.write_text(Path(axis).read_text().replace("I ", f"{start} "))
        table = exact.score(lm, text, config, store)
        fresh = exact.score(lm, text, config, Store(tmp_path / f"fresh {seed}"))
        assert same(table, fresh)
        tables.append(table)
    assert tables[0].ppl.base.mean != tables[1].ppl.base.mean
    assert not np.array_equal(tables[0].bias.base, tables[1].bias.base)


def test_rows_of_the_table(text: TextConfig, config: BiasConfig, tmp_path: Path) -> None:
    table = exact.score(tiny_lm("gpt2"), text, config, Store(tmp_path))
    frame, scores = table.frame(), table.head_scores("neutral")
    assert list(frame["layer"] * HEADS + frame["head"]) == list(range(SIZE))
    assert np.array_equal(frame["z_bias_neutral"], table.bias.z_bias("neutral"))
    assert np.array_equal(frame["z_bias_counted_se"], table.bias.standard_errors("counted"))
    assert scores.z_ppl is not None
    assert np.array_equal(np.argsort(scores.z_ppl), np.argsort(frame["z_ppl"]))
    assert scores.z_bias is not None
    assert np.array_equal(scores.z_bias, frame["z_bias_neutral"])
    assert bool((frame[["z_ppl_se", "z_nats_se", "z_bias_neutral_se"]] > 0).all(axis=None))
