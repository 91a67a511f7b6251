"""Windows against a rule stated for each token, NLL against the models' own loss, errors against formulas."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fasp_core.data import text
from fasp_core.data.text import TextConfig, fitting, load_text, said, token_windows
from fasp_core.errors import InputError
from fasp_core.forward import next_word
from fasp_core.metrics.perplexity import BLOCK, Nll, block_sums, measure_nll, nats_standard_errors, perplexity_change
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.tokens import Framing
from tests.support.tiny import tiny_lm, tiny_text

LETTERS = 400
ALL = "tokens (as many as this model takes)"


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "letters.txt"
    path.write_text("x" * LETTERS)
    return str(path)


def counting_model(limit: int | None = None, begin: tuple[int, ...] = ()) -> Any:
    """Its tokenizer numbers the letters, so that a token is its own position; it begins texts with negative numbers."""
    lm = SimpleNamespace(
        longest_window=None if limit is None else limit - len(begin),
        framing=Framing(begin, "<bos>" if begin else ""),
        tokens=lambda letters: list(range(len(letters))),
        require_embeddings=lambda ids, what: None,
    )
    return lm


# windows


@settings(deadline=None)
@given(st.data())
def test_each_target_is_scored_once_with_the_context_that_the_rule_gives(letters: str, data: st.DataObject) -> None:
    window = data.draw(st.integers(2, 40), label="window")
    config = TextConfig(
        letters,
        tokens=data.draw(st.integers(2, LETTERS + 50), label="tokens"),
        window=window,
        stride=data.draw(st.integers(1, window), label="stride"),
        skip=data.draw(st.integers(0, LETTERS), label="skip"),
    )
    n = min(config.tokens, LETTERS - config.skip)
    assume(n >= 2)
    # of the windows that begin at a multiple of the stride, the first that holds the target and one token before
    expected = {}
    for target in range(1, n):
        start = config.stride * max(0, math.ceil((target + 1 - window) / config.stride))
        if start < target:
            expected[config.skip + target] = config.skip + start
    windows = token_windows(counting_model(), config)
    found: dict[int, int] = {}
    for ids, first in windows.batches:
        assert ids.shape[1] <= window
        for row, begin in zip(ids.tolist(), first, strict=True):
            assert row == list(range(row[0], row[0] + len(row)))
            for target in row[begin:]:
                assert target not in found
                found[target] = row[0]
    assert found == expected
    assert windows.n_scored == len(expected)
    if config.stride < window:
        assert set(found) == set(range(config.skip + 1, config.skip + n))  # all but the very first token


def test_the_digest_follows_tokens_and_cut_and_not_the_place_of_the_file(letters: str, tmp_path: Path) -> None:
    config = TextConfig(letters, tokens=100, window=20, stride=10)
    moved = tmp_path / "elsewhere.txt"
    moved.write_text("x" * LETTERS)
    variants = [
        config,
        replace(config, tokens=99),
        replace(config, window=21),
        replace(config, stride=9),
        replace(config, skip=1),
    ]
    digests = [token_windows(counting_model(), c).digest for c in variants]
    assert len(set(digests)) == len(variants)
    assert token_windows(counting_model(), replace(config, source=str(moved))).digest == digests[0]


def test_enough_text_is_tokenized() -> None:
    """Only the beginning of a long text is read; it must hold the tokens that are asked for."""
    windows = token_windows(tiny_lm("llama"), TextConfig("bold", tokens=200, window=100, stride=100, skip=150))
    assert windows.n_scored == 198


@pytest.mark.parametrize("wrong", [{"tokens": 1}, {"window": 1}, {"stride": 0}, {"stride": 513}, {"skip": -1}], ids=str)
def test_cuts_that_cannot_be_made_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="tokens and window must be at least 2, and stride between 1 and window"):
        TextConfig(**wrong)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.data())
def test_after_a_beginning_every_token_is_scored_once(letters: str, data: st.DataObject) -> None:
    window = data.draw(st.integers(2, 40), label="window")
    begin = data.draw(st.sampled_from([(-1,), (-2, -1)]), label="begin")
    config = TextConfig(
        letters,
        tokens=data.draw(st.integers(2, LETTERS), label="tokens"),
        window=window,
        stride=data.draw(st.integers(1, window), label="stride"),
        skip=data.draw(st.integers(0, LETTERS - 2), label="skip"),
    )
    n = min(config.tokens, LETTERS - config.skip)
    windows = token_windows(counting_model(begin=begin), config)
    plain = token_windows(counting_model(), config)
    scored = []
    for ids, first in windows.batches:
        assert ids.shape[1] <= window + len(begin)
        for row, at in zip(ids.tolist(), first, strict=True):
            assert tuple(row[: len(begin)]) == begin
            assert row[len(begin) :] == list(range(row[len(begin)], row[-1] + 1))  # no other token is a beginning
            assert at >= len(begin)
            scored += row[at:]
    assert sorted(scored) == list(range(config.skip, config.skip + n))
    assert windows.n_scored == n
    assert windows.digest != plain.digest
    if config.stride == window and n % window != 1:  # a last token by itself has no context without a beginning
        cut = sorted(row[len(begin) :] for ids, _ in windows.batches for row in ids.tolist())
        assert cut == sorted(row for ids, _ in plain.batches for row in ids.tolist())  # the same windows of text


def test_a_window_beyond_the_context_is_as_long_as_it(letters: str) -> None:
    config = TextConfig(letters, tokens=50, window=33, stride=33)
    cut = token_windows(counting_model(32), config)
    assert (cut.config.window, cut.config.stride) == (32, 32)
    assert cut.digest == token_windows(counting_model(), TextConfig(letters, 50, 32, 32)).digest
    assert token_windows(counting_model(33), config).config == config
    begun = token_windows(counting_model(33, (-1,)), config)
    assert begun.config.window == 32  # the beginning has a place
    assert max(ids.shape[1] for ids, _ in begun.batches) == 33
    assert (fitting(TextConfig(window=512, stride=256), 64).stride, fitting(TextConfig(), None)) == (32, TextConfig())
    with pytest.raises(InputError, match="fewer than two tokens"):
        fitting(config, 1)


@pytest.mark.parametrize(
    ("window", "made", "words"),
    [
        (512, {}, "windows of 512 tokens without a beginning token"),
        (512, {"bos": "<s>", "longest_window": 8191}, "windows of 512 tokens after <s>"),
        (
            512,
            {"bos": "no <s>", "longest_window": 64},
            f"windows of 64 {ALL} without a beginning token",
        ),
        (63, {"bos": "<s>", "longest_window": 63}, f"windows of 63 {ALL} after <s>"),
    ],
)
def test_what_is_said_of_windows(window: int, made: dict[str, Any], words: str) -> None:
    assert said(TextConfig(window=window, stride=window), made) == words


def test_a_short_text_is_refused(letters: str) -> None:
    with pytest.raises(InputError, match=f"fewer than {LETTERS + 1} tokens"):
        token_windows(counting_model(), TextConfig(letters, tokens=50, skip=LETTERS - 1))


# texts


def test_unusable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"There is no text 'nowhere.txt'"):
        load_text("nowhere.txt")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("ok é".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.txt' is not UTF-8 \(byte 3\)"):
        load_text(str(latin))
    monkeypatch.setattr(text, "MAX_FILE_BYTES", 3)
    with pytest.raises(InputError, match="larger than"):
        load_text(str(latin))


def test_wikitext_names_what_to_do_without_the_hub() -> None:
    with pytest.raises(InputError, match="WikiText-2 could not be fetched from the hub: use 'bold' or a local"):
        load_text("wikitext-2")


def test_bold_is_the_same_everywhere() -> None:
    bold = load_text("bold")
    assert hashlib.sha256(bold.encode()).hexdigest()[:16] == "53b04fb118405d1f"
    articles = bold.split("\n\n")
    assert len(articles) == len(set(articles)) > 1000
    assert np.median([article.count(" ") for article in articles]) > 50
    assert len(bold) > 1_000_000


# negative log-likelihood


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm("llama")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text(tiny_text(900))
    return str(path)


@torch.no_grad()
def loss_by_transformers(lm: LanguageModel, tokens: list[int], window: int, stride: int) -> tuple[float, int]:
    """Summed nats and number of targets: `model(labels=...)`, window by window, labels that are not scored at -100."""
    total, count, scored_to = 0.0, 0, 1
    for start in range(0, len(tokens), stride):
        ids = torch.tensor([tokens[start : start + window]])
        labels = ids.clone()
        labels[0, : max(0, scored_to - start)] = -100
        labels[0, 0] = -100  # nothing comes before it
        scored_to = start + ids.shape[1]
        n = int((labels != -100).sum())
        if n:
            total += float(lm.model(ids, labels=labels).loss) * n
            count += n
        if scored_to == len(tokens):
            break
    return total, count


@pytest.mark.parametrize(
    ("n", "window", "stride"),
    [
        (256, 64, 64),
        (250, 64, 64),  # a ragged last window weighs by its tokens
        (257, 64, 64),  # the last window is one token, with nothing to score
        (250, 64, 32),
        (201, 50, 7),
        (700, 200, 200),  # windows longer than a chunk of logits
        (40, 200, 200),
    ],
)
def test_nll_equals_the_loss_of_transformers(lm: LanguageModel, story: str, n: int, window: int, stride: int) -> None:
    windows = token_windows(lm, TextConfig(story, tokens=n, window=window, stride=stride))
    tokens = lm.tokenizer(tiny_text(900)).input_ids[:n]
    total, count = loss_by_transformers(lm, tokens, window, stride)
    found = measure_nll(lm, windows)
    assert found.tokens == count == windows.n_scored
    assert found.mean == pytest.approx(total / count, abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(total / count), rel=1e-5)
    one_at_a_time = measure_nll(lm, windows, rows=1)
    np.testing.assert_allclose(one_at_a_time.sums, found.sums, atol=1e-4)
    assert np.array_equal(one_at_a_time.counts, found.counts)


@settings(deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=4), st.integers(0, 2**31))
def test_blocks_are_runs_of_64_scored_targets_of_a_row(firsts: list[int], seed: int) -> None:
    nll = torch.rand(len(firsts), 200, generator=torch.Generator().manual_seed(seed))
    sums, counts = block_sums(nll, np.array(firsts))
    i = 0
    for row, first in enumerate(firsts):
        targets = list(range(first, 201))
        while targets:
            block, targets = targets[:BLOCK], targets[BLOCK:]
            assert counts[i] == len(block)
            assert sums[i] == pytest.approx(sum(float(nll[row, t - 1]) for t in block), abs=1e-9)
            i += 1
    assert i == len(sums) == len(counts)


# changes of perplexity


def some_nll(seed: int = 0, n: int = 12) -> Nll:
    rng = np.random.default_rng(seed)
    counts = rng.integers(20, 65, n)
    return Nll(counts * rng.normal(3, 0.3, n), counts)


@settings(deadline=None)
@given(st.floats(-0.5, 0.5))
def test_a_constant_shift_has_no_error(shift: float) -> None:
    base = some_nll()
    change = perplexity_change(base, Nll(base.sums + shift * base.counts, base.counts))
    assert change.change_nats == pytest.approx(shift, abs=1e-12)
    assert change.interval == pytest.approx((shift, shift), abs=1e-9)
    assert change.relative == pytest.approx(math.exp(shift) - 1, abs=1e-12)
    assert change.pruned == pytest.approx(base.perplexity * math.exp(shift))
    assert change.ppl_interval == pytest.approx((change.pruned, change.pruned))
    assert change.change == pytest.approx(change.pruned - change.base)
    assert (change.tokens, change.blocks) == (int(base.counts.sum()), 12)


def test_an_interval_holds_the_change_and_turns_with_its_sign() -> None:
    base, other = some_nll(1), some_nll(1)
    other = Nll(other.sums + np.random.default_rng(2).normal(0.1, 0.1, 12) * other.counts, other.counts)
    there, back = perplexity_change(base, other), perplexity_change(other, base)
    assert there.interval[0] < there.change_nats < there.interval[1]
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert there.ppl_interval[0] < there.pruned < there.ppl_interval[1]
    assert there.ppl_interval[0] == pytest.approx(there.base * math.exp(there.interval[0]))


def test_standard_error_is_the_jackknife_for_blocks_of_one_size() -> None:
    rng = np.random.default_rng(3)
    base = Nll(rng.normal(200, 10, 15), np.full(15, 64))
    variants = base.sums + rng.normal(5, 3, (4, 15))
    for sums, found in zip(variants, nats_standard_errors(base, variants), strict=True):
        left_out = [(np.delete(sums, b).sum() - np.delete(base.sums, b).sum()) / (14 * 64) for b in range(15)]
        jackknife = math.sqrt(14 / 15 * sum((x - np.mean(left_out)) ** 2 for x in left_out))
        assert found == pytest.approx(jackknife, rel=1e-12)


def test_standard_error_is_near_the_jackknife_for_blocks_of_many_sizes() -> None:
    base = some_nll(4, n=80)
    sums = base.sums + np.random.default_rng(5).normal(0.1, 0.2, 80) * base.counts
    left_out = [np.delete(sums - base.sums, b).sum() / np.delete(base.counts, b).sum() for b in range(len(sums))]
    jackknife = math.sqrt(79 / 80 * sum((x - np.mean(left_out)) ** 2 for x in left_out))
    assert nats_standard_errors(base, sums[None])[0] == pytest.approx(jackknife, rel=0.05)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, truth, hits = np.random.default_rng(6), 0.05, 0
    for _ in range(1000):
        base = some_nll(int(rng.integers(2**31)), n=10)
        noise = rng.normal(0, 0.1, 10)
        change = perplexity_change(base, Nll(base.sums + (truth + noise) * base.counts, base.counts))
        hits += change.interval[0] < truth < change.interval[1]
    assert 0.92 < hits / 1000 < 0.97


def test_one_block_has_no_spread() -> None:
    base = Nll(np.array([100.0]), np.array([50]))
    change = perplexity_change(base, Nll(np.array([101.0]), np.array([50])))
    assert change.interval == (-math.inf, math.inf)
    assert np.isnan(nats_standard_errors(base, np.array([[101.0]]))).all()


def test_ruined_models_give_infinity_and_no_error() -> None:
    base = some_nll()
    change = perplexity_change(base, Nll(base.sums + 1e4 * base.counts, base.counts))
    assert change.pruned == math.inf
    assert change.change_nats == pytest.approx(1e4)
    assert math.isfinite(change.relative)


def test_different_texts_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="different text"):
        perplexity_change(some_nll(0), some_nll(1))


def test_logits_of_many_tokens_are_never_whole(lm: LanguageModel, story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    plain = LanguageModel.capped

    def measured(self: LanguageModel, logits: torch.Tensor) -> torch.Tensor:
        sizes.append(logits.numel())
        return plain(self, logits)

    monkeypatch.setattr(LanguageModel, "capped", measured)
    monkeypatch.setattr(next_word, "CELLS", {lm.device.type: 16 * 199})
    monkeypatch.setattr(next_word, "LEAST", 8)
    windows = token_windows(lm, TextConfig(story, tokens=800, window=200, stride=200))
    assert measure_nll(lm, windows).tokens == 796
    assert sum(sizes) == 796 * lm.model.config.vocab_size
    assert max(sizes) <= 16 * 199
