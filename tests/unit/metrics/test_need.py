"""Word values by need against all completed, completions as stored, and the vocabulary a piece at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.data.scorers import OfflineScorer, VaderScorer
from fasp_core.forward import next_word
from fasp_core.metrics import completing, meters, token_toxicity
from fasp_core.metrics.completing import Completions, complete_all
from fasp_core.metrics.need import Need
from fasp_core.metrics.spelling import JOINTS
from fasp_core.model.identity import ModelId
from fasp_core.model.spec import BUILT_IN_SHA256
from fasp_core.storage.store import Store
from tests.support.tiny import KINDS, VOCAB, tiny_lm
from tests.support.words import FLOOR, Hashing, Listed, table_lm

BUILT_IN = f"sha256:{BUILT_IN_SHA256}"


def pieces_of(alphabet: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.text(alphabet, min_size=1, max_size=3), min_size=2, max_size=8, unique=True)


@st.composite
def languages(draw: Any) -> tuple[Any, dict[str, float]]:
    """A model of a few pieces with written-down probabilities, and a scorer's words made of such pieces."""
    spelled = draw(pieces_of("abcAB"))
    tokens = [".", *(f"Ġ{piece}" for piece in spelled), *spelled]
    weights = st.lists(st.sampled_from([0, 0, 1, 6, 30]), min_size=len(spelled), max_size=len(spelled))
    follows: dict[str, dict[str, float]] = {}
    for token in tokens[1:]:
        drawn = draw(weights)
        follows[token] = {piece: w / (sum(drawn) + 8) for piece, w in zip(spelled, drawn, strict=True) if w}
    word = st.lists(st.sampled_from(spelled), min_size=1, max_size=4).map(lambda parts: "".join(parts).lower())
    scores = draw(st.dictionaries(word, st.sampled_from([0.0, 0.1, FLOOR, 0.5, 1.0]), max_size=5))
    typical = ["zz" + i * "z" for i in range(2 * len(tokens))]  # so that most whole words are unknown ones
    tokens += [f"Ġ{word}" for word in typical]
    return table_lm(tokens, follows), scores


@pytest.mark.timeout(900)  # eight seconds alone; two threads in each of several processes once took 300
@settings(max_examples=40, deadline=None)
@given(languages())
def test_by_need_is_what_all_completed_are_without_hyphens(language: tuple[Any, dict[str, float]]) -> None:
    lm, scores = language
    whole = token_toxicity.word_values(lm, Listed(scores), frozenset({"a"}))
    some = token_toxicity.word_values(lm, Listed(scores), frozenset({"a"}), by_need=True)
    assert whole.floor == some.floor == FLOOR
    np.testing.assert_allclose(some.values, whole.values, rtol=0, atol=1e-7)
    assert some.largest_left_out == 0
    assert (whole.n_left_out, whole.largest_left_out) == (0, 0)


def test_left_out_are_words_whose_second_part_alone_counts() -> None:
    tokens = [".", "Ġrich", "Ġpoor", "-", "poor", "Ġof", "Ġthe", "Ġto"]
    lm = table_lm(tokens, {"Ġrich": {"-": 0.3}, "-": {"poor": 0.9}, "Ġpoor": {"-": 0.5}})
    scorer = Listed({"poor": 1.0})
    whole, some = token_toxicity.word_values(lm, scorer), token_toxicity.word_values(lm, scorer, by_need=True)
    assert whole.values[0, 1].tolist() == pytest.approx([0, 0.3, 1, 0, 0, 0, 0, 0])
    assert some.values[0, 1].tolist() == pytest.approx([0, 0, 1, 0, 0, 0, 0, 0])
    assert some.n_left_out == 4  # rich, of, the, to
    assert some.largest_left_out == pytest.approx(0.3)


def test_hyphens_inside_a_word_that_counts_are_followed() -> None:
    tokens = [".", "Ġbad", "-", "as", "s", "Ġof", "Ġthe", "Ġto"]
    lm = table_lm(tokens, {"Ġbad": {"-": 0.4}, "-": {"as": 0.9}, "as": {"s": 0.9}})
    scorer = Listed({"bad": 0.5, "ass": 1.0})
    whole, some = token_toxicity.word_values(lm, scorer), token_toxicity.word_values(lm, scorer, by_need=True)
    np.testing.assert_array_equal(whole.values, some.values)
    assert some.values[0, 1, 1] == pytest.approx(0.6 * (0.5 - FLOOR) / 0.75 + 0.4 * (0.75 - FLOOR) / 0.75)


def test_all_are_completed_where_need_cannot_be_told() -> None:
    assert Need.of(Hashing(), 0.2) is None  # it does not say what it knows
    assert Need.of(Listed({"bad": 1.0}), FLOOR / 2) is None  # unknown words are worth something
    need = Need.of(Listed({"bad": 1.0, "kind": 0.0}), FLOOR)
    assert need is not None
    assert (need.token("BA"), need.token("un-b"), need.token("kin"), need.token("bad-x")) == (True, True, False, True)
    assert [need.path(text) for text in ("ba", "x-kin", "x-", "bads", "kin")] == [True, True, True, False, False]


@pytest.mark.parametrize("make", [OfflineScorer, VaderScorer])
@given(
    st.text("abcdeéñßжи", min_size=1, max_size=12), st.sampled_from(["", "-", "'", "’"]), st.text("xyzüq", max_size=5)
)
@settings(max_examples=40, deadline=None)
def test_scorers_know_what_they_say(make: Any, first: str, joint: str, second: str) -> None:
    scorer = _scorer(make)
    word = (first + joint + second).rstrip(JOINTS)
    parts = word.lower().replace("’", "-").replace("'", "-").split("-")
    if scorer.knows.isdisjoint([word.lower(), *parts]):
        unknown, asked = scorer.score(["qqqqqq", word]).tolist()
        assert asked == unknown
    assert len(scorer.knows) > 5000


_made: dict[Any, Any] = {}


def _scorer(make: Any) -> Any:
    return _made.setdefault(make, make())


# completions as they are stored


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_stored_completions_give_the_same_values(kind: str) -> None:
    lm, scorer = tiny_lm(kind, seed=1), Hashing()
    spelled = token_toxicity.Vocabulary.of(lm)
    found = Completions.of(complete_all(lm, spelled.groups, spelled.pieces))
    again = Completions.read({name: array.copy() for name, array in found.arrays().items()})
    assert list(again.items()) == list(found.items())
    ours = token_toxicity.word_values(lm, scorer, frozenset({"red"}), known=lambda: again)
    np.testing.assert_allclose(
        ours.values, token_toxicity.word_values(lm, scorer, frozenset({"red"})).values, atol=2e-7
    )


def test_completions_are_made_once_for_all_scorers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, store, passes = tiny_lm("llama"), Store(tmp_path), []
    monkeypatch.setattr(meters, "complete_all", partial(_counted, passes))
    first = meters.stored_word_values(lm, Hashing("one"), store)
    second = meters.stored_word_values(lm, Hashing("two", other=0.0, scores={"stupid": 1.0}), store)
    assert len(passes) == 1
    assert first.digest != second.digest
    assert meters.stored_word_values(lm, Hashing("one"), store).digest == first.digest
    by_need = meters.stored_word_values(lm, Listed({"stupid": 1.0}), store)
    assert len(passes) == 1
    assert by_need.n_left_out > 0
    (note,) = lm.notes  # said whenever they are used, also where they are read
    assert f"{by_need.n_left_out:,} of {by_need.n_words:,} tokens" in note
    lm.notes = ()
    assert meters.stored_word_values(lm, Listed({"stupid": 1.0}), store).n_left_out == by_need.n_left_out
    assert lm.notes == (note,)


def _counted(passes: list[int], *args: Any, **options: Any) -> Any:
    passes.append(1)
    return complete_all(*args, **options)


def test_how_words_are_worth_is_told_by_keys() -> None:
    other, built_in = ModelId("sha256:1"), ModelId(BUILT_IN)
    assert meters.words_worth(built_in, Listed({})) == meters.words_worth(other, Hashing()) == meters.WORDS
    assert meters.words_worth(other, Listed({})) == meters.BY_NEED
    assert meters.words_worth(replace(built_in, bos="<s>"), Listed({})) == meters.BY_NEED  # begun in another way
    # how heads are taken out is no affair of words: both sides of a change are read by the same values
    assert meters.words_worth(replace(built_in, ablation="mean"), Listed({})) == meters.WORDS


# the vocabulary a piece at a time


@pytest.mark.parametrize("kind", KINDS)
def test_likeliest_pieces_are_those_of_whole_probabilities(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(next_word.CELLS, "cpu", 1)
    monkeypatch.setattr(next_word, "LEAST", 7)
    lm = tiny_lm(kind, seed=2)
    width = lm.model.get_output_embeddings().weight.shape[1]
    states = 3 * torch.randn(11, width, generator=torch.Generator().manual_seed(0))
    continuing = torch.tensor([2, 3, 9, 30, 31, 32, 70, 79])
    mass, chances, which = completing.next_pieces(lm, states, continuing, 5)
    with torch.no_grad():
        expected = lm.logits(states).double().softmax(-1)[:, continuing]
    torch.testing.assert_close(mass, expected.sum(-1), rtol=2e-5, atol=1e-9)
    found, places = expected.topk(5)
    torch.testing.assert_close(chances, found, rtol=2e-5, atol=1e-9)
    assert torch.equal(which, continuing[places])


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "opt_post_norm"])
def test_gradients_of_means_a_part_of_the_positions_at_a_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(kind)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(10, lm.model.get_output_embeddings().weight.shape[1], generator=generator, requires_grad=True)
    values = torch.rand(VOCAB, 4, generator=generator)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        found = next_word.mean_value_with_gradient(lm, states, values)
        return found, torch.autograd.grad(found[:, 1].sum(), states)[0]

    whole = both()
    monkeypatch.setattr(next_word, "MANY", 3 * VOCAB)
    torch.testing.assert_close(both(), whole, rtol=1e-5, atol=1e-7)
