"""What charts tell, each thing once, however late it comes.

A chart that is drawn anew is another one to Streamlit. Two things follow. A reader who is quicker than the drawing
clicks the old chart, and that click counts. And the browser sends the last event of a chart again when the chart is
gone, and that one does not. So every drawing needs a key of its own, and what it tells is compared with what it told
before.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

import streamlit as st

_TOLD = "told by charts"
_KEPT = 50  # drawings
T = TypeVar("T", bound=Hashable)


def new(key: str, told: Iterable[T]) -> frozenset[T]:
    """What the chart with this key tells now and did not tell in its last event."""
    earlier: dict[str, frozenset[T]] = st.session_state.setdefault(_TOLD, {})
    now = frozenset(told)
    before = earlier.pop(key, frozenset())
    earlier[key] = now  # the latest stands last
    for old in list(earlier)[:-_KEPT]:
        del earlier[old]
    return now - before
