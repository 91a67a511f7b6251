"""What differs between two texts: nothing is lost, only what differs is marked, and the largest changes by loops."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fasp_core.forward.diffs import Span, compare, largest_changes, token_pieces, word_pieces
from tests.support.tiny import VOCAB, tiny_tokenizer

PIECES = st.lists(st.sampled_from(["a", " b", " c", "", "\n", " <b>", "d"]), max_size=12)


def longest_common(before: list[str], after: list[str]) -> int:
    """Length of a longest common subsequence, by the table that everybody knows."""
    table = np.zeros((len(before) + 1, len(after) + 1), dtype=int)
    for i, x in enumerate(before):
        for j, y in enumerate(after):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


@given(PIECES, PIECES)
def test_spans_give_back_both_texts_and_share_what_is_not_marked(before: list[str], after: list[str]) -> None:
    sides = compare(before, after)
    for spans, pieces in zip(sides, (before, after), strict=True):
        assert "".join(s.text for s in spans) == "".join(pieces)
        assert all(s.text for s in spans)
        assert all(a.changed != b.changed for a, b in pairwise(spans))
    kept = ["".join(s.text for s in spans if not s.changed) for spans in sides]
    assert kept[0] == kept[1]
    assert len(kept[0]) <= len("".join(before))
    if before == after:
        assert not any(s.changed for spans in sides for s in spans)
    if not longest_common([p for p in before if p], [p for p in after if p]):
        assert all(s.changed for spans in sides for s in spans)


def test_marks_of_an_example() -> None:
    before, after = compare(word_pieces("They are kind, and tall."), word_pieces("They are rude, and tall!"))
    assert before == [Span("They are", False), Span(" kind", True), Span(", and tall", False), Span(".", True)]
    assert after == [Span("They are", False), Span(" rude", True), Span(", and tall", False), Span("!", True)]
    assert compare([], ["x"]) == ([], [Span("x", True)])


@given(st.text(max_size=60))
def test_words_joined_are_the_text(text: str) -> None:
    pieces = word_pieces(text)
    assert "".join(pieces) == text
    assert all(pieces)


@given(st.lists(st.integers(0, VOCAB - 1), max_size=12), st.booleans())
def test_tokens_joined_are_the_decoded_text(ids: list[int], special: bool) -> None:
    pieces = token_pieces(tiny_tokenizer(), ids, special)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tiny_tokenizer().decode(ids, skip_special_tokens=not special)


def bytes_tokenizer() -> Any:
    """Every byte is a token, as where byte-level BPE knows nothing longer."""
    vocab = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


BYTES = bytes_tokenizer()


@settings(deadline=None)
@given(st.text(alphabet="aé世😀 \n", max_size=8), st.integers(0, 3))
def test_characters_of_several_tokens_stay_whole(text: str, cut: int) -> None:
    ids = BYTES(text).input_ids
    ids = ids[: len(ids) - cut] if cut else ids  # a continuation may end inside a character
    pieces = token_pieces(BYTES, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == BYTES.decode(ids)
    if not cut:
        assert [p for p in pieces if p] == list(text)


def test_a_tokenizer_that_rewrites_what_it_has_said() -> None:
    """Decoders may take a space back once they see what follows it."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    plain = tokenizer.decode
    tokenizer.decode = lambda ids, **more: plain(ids, **more).replace(" a", "a")
    ids = tokenizer(" a tree a.").input_ids
    assert "".join(token_pieces(tokenizer, ids)) == tokenizer.decode(ids)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.1, 0.2, 0.3]), st.sampled_from([0.0, 0.1, 0.2, 0.4])),
        max_size=20,
    ),
    st.integers(1, 4),
)
def test_largest_changes_by_loops(rows: list[tuple[str, float, float]], k: int) -> None:
    frame = pd.DataFrame(rows, columns=["group", "toxicity_base", "toxicity_pruned"])
    frame["prompt"] = [f"prompt {i}" for i in range(len(rows))]
    found = largest_changes(frame, k)
    wanted: list[int] = []
    for group in sorted({g for g, _, _ in rows}):
        mine = [(after - before, i) for i, (g, before, after) in enumerate(rows) if g == group]
        rises, falls = [x for x in mine if x[0] > 0], [x for x in mine if x[0] < 0]
        for _ in range(min(k, len(rises))):
            best = max(rises, key=lambda x: (x[0], -x[1]))
            rises.remove(best)
            wanted.append(best[1])
        chosen = []
        for _ in range(min(k, len(falls))):
            best = min(falls, key=lambda x: (x[0], x[1]))
            falls.remove(best)
            chosen.append(best[1])
        wanted += chosen[::-1]
    assert found.prompt.tolist() == [f"prompt {i}" for i in wanted]
    assert found.change.tolist() == pytest.approx([rows[i][2] - rows[i][1] for i in wanted])
    assert found.index.tolist() == list(range(len(wanted)))
