"""What was said inside a fragment is taken back with what was said by the fragment."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.forward_msg_queue import ForwardMsgQueue
from streamlit.runtime.fragment import MemoryFragmentStorage

from pages.shell import overtaken

INSIDE = {"page": None, "row": "page", "look": "row", "runs": None}


def said(fragment: str | None, *path: int) -> ForwardMsg:
    found = ForwardMsg()
    found.metadata.delta_path.extend(path)
    found.delta.add_block.allow_empty = True
    if fragment is not None:
        found.delta.fragment_id = fragment
    return found


def session() -> Any:
    """Not heard yet: a panel of runs beside a page that has a row, which has a look inside, and the end of a run."""
    found = SimpleNamespace(_browser_queue=ForwardMsgQueue(), _fragment_storage=MemoryFragmentStorage())
    for name, around in INSIDE.items():
        found._fragment_storage.register(name, lambda: None, parent_fragment_id=around)
    end = ForwardMsg()
    end.script_finished = ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
    for one in (
        said(None, 0, 0),
        said("runs", 1, 0),
        said("page", 0, 1),
        said("row", 0, 1, 6),
        said("look", 0, 1, 6, 2),
        end,
    ):
        found._browser_queue.enqueue(one)
    return found


def left(of: Any) -> list[tuple[int, ...]]:
    return [tuple(one.metadata.delta_path) for one in of._browser_queue.flush() if one.HasField("delta")]


@pytest.mark.parametrize(
    ("again", "kept"),
    [
        (["page"], [(0, 0), (1, 0)]),
        (["row"], [(0, 0), (1, 0), (0, 1)]),
        (["look"], [(0, 0), (1, 0), (0, 1), (0, 1, 6)]),
        (["runs"], [(0, 0), (0, 1), (0, 1, 6), (0, 1, 6, 2)]),
        (["runs", "page"], [(0, 0)]),
        (None, []),
    ],
)
def test_inner_fragments_are_taken_back_with_the_outer_one(
    again: Sequence[str] | None, kept: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = AppSession._clear_queue
    alone = getattr(alone, "__wrapped__", alone)
    monkeypatch.setattr(AppSession, "_clear_queue", alone)
    overtaken.install()
    overtaken.install()  # at every run of the app
    one = session()
    asked = None if again is None else list(again)
    AppSession._clear_queue(one, asked)
    assert left(one) == kept
    assert asked == again, "the list itself stays as it came"


def test_streamlit_alone_still_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, Streamlit takes inner fragments back itself: `overtaken` can go."""
    alone = AppSession._clear_queue
    one = session()
    getattr(alone, "__wrapped__", alone)(one, ["page"])
    assert (0, 1, 6) in left(one)
