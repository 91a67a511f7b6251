"""Words of others on every page: shown letter by letter, whatever Markdown, HTML or Plotly would make of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from streamlit.testing.v1 import AppTest

from fasp_core.errors import InputError
from fasp_core.figures.theme import escape
from pages.backend import folders
from pages.explore import named
from pages.shell import runs
from pages.widgets.markdown import code, escape_markdown
from tests.support.fakes import Studio
from tests.support.running import ROOT, run
from tests.support.running import opened as in_app

HOSTILE = (
    '<script>window.ran=1</script><img src=x onerror="window.ran=1">[x](javascript:window.ran=1)'
    "![p](http://a.example/p.png)$$x^2$$ *b* `c` :red[d]"
)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@pytest.fixture
def studio(studio: Studio) -> Studio:
    studio.at_once()
    return studio


def kinds_of(markdown: str) -> set[str]:
    """What a Markdown parser that is not Streamlit's finds in a text."""
    return {t.type for block in MARKDOWN.parse(markdown) for t in (block, *(block.children or ()))}


def read(markdown: str) -> str:
    """What it shows of it."""
    inline = (t for block in MARKDOWN.parse(markdown) for t in block.children or ())
    return "".join("\n" if t.type == "softbreak" else t.content for t in inline)


# --- the helpers ---


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("\\`*_[]()<>!#+-=.1~$&|:;x a\n\t\"'/") | st.characters(exclude_categories=["C"]))
)
def test_plain_is_what_was_written(text: str) -> None:
    """Against markdown-it: one paragraph of text and nothing else, with every letter in its place."""
    line = " ".join(text.split())
    shown = escape_markdown(text)
    assert kinds_of(shown) <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
    assert read(shown) == line
    assert "$" not in shown.replace("\\$", "")  # Streamlit's formulas, which markdown-it does not know


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="`*_[](<>! \\x\n", min_size=1))
def test_code_is_what_was_written_but_for_backticks(text: str) -> None:
    if text.strip():
        shown = code(text)
        assert kinds_of(f"x {shown} y") <= {"paragraph_open", "paragraph_close", "inline", "text", "code_inline"}
        assert read(shown).strip() == " ".join(text.split()).replace("`", "'")


def test_the_parser_sees_what_is_live() -> None:
    """So that the tests below can fail."""
    assert {"link_open", "image", "html_inline", "em_open"} <= kinds_of(f"x {HOSTILE} [y](http://a.example)")


# --- pages ---


def nodes(at: AppTest) -> Iterator[Any]:
    waiting = [at._tree]
    while waiting:
        node: Any = waiting.pop()
        yield node
        waiting += list(getattr(node, "children", {}).values())


def live(at: AppTest) -> list[str]:
    """Markdown on a page in which something hostile is more than text; charts in which it is HTML."""
    found = []
    for node in nodes(at):
        proto = getattr(node, "proto", None)
        if proto is None:
            continue
        kind = type(node).__name__
        if kind in ("Markdown", "Caption", "Error", "Warning", "Info", "Success", "Subheader", "Title", "Header"):
            value = node.value
        elif node.type == "progress":
            value = proto.text
        elif node.type in ("button", "metric", "radio", "expandable", "tab"):
            value = " ".join([getattr(proto, "label", ""), *map(str, getattr(proto, "options", ()))])
        elif node.type == "plotly_chart":
            spec = proto.spec
            found += [f"chart: {mark}" for mark in ("<script", "<img", "<a ", "javascript:") if _raw(spec, mark)]
            continue
        else:
            continue
        marked = any(mark in value for mark in ("a.example", "window.ran", "onerror"))
        tokens = [t for block in MARKDOWN.parse(value) for t in (block, *(block.children or ()))]
        bad = [t for t in tokens if t.type in ("link_open", "image", "html_inline", "html_block")]
        if marked and any("a.example" in str(t.attrs) + t.content or "ran" in str(t.attrs) + t.content for t in bad):
            found.append(f"{kind}: {value[:200]}")
    return found


def _raw(spec: str, mark: str) -> bool:
    """Whether a chart holds a mark where Plotly would read HTML: in any text that is not escaped."""

    def walk(tree: Any) -> Iterator[str]:
        if isinstance(tree, str):
            yield tree
        elif isinstance(tree, dict | list):
            for one in tree.values() if isinstance(tree, dict) else tree:
                yield from walk(one)

    return any(mark in text and (mark != "javascript:" or "<a" in text) for text in walk(json.loads(spec)))


def opened(page: str, query: dict[str, str] | None = None, **state: Any) -> AppTest:
    at = AppTest.from_file(ROOT / "pages" / page / f"{page}.py", default_timeout=60)
    for name, value in (query or {}).items():
        at.query_params[name] = value
    for name, value in state.items():
        at.session_state[name] = value
    return run(at)


def everything(at: AppTest) -> str:
    return "\n".join(str(getattr(node, "value", "")) for node in nodes(at))


@pytest.mark.parametrize(
    "page",
    ["explore", "presentation", "compare", "transfer", "assumptions", "contexts", "take_home", "scorecard"],
)
def test_links(page: str, studio: Studio) -> None:
    studio.add_scores("race_ethnicity")
    hostile = {"gamma": "a\n\n![p](http://a.example/p.png)", "axis": HOSTILE, "prune": HOSTILE, "model": HOSTILE}
    at = opened(page, hostile)
    assert live(at) == []
    assert "a.example" in everything(at)  # it is told what was left out


@pytest.mark.parametrize("page", ["explore", "presentation", "contexts", "take_home", "scorecard"])
def test_a_model_of_such_a_name(page: str, studio: Studio) -> None:
    """Typed in, or an opened link: the page says that there is no such model, or shows it."""
    at = opened(page, model=HOSTILE)
    assert live(at) == []
    assert "javascript" in everything(at)
    at = opened(page, model=f"tiny {HOSTILE}")
    assert live(at) == []


def test_released_files(studio: Studio) -> None:
    scores = {"cont_to_ppl": [1.0, 2, 2, None], f"cont_to_{HOSTILE[:130]}_bias": [3.0, 1, 1, 2]}
    upload = (f"{HOSTILE[:60]}.json", json.dumps({HOSTILE: scores}).encode(), "application/json")
    at = opened("released")
    at.file_uploader(key="released_upload").set_value(upload)
    run(at)
    assert live(at) == []
    assert "is not known to this app" in at.main.info[0].value
    at.selectbox(f"released_heads {HOSTILE}").set_value(2)
    run(at)
    assert live(at) == []
    assert any(node.type == "plotly_chart" for node in nodes(at))


def test_released_files_that_are_refused(studio: Studio) -> None:
    at = opened("released")
    upload = ("a.json", json.dumps({HOSTILE: {"x": HOSTILE}}).encode(), "application/json")
    at.file_uploader(key="released_upload").set_value(upload)
    run(at)
    assert len(at.error) == 1
    assert live(at) == []


def test_prompts_of_groups_with_such_names(studio: Studio) -> None:
    """Group names come from a file of one's own, and stand in charts, captions and notes."""
    names = (HOSTILE, "<b>b</b>[y](javascript:1)")
    rows = "".join(f'"I am number {i}","{g.replace(chr(34), chr(34) * 2)}{i % 1}"\n' for i, g in enumerate(names * 200))
    content = ("text,group\n" + rows).encode()
    at = opened("explore", axis="my own prompts (CSV)")
    at.file_uploader(key="csv").set_value((f"{HOSTILE[:40]}.csv", content, "text/csv"))
    run(at)
    studio.add_scores(str(folders.keep_upload(content, "mine.csv")))
    at.session_state["details"] = "Groups"
    run(at)
    assert live(at) == []
    assert any("ran=1" in group for group in at.session_state["job main"].result.base.groups)
    assert any(node.type == "plotly_chart" for node in nodes(at))


def test_what_failed(studio: Studio) -> None:
    studio.error = InputError(f"The model {HOSTILE} is none: choose another one.")
    studio.add_scores("race_ethnicity")
    at = opened("explore", **{runs.OPEN: True})
    assert len(at.error) >= 1
    assert live(at) == []


def test_sets_of_a_file(studio: Studio) -> None:
    studio.add_scores("race_ethnicity")
    sets = [{"name": f"{HOSTILE[:50]}{i}", "model": "built-in", "parts": f"L0H{i}", "chosen": HOSTILE} for i in (1, 2)]
    found = named.from_json(json.dumps({"prune sets": sets}).encode(), {})
    at = opened("explore", **{"named sets": found, "named open": True})
    assert live(at) == []
    at = opened("take_home")
    document = json.dumps({"heads": [[0, 1]], "model": HOSTILE, "axis": HOSTILE, "reading": HOSTILE}).encode()
    at.file_uploader(key="set file").set_value((f"{HOSTILE[:40]}.json", document, "application/json"))
    run(at)
    assert live(at) == []
    assert "ran=1" in everything(at)


def test_scenarios_of_a_file(studio: Studio) -> None:
    name = json.dumps(HOSTILE.replace("{", "(").replace("}", ")"))
    text = f"""
[groups]
{name} = ["Jamal", "Lakisha", "A", "B"]
b = ["Todd", "Claire", "C", "D"]
[contexts.{name}]
title = {name}
unit = "dollars"
question = "Is {{name}} worth a {{item}}?"
scenarios = [{name}]
"""
    at = in_app("contexts")
    at.file_uploader(key="contexts file").set_value(("own.toml", text.encode(), "application/toml"))
    run(at)
    assert live(at) == []
    assert "a.example" in everything(at)
    for page in ("released/released.py", "contexts/contexts.py"):
        at.switch_page(f"pages/{page}")
        run(at)
    assert live(at) == []
    assert "a.example" in everything(at)  # the file is still open, as its uploader is not


def test_plotly_reads_no_html_of_others() -> None:
    assert "<" not in escape(HOSTILE)
    assert escape("a\nb") == "a<br>b"
