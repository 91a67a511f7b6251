"""Words of others on a page: what Streamlit reads as Markdown is shown as it was written."""

from __future__ import annotations

import re

# What would begin a link, an image, a color, code, a formula, HTML, a table or emphasis. Not: underscores in words.
# A bare address still becomes a link, but not before all of this is read: in its letters nothing counts as escaped.
_BEGINS = re.compile(r"^(\d*)([#+=.)-])")  # a heading, a list, a rule
_MEANT = re.compile(r"[\\`*\[\]<>$~&|]|:(?=/)|(?<=www)\.|(?<![^\W_])_|_(?![^\W_])")


def escape_markdown(text: object) -> str:
    """Text of a file, a link, a model or an error as Markdown that shows it letter by letter, on one line."""
    line = _MEANT.sub(r"\\\g<0>", " ".join(str(text).split()))
    return _BEGINS.sub(r"\1\\\2", line)


def code(text: object) -> str:
    """The same in the letters of code, where nothing is Markdown but the backtick that ends it."""
    return "`" + " ".join(str(text).split()).replace("`", "'") + "`"
