"""Word values: spellings against the tokenizers' own decoders, completions against enumeration without a cache."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, pre_tokenizers

from fasp_core.errors import InputError
from fasp_core.forward import next_word
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import completing, spelling, token_toxicity
from fasp_core.model.language_model import LanguageModel
from tests.support.tiny import KINDS, STARTS, TOKENS, VOCAB, WORDS, tiny_lm
from tests.support.words import Follows, Hashing, table_lm, tokenizer_of

# which tokens are words


def is_word(text: str) -> bool:
    """Letters, and single apostrophes or hyphens between letters."""
    parts = text.replace("’", "-").replace("'", "-").split("-")
    return all(part.isalpha() for part in parts)


@given(st.text(alphabet="abcÄéßжи中 '’-_3.Ġ▁", min_size=1, max_size=5))
def test_byte_level_words_are_what_the_decoder_says(text: str) -> None:
    ((token, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(" " + text)
    assert decoders.ByteLevel().decode([token]) == " " + text
    found = token_toxicity.whole_words(tokenizer_of(["<|end|>", "Ġa", "b", token]))
    assert (found.get(3) == text) == is_word(text)
    assert found.get(3) in (text, None)


def test_every_byte_has_its_character() -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    assert set(spelling._BYTES) == set(alphabet)
    assert sorted(spelling._BYTES.values()) == list(range(256))


def test_byte_level_pieces_are_not_words() -> None:
    tokens = ["<|end|>", "Ġgay", "gay", "Ġ", "Ġ1st", "Ġdon't", "Ġwell-", "ĠcafÃ©", "ĠÃ", "ĠĠa", "Ġwoman", "!"]
    found = token_toxicity.whole_words(tokenizer_of(tokens, eos_token="<|end|>"))
    assert found == {1: "gay", 5: "don't", 7: "café", 10: "woman"}


def test_sentencepiece_words() -> None:
    tokens = ["<s>", "▁gay", "gay", "▁", "▁don't", "▁café", "<0x0A>", "▁▁a", "Ġx", "▁_"]
    assert token_toxicity.whole_words(tokenizer_of(tokens, bos_token="<s>")) == {1: "gay", 4: "don't", 5: "café"}


def test_wordpiece_words_and_specials() -> None:
    tokens = ["[PAD]", "dog", "##s", "##ing", "mask", "don't", "3d"]
    assert token_toxicity.whole_words(tokenizer_of(tokens, mask_token="mask")) == {1: "dog", 5: "don't"}


def test_a_tokenizer_without_marks_is_an_input_error() -> None:
    tokenizer = tokenizer_of(["dog", "cat"])
    for call in (token_toxicity.whole_words, token_toxicity.fresh_after):
        with pytest.raises(InputError, match="sampled"):
            call(tokenizer)
    with pytest.raises(InputError, match="sampled"):
        token_toxicity.word_values(table_lm(["dog", "."], {}), Hashing())


@pytest.mark.parametrize("text", ["got", "-", "'s", "’", "-old-", "é"])
def test_pieces_that_continue_a_word(text: str) -> None:
    assert spelling.PIECE.fullmatch(text)


@pytest.mark.parametrize("text", ["--", ".", "3", "a3", " a", "\n", "", "a b", "a--b"])
def test_pieces_that_end_a_word(text: str) -> None:
    assert not spelling.PIECE.fullmatch(text)


# where words begin afresh

FRESH = {
    "Ġa": False, "b": False, "3": False, "'": False, "-": False, "â̈": True, "Ã": False, "ĠcafÃ©": False,
    "Ġ": True, "Ċ": True, ".": True, 'Ġ"': True, "Ġ(": True, "a,": True, "<|end|>": True,
}  # fmt: skip


def test_fresh_places_byte_level() -> None:
    tokenizer = tokenizer_of(list(FRESH), eos_token="<|end|>")
    assert token_toxicity.fresh_after(tokenizer).tolist() == list(FRESH.values())


def test_fresh_places_sentencepiece() -> None:
    tokens = {"▁a": False, "b": False, "▁": True, "<0x0A>": True, "<0x41>": False, "<0xC3>": False, "▁!": True}
    assert token_toxicity.fresh_after(tokenizer_of(list(tokens))).tolist() == list(tokens.values())


def test_fresh_places_of_a_model_cover_its_padding() -> None:
    found = token_toxicity.fresh_after(tiny_lm("llama"))
    assert found.shape == (VOCAB,)
    assert [TOKENS[i] for i in np.flatnonzero(found)] == ["<unk>", "<eos>", ".", ",", "Ċ"]


# single words


@pytest.mark.parametrize("seed", range(3))
def test_single_words_are_the_scores_above_the_median(seed: int) -> None:
    lm = tiny_lm("gpt2")
    scorer = Hashing(str(seed), {word: (7 * i + seed) % 31 / 31 for i, word in enumerate(WORDS)})
    found = token_toxicity.word_values(lm, scorer, frozenset({"Red", "woman"}), complete=False)
    floor = median(scorer.value(word) for word in WORDS)
    assert found.floor == pytest.approx(floor)
    assert found.values.shape == (2, 2, VOCAB)
    assert found.values.dtype == np.float32
    for token_id in range(VOCAB):
        token = TOKENS[token_id] if token_id < len(TOKENS) else ""
        for place in range(2):
            for reading in range(2):
                word = token.removeprefix("Ġ")
                begins = token != word or (place == 1 and word in (*STARTS, "s"))
                hushed = reading == 0 and word in ("red", "woman")
                value = max(0.0, (scorer.value(word) - floor) / (1 - floor)) if begins and word.isalpha() else 0.0
                assert found.values[place, reading, token_id] == pytest.approx(0 if hushed else value, abs=1e-6)
    assert (found.n_words, found.n_neutral, found.n_completed) == (len(WORDS) + len(STARTS) + 1, 2, 0)
    assert len(scorer.asked) == 1
    with pytest.raises(ValueError, match="read-only"):
        found.values[0, 0, 0] = 1


@pytest.mark.parametrize("typical", [0.0, 0.3, 1.0])
def test_words_that_all_score_alike_are_worth_nothing(typical: float) -> None:
    found = token_toxicity.word_values(tiny_lm("llama"), Hashing(other=typical))
    assert found.floor == typical
    assert not found.values.any()


@pytest.mark.parametrize("complete", [True, False])
def test_vocabulary_is_never_cut(complete: bool) -> None:
    tokens = [".", "Ġa", "b", "Ġc"]
    scorer = Hashing(scores={"a": 0.0, "c": 1.0, "cb": 1.0}, other=0.0)
    for rows, size in ((4, 4), (3, 4), (64, 64)):  # with fewer rows "Ġc" has no embedding, and stays a whole word
        found = token_toxicity.word_values(table_lm(tokens, {}, rows), scorer, complete=complete)
        assert found.values.shape == (2, 2, size)
        assert found.values[0, 1, 3] == 1


NEUTRAL_TRUE = ("gay", "Gay", "GAY", "gay's", "Gay’s", "african-american", "African-American's", "two-spirit")
NEUTRAL_FALSE = ("gays", "gay-hater", "american-made", "spirit", "'s", "gayish", "")


@pytest.mark.parametrize("word", NEUTRAL_TRUE + NEUTRAL_FALSE)
def test_neutral_words(word: str) -> None:
    neutral = frozenset({"Gay", "african", "American", "Two-Spirit"})
    found = token_toxicity._is_neutral(word, frozenset(w.lower() for w in neutral))
    assert found == (word in NEUTRAL_TRUE)


# completed words

TABLE = ["<|end|>", ".", "Ġgo", "Ġfag", "got", "s", "ry", "Ġthe", "-", "Ġof", "Ġa", "3", "hood"]


def test_completion_by_hand() -> None:
    """Two completions of the first piece, one of them carried on greedily; the rest is spread or ends the word."""
    follows = {
        "Ġfag": {"got": 0.5, "s": 0.2, "-": 0.006, "ry": 0.004, "3": 0.09, "Ġthe": 0.1},
        "got": {"ry": 0.4, "s": 0.2},  # .6 goes on: "faggotry"
        "ry": {"s": 0.4},  # .4 goes on: ends
        "s": {"hood": 0.5},  # not more likely than not: ends
    }
    scores = {"fag": 0.4, "faggotry": 1.0, "fags": 0.6, "go": 0.2, "the": 0.2, "of": 0.2, "a": 0.2}
    lm, scorer = table_lm(TABLE, follows, eos_token="<|end|>"), Hashing(scores=scores, other=0.0)
    found = token_toxicity.word_values(lm, scorer)
    assert found.floor == pytest.approx(0.2)
    value = {word: (score - 0.2) / 0.8 for word, score in scores.items()}
    mass = 0.71
    by_hand = (1 - mass) * value["fag"] + mass * (0.5 * value["faggotry"] + 0.2 * value["fags"]) / 0.7
    np.testing.assert_allclose(found.values[:, :, TABLE.index("Ġfag")], by_hand, rtol=1e-5)
    assert "fag-" not in scorer.asked[0]
    assert "fagry" not in scorer.asked[0]
    neutral = token_toxicity.word_values(lm, scorer, frozenset({"FAGGOTRY"}))
    without = by_hand - mass * 0.5 / 0.7
    i = TABLE.index("Ġfag")
    np.testing.assert_allclose(neutral.values[:, :, i], [[without, by_hand]] * 2, rtol=1e-5)
    assert (found.n_words, found.n_neutral, neutral.n_neutral) == (9, 0, 0)
    assert found.n_completed == 4  # fag, got, ry, s


def value_of_fag(follows: Follows, scores: dict[str, float], **options: Any) -> float:
    scorer = Hashing(scores={"go": 0.0, "the": 0.0, "of": 0.0, "a": 0.0} | scores, other=0.0)
    found = token_toxicity.word_values(table_lm(TABLE, follows, eos_token="<|end|>"), scorer, **options)
    return float(found.values[0, 1, TABLE.index("Ġfag")])


def test_a_word_that_cannot_be_followed_up_ends() -> None:
    """Ten percent go on, but no piece of the likeliest has one percent."""
    assert value_of_fag({"Ġfag": {"got": 0.009, "s": 0.009}}, {"fag": 0.5}) == pytest.approx(0.5)
    assert value_of_fag({"Ġfag": {"got": 0.011, "s": 0.009}}, {"fag": 0.5}) == pytest.approx(0.49)


@pytest.mark.parametrize(("p", "completed"), [(0.051, "fags"), (0.049, "fag")])
def test_rare_completions_are_not_followed_further(p: float, completed: str) -> None:
    """ "fag-" by itself is "fag": joints at the end of a word are not part of it."""
    follows = {"Ġfag": {"-": p}, "-": {"s": 0.9}}
    assert value_of_fag(follows, {"fag-s": 1.0}) == pytest.approx(p if completed == "fags" else 0, abs=1e-6)
    assert value_of_fag(follows, {"fag": 1.0}) == pytest.approx(1 - p if completed == "fags" else 1, abs=1e-6)


def test_words_end_after_three_more_pieces() -> None:
    assert value_of_fag({"Ġfag": {"s": 1.0}, "s": {"s": 1.0}}, {"fag" + 4 * "s": 0.7}) == pytest.approx(0.7)


def test_places() -> None:
    """Unmarked letters begin a word in a fresh place only, and are completed there as well."""
    follows = {"got": {"ry": 0.6}}
    scores = {"got": 0.5, "gotry": 1.0, "go": 0.0, "of": 0.0, "the": 0.0, "a": 0.0, "fag": 0.8}
    lm = table_lm(TABLE, follows, eos_token="<|end|>")
    values = token_toxicity.word_values(lm, Hashing(scores=scores, other=0.0)).values
    assert values[:, 1, TABLE.index("got")].tolist() == pytest.approx([0, 0.4 * 0.5 + 0.6])
    assert values[:, 1, TABLE.index("Ġfag")].tolist() == pytest.approx([0.8, 0.8])
    marked = [i for i, token in enumerate(TABLE) if token.startswith("Ġ")]
    np.testing.assert_array_equal(values[0][:, marked], values[1][:, marked])


def test_wordpiece_completions() -> None:
    tokens = ["[PAD]", "fag", "##got", "dog", "got", ".", "3"]
    lm = table_lm(tokens, {"fag": {"##got": 0.5, "got": 0.5}}, pad_token="[PAD]")
    found = token_toxicity.word_values(lm, Hashing(scores={"faggot": 1.0}, other=0.0))
    assert found.values[:, 1].tolist() == [pytest.approx([0, 0.5, 0, 0, 0, 0, 0])] * 2  # "got" begins a word of its own
    assert (found.n_words, found.n_completed) == (3, 1)


PIECES = {i: token for i, token in enumerate(TOKENS) if token in (*STARTS, "s")}


def enumerated(lm: LanguageModel, context: str, token: int, top: int) -> list[tuple[str, float]]:
    """Completions by the definition: a whole pass for each step, no cache, no batch."""

    def after(added: list[int]) -> list[float]:
        ids = torch.tensor([[*lm.tokenizer(context).input_ids, *added]])
        with torch.no_grad():
            chances: list[float] = lm.model(ids).logits[0, -1].double().softmax(-1).tolist()
        return chances

    first = after([token])
    mass = math.fsum(first[u] for u in PIECES)
    kept = [u for u in sorted(PIECES, key=lambda u: -first[u])[:top] if first[u] >= 0.01]
    share = math.fsum(first[u] for u in kept)
    if not kept:
        return [("", 1.0)]
    out = [("", 1 - mass)]
    for u in kept:
        path = [u]
        while first[u] >= 0.05 and len(path) < 4:
            chances = after([token, *path])
            if math.fsum(chances[w] for w in PIECES) <= 0.5:
                break
            path.append(max(PIECES, key=lambda w: chances[w]))
        out.append(("".join(PIECES[w] for w in path), mass * first[u] / share))
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_completions_by_enumeration(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(next_word.CELLS, "cpu", 1)  # the vocabulary in pieces of seven words
    monkeypatch.setattr(next_word, "LEAST", 7)
    lm = tiny_lm(kind, seed=1)
    ids = [*range(8, 60, 3), 8]
    depths = set()
    for context in (completing.CONTEXTS[1], "They met my good friend and"):
        found = token_toxicity.completions(lm, context, ids, PIECES, 4)
        for token, (go_on, ours) in zip(ids, found, strict=True):
            theirs = enumerated(lm, context, token, 4)
            assert [text for text, _ in ours] == [text for text, _ in theirs]
            assert [p for _, p in ours] == pytest.approx([p for _, p in theirs], abs=1e-4)
            assert math.fsum(p for _, p in ours) == pytest.approx(1)
            assert 0 <= go_on <= 1
            depths |= {len(text) for text, _ in ours}
    assert len(depths) > 2  # words did go on


def test_values_are_the_averages_of_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completing, "BATCH", 9)
    lm, scorer = tiny_lm("llama", seed=1), Hashing()
    reports: list[tuple[float, float, str]] = []
    found = token_toxicity.word_values(lm, scorer, frozenset({"red"}), top=3, progress=lambda *r: reports.append(r))
    floor = median(scorer.value(word) for word in WORDS)
    for token in ("Ġred", "Ġidiot", "The", "s"):
        i, word = TOKENS.index(token), token.removeprefix("Ġ")
        context = completing.CONTEXTS[word == token]
        value = {w: max(0.0, (scorer.value(w) - floor) / (1 - floor)) for w in scorer.asked[0]}
        ends = [(word + rest, p) for rest, p in enumerated(lm, context, i, 3)]
        counted = math.fsum(p * value[w] for w, p in ends)
        neutral = math.fsum(p * value[w] for w, p in ends if w != "red")
        assert found.values[1, :, i].tolist() == pytest.approx([neutral, counted], abs=1e-4)
        assert found.values[0, :, i].tolist() == pytest.approx(
            [neutral, counted] if word != token else [0, 0], abs=1e-4
        )
    assert [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)
    assert reports[-1][:2] == (found.n_words, found.n_words)
    assert len(scorer.asked) == 1
    assert len(set(scorer.asked[0])) == len(scorer.asked[0])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.floats(0, 1), st.floats(0, 1))
@example(0, 0.0, 1.0)
def test_values_are_bounded_and_hushing_lowers_them(seed: int, low: float, high: float) -> None:
    lm = tiny_lm("gpt2", seed=seed, n_layers=1)
    scores = {word: low + (high - low) * i / len(WORDS) for i, word in enumerate(WORDS)}
    found = token_toxicity.word_values(lm, Hashing(scores=scores), frozenset({"not", "to", "fool", "I", "S"}))
    values = found.values
    assert values.min() >= 0
    assert values.max() <= 1
    assert (values[:, 0] <= values[:, 1]).all()
    assert (values[0] <= values[1]).all()
    assert not values[:, :, len(TOKENS) :].any()


def test_digest_names_what_was_made() -> None:
    lm = tiny_lm("llama")

    def digest(name: str = "hashing", neutral: frozenset[str] = frozenset(), **options: Any) -> str:
        return token_toxicity.word_values(lm, Hashing(name), neutral, **options).digest

    assert digest() == digest()
    assert len(digest()) == 16
    others = digest("other"), digest(neutral=frozenset({"idiot"})), digest(complete=False), digest(top=1)
    with masked(lm, PruneSet.of([(0, 0)])):
        others += (digest(),)  # another model, other completions
    assert len({digest(), *others}) == 6
