"""Words of others on a page: what Streamlit reads as Markdown is shown as it was written."""

from __future__ import annotations

import re

# What would begin a link, an image, a color, code, a formula, HTML, a table or emphasis. Not: underscores in words.
_BEGINS = re.compile(r"^(\d*)([#+=.)-])")  # a heading, a list, a rule
_MEANT = re.compile(r"[\\`*\[\]<>~&|]|(?<![^\W_])_|_(?![^\W_])")


def plain(text: object) -> str:
    """Text of a file, a link, a model or an error as Markdown that shows it letter by letter, on one line."""
    line = _MEANT.sub(r"\\\g<0>", " ".join(str(text).split()))
    return _BEGINS.sub(r"\1\\\2", line).replace("$", "&#36;")  # Streamlit shows the backslash before a dollar


def code(text: object) -> str:
    """The same in the letters of code, where nothing is Markdown but the backtick that ends it."""
    return "`" + " ".join(str(text).split()).replace("`", "'") + "`"
