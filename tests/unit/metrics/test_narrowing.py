"""The part of a vocabulary that follows, against softmax over it, and what the values of words by need say of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fasp_core.forward import next_word
from fasp_core.forward.next_word import Rows
from fasp_core.metrics import completing, narrowing
from fasp_core.metrics.need import Need
from fasp_core.metrics.token_toxicity import LEAST, Vocabulary, word_values
from tests.support.tiny import KINDS, tiny_lm
from tests.support.words import FLOOR, Listed, table_lm

TOKENS = [".", "Ġbad", "ness", "ly", "Ġb", "ad", "Ġof", "Ġthe", "Ġto", *(f"Ġ{a}zz{b}" for a in "klmn" for b in "opqr")]


def plain_table(follows: dict[str, dict[str, float]]) -> Any:
    """As `table_lm`, with an unembedding that can be taken apart."""
    lm = table_lm(TOKENS, follows)
    head = torch.nn.Linear(len(TOKENS), len(TOKENS), bias=False)
    torch.nn.init.eye_(head.weight)
    lm.model.get_output_embeddings, lm.capped = lambda: head, lambda logits: logits
    return lm


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_whole_without_the_others(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(next_word.CELLS, "cpu", 1)
    monkeypatch.setattr(next_word, "LEAST", 7)
    lm = tiny_lm(kind, seed=2)
    rows = Rows.of(lm, [79, 2, 3, 5, 9, 30, 31, 33, 60])
    assert rows is not None
    width = lm.model.get_output_embeddings().weight.shape[1]
    states = 3 * torch.randn(11, width, generator=torch.Generator().manual_seed(0))
    continuing = torch.tensor([3, 9, 31, 60])  # by id
    places = torch.isin(rows.ids, continuing).nonzero()[:, 0]
    mass, chances, which = completing.next_pieces(lm, states, places, 2, rows)
    with torch.no_grad():
        among = lm.logits(states).double()[:, rows.ids].softmax(-1)[:, places]
    torch.testing.assert_close(mass, among.sum(-1), rtol=2e-5, atol=1e-9)
    found, best = among.topk(2)
    torch.testing.assert_close(chances, found, rtol=2e-5, atol=1e-9)
    assert torch.equal(which, continuing[best])


def test_what_is_looked_at_holds_all_but_a_little_of_the_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrowing, "WORTH_IT", 0)
    lm = plain_table({"Ġbad": {"ness": 0.3, "ly": 0.0005}, "Ġb": {"ad": 0.1}})
    rows = narrowing.narrowed(lm, ([1, 4], []), [TOKENS.index("Ġto")])
    assert rows is not None
    assert [TOKENS[i] for i in rows.ids.tolist()] == [".", "ness", "ad", "Ġto"]  # "ly" is below .002
    monkeypatch.setattr(narrowing, "MISSING", 1e-4)
    rows = narrowing.narrowed(lm, ([1, 4], []), [])
    assert rows is not None
    assert [TOKENS[i] for i in rows.ids.tolist()] == [".", "ness", "ly", "ad"]
    assert narrowing.narrowed(lm, ([1, 4], []), range(20)) is None  # most of them
    monkeypatch.setattr(narrowing, "WORTH_IT", 1)
    assert narrowing.narrowed(lm, ([1, 4], []), []) is None  # too few to complete
    lm.model.get_output_embeddings = lambda: torch.nn.Identity()
    monkeypatch.setattr(narrowing, "WORTH_IT", 0)
    assert narrowing.narrowed(lm, ([1, 4], []), []) is None  # not for us to take apart


def test_what_a_narrow_view_changes_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = plain_table({"Ġbad": {"ness": 0.3, "ly": 0.2}, "Ġb": {"ad": 0.4}})
    scorer = Listed({"bad": 1.0, "badly": 0.25})
    whole = word_values(lm, scorer)
    monkeypatch.setattr(narrowing, "WORTH_IT", 0)
    monkeypatch.setattr(narrowing, "MISSING", 0.25)
    some = word_values(lm, scorer, by_need=True)
    assert 0 < some.n_seen < len(TOKENS) / 2
    assert (whole.n_seen, whole.largest_inexact, whole.mean_inexact) == (0, 0, 0)
    changes = (whole.values - some.values)[1, 1]
    assert np.abs(changes).max() > 0.01
    assert some.largest_inexact == pytest.approx(np.abs(changes).max())
    completed = [i for i in Vocabulary.of(lm).words if TOKENS[i] in ("Ġbad", "Ġb")]
    assert some.mean_inexact == pytest.approx(changes[completed].mean())


def test_words_worth_little_are_not_looked_for_and_count_as_they_are() -> None:
    lm = plain_table({"Ġb": {"ad": 0.9}, "Ġbad": {"ness": 0.5}})
    score = FLOOR + 0.9 * LEAST * (1 - FLOOR)
    whole, some = (word_values(lm, Listed({"bad": score}), by_need=by_need) for by_need in (False, True))
    bad, b = TOKENS.index("Ġbad"), TOKENS.index("Ġb")
    assert some.values[1, 1, [bad, b]].tolist() == pytest.approx([0.9 * LEAST, 0])
    assert whole.values[1, 1, [bad, b]].tolist() == pytest.approx([0.45 * LEAST, 0.81 * LEAST])
    assert some.n_left_out == some.n_words
    assert some.largest_left_out == pytest.approx(0.81 * LEAST)
    assert np.abs(some.values - whole.values).max() <= LEAST


def test_pieces_that_cannot_be_done_without() -> None:
    need = Need.of(Listed({"badness": 1.0, "kind": 0.0}), FLOOR, LEAST)
    assert need is not None
    assert need.pieces({1: "ness", 2: "AD", 3: "bad", 4: "ind", 5: "-ness", 6: "nessy"}) == [1, 2, 5]


def test_no_piece_among_what_is_looked_at_ends_every_word() -> None:
    lm = plain_table({"Ġbad": {"ness": 0.3}})
    rows = Rows.of(lm, [0, 6])
    pieces = Vocabulary.of(lm).pieces
    assert completing.completions(lm, completing.CONTEXTS[0], [1], pieces, rows=rows) == [(0.0, [("", 1.0)])]
