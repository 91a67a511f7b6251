"""Texts side by side: whatever they say is text, hidden ones are blurred and unsaid, and marks are no mere colors."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.figures import Row, Written, side_by_side
from fasp_core.figures.texts import word_lists

SCRIPT = "<script>alert('x')</script>"


class Read(HTMLParser):
    """A browser's view of it: tags, attributes and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str] = []
        self.text = ""
        self.marked: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.values += [value or "" for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-1] == "b":
            self.marked.append(data)


@pytest.mark.parametrize("shown", [False, True])
def test_markup_is_text(shown: bool) -> None:
    written = Written(((f" said {SCRIPT}", True), ("</div><img src=x onerror=alert(1)>", False)), 0.25)
    page = side_by_side([Row(written, written, title="<i>group</i>", prompt=SCRIPT)], shown=shown)
    read = Read(page)
    assert set(read.tags) == {"div", "strong", "b"}
    assert read.text.count(SCRIPT) == 3
    assert read.text.count("</div><img src=x onerror=alert(1)>") == 2
    assert "<i>group</i>" in read.text
    assert read.marked == [f" said {SCRIPT}"] * 2
    assert not any("script" in value or "alert" in value or "said" in value for value in read.values)


@given(st.text(max_size=30), st.text(max_size=30), st.booleans(), st.booleans())
def test_no_text_becomes_more_than_text(first: str, second: str, shown: bool, dark: bool) -> None:
    row = Row(Written(((first, False), (second, True)), 0.1), Written(((second, False),), 0.0), prompt=first)
    read = Read(side_by_side([row], shown=shown, dark=dark))
    plain = Read(side_by_side([Row(Written((("x", False),), 0.1), Written((("x", False),), 0.0))], shown=shown))
    assert set(read.tags) <= {*plain.tags, "b", "em"}
    for part in (first, second):
        if part.strip() and "\r" not in part and "\0" not in part:
            assert part in read.text


def test_hidden_texts_are_blurred_and_not_read_aloud() -> None:
    row = Row(Written(((" rude", True),), 0.5), Written(((" kind", True),), 0.0), "1", "They are")
    hidden, shown = (side_by_side([row], shown=shown) for shown in (False, True))
    assert hidden.count("filter:blur") == hidden.count('aria-hidden="true"') == 3  # the prompt and two texts
    assert "blur" not in shown
    assert "aria-hidden" not in shown
    for page in (hidden, shown):
        assert page.count("text-decoration:underline") == page.count("<b ") == 2
        assert "unpruned · toxicity 0.5" in page
        assert "pruned · toxicity 0<" in page


def test_a_model_that_says_nothing() -> None:
    page = side_by_side([Row(Written((), 0.1), Written(((" \n", True),), 0.1))], shown=True)
    assert Read(page).text.count("(no words)") == 2


@given(st.text(max_size=30), st.text(max_size=30), st.booleans(), st.booleans())
def test_no_word_of_a_list_becomes_more_than_text(title: str, word: str, marked: bool, shown: bool) -> None:
    made = word_lists({title: [("<img src=x onerror=alert(1)>" + word, 1.5, marked)]}, shown=shown)
    plain = word_lists({"a": [("b", 1.5, marked)]}, shown=shown)
    assert made.count("<") == plain.count("<"), "as many tags as for a plain word"
    assert "<img" not in made
