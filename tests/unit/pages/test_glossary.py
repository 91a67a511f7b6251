"""Every word that a page explains is explained in one place."""

from __future__ import annotations

import ast
from pathlib import Path

from pages.widgets.glossary import GLOSSARY, listed, text

ROOT = Path(__file__).resolve().parents[3]
ASKED = {"gamma", "alpha", "critical head", "gap", "z_ppl", "z_bias", "effective sample size", "reading", "noise"}


def used() -> dict[str, set[str]]:
    """Terms that pages ask for, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "pages").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if called and node.func.attr == "text" and getattr(node.func.value, "id", "") == "glossary":  # type: ignore[union-attr,attr-defined]
                for argument in node.args:  # type: ignore[attr-defined]
                    if isinstance(argument, ast.Constant):
                        found.setdefault(argument.value, set()).add(path.name)
    return found


def defined() -> list[str]:
    """Keys as they are written, so that one written twice is seen."""
    tree = ast.parse((ROOT / "pages" / "widgets" / "glossary.py").read_text("utf-8"))
    (table,) = [n.value for n in tree.body if isinstance(n, ast.AnnAssign) and isinstance(n.value, ast.Dict)]
    return [key.value for key in table.keys if isinstance(key, ast.Constant)]


def test_every_term_that_a_page_uses_is_defined_once() -> None:
    terms = used()
    assert terms.keys() >= {"gamma", "alpha", "critical head", "gap", "z_ppl", "z_bias", "reading", "noise"}
    assert terms.keys() <= GLOSSARY.keys()
    assert len(defined()) == len(set(defined())) == len(GLOSSARY)
    assert len({title for title, _ in GLOSSARY.values()}) == len(GLOSSARY)
    assert GLOSSARY.keys() >= ASKED | {"reliability"}


def test_no_page_defines_a_term_again() -> None:
    for path in (ROOT / "pages").rglob("*.py"):
        if path.name == "glossary.py":
            continue
        written = " ".join(
            n.value
            for n in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        )
        for _, meaning in GLOSSARY.values():
            assert meaning.split(". ")[0] not in written, path.name


def test_texts() -> None:
    assert text("alpha") == GLOSSARY["alpha"].meaning
    both = text("gap", "noise", more="And so on.")
    assert both.count("**") == 4
    assert both.endswith("And so on.")
    assert all(f"**{title}.** {meaning}" in listed() for title, meaning in GLOSSARY.values())
    assert all(len(meaning) < 320 and meaning.endswith(".") for _, meaning in GLOSSARY.values())
