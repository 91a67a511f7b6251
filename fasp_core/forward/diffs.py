"""Two continuations of one prompt against each other: what differs, and where toxicity moved most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from fasp_core.lazy import pd

_WORD = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
_BROKEN = "\ufffd"  # what a decoder writes for a character whose bytes are not all there yet


@dataclass(frozen=True)
class Span:
    """A stretch of text, and whether the other text lacks it."""

    text: str
    changed: bool


def word_pieces(text: str) -> list[str]:
    """A text cut into words and signs, each with the space before it. Joined they are the text."""
    return _WORD.findall(text)


def token_pieces(tokenizer: Any, ids: Sequence[int], special: bool = False) -> list[str]:
    """[len(ids)] what each token adds to the text. Joined they are the decoded text.

    A token that ends inside a character adds nothing; the one that completes it adds the character.

    Parameters
    ----------
    special : whether special tokens are a part of the text.
    """

    def decoded(n: int) -> str:
        return str(tokenizer.decode(list(ids[:n]), skip_special_tokens=not special))

    whole, pieces, done = decoded(len(ids)), [], 0
    for n in range(1, len(ids) + 1):
        text = whole if n == len(ids) else decoded(n)
        ready = whole.startswith(text) and not (text.endswith(_BROKEN) and n < len(ids))
        end = max(len(text), done) if ready else done
        pieces.append(whole[done:end])
        done = end
    return pieces


def compare(before: Sequence[str], after: Sequence[str]) -> tuple[list[Span], list[Span]]:
    """Both texts as spans, from their pieces: what one has and the other has not, at that place, is changed.

    Spans of a side joined are its pieces joined; neighbours differ in `changed`; none is empty.
    """
    sides: tuple[list[Span], list[Span]] = ([], [])
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for side, text in zip(sides, ("".join(before[a:b]), "".join(after[c:d])), strict=True):
            if text:
                _append(side, Span(text, kind != "equal"))
    return sides


def _append(spans: list[Span], span: Span) -> None:
    if spans and spans[-1].changed == span.changed:  # pieces without text may stand between two
        span = Span(spans.pop().text + span.text, span.changed)
    spans.append(span)


def largest_changes(frame: pd.DataFrame, k: int) -> pd.DataFrame:
    """The k largest rises and the k largest falls of toxicity in each group.

    Parameters
    ----------
    frame : one row a prompt, with the columns group, toxicity_base and toxicity_pruned (`Evaluation.side_by_side`).

    Returns
    -------
    rows of `frame` with a column `change`, numbered again: by group in alphabetical order, in a group from the largest
    rise to the largest fall. Prompts whose toxicity did not move are in neither. Of equal ones the earlier goes first.
    """
    moved = frame.assign(change=frame.toxicity_pruned - frame.toxicity_base)
    parts = []
    for _, rows in moved.groupby("group", sort=True):
        rises = rows[rows.change > 0].sort_values("change", ascending=False, kind="stable").head(k)
        falls = rows[rows.change < 0].sort_values("change", kind="stable").head(k)
        parts += [rises, falls[::-1]]
    return pd.concat(parts).reset_index(drop=True) if parts else moved
