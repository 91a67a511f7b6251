"""What was said inside a fragment is taken back with what was said by the fragment."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.forward_msg_queue import ForwardMsgQueue

from pages.shell import overtaken

ALONE = {name: getattr(AppSession, name) for name in ("_clear_queue", "_enqueue_forward_msg")}
ALONE = {name: getattr(method, "__wrapped__", method) for name, method in ALONE.items()}


def said(fragment: str | None, *path: int) -> ForwardMsg:
    found = ForwardMsg()
    found.metadata.delta_path.extend(path)
    found.delta.add_block.allow_empty = True
    if fragment is not None:
        found.delta.fragment_id = fragment
    return found


def referred(*path: int) -> ForwardMsg:
    """To what the browser keeps: of no fragment by name."""
    found = ForwardMsg()
    found.metadata.delta_path.extend(path)
    found.ref_hash = f"hash of {path}"
    return found


HEARD = [said("page", 0, 1), said("page", 0, 1, 0)]  # of the last run, before the rest
QUEUED = [
    referred(0, 0),
    said("runs", 1, 0),
    said("page", 0, 1, 5),
    said("row", 0, 1, 6),
    said("look", 0, 1, 6, 2),
    referred(0, 1, 6, 3),
    referred(0, 1, 7),
    said("other", 0, 10, 6),
]


def session() -> Any:
    """Not heard yet: a panel of runs beside a page, of which a part was heard, that has a row, with a look inside."""
    queue = ForwardMsgQueue()
    found = SimpleNamespace(_browser_queue=queue)
    found._enqueue_forward_msg = lambda msg: AppSession._enqueue_forward_msg(found, msg)  # type: ignore[arg-type]
    for one in HEARD:
        found._enqueue_forward_msg(one)
    queue.flush()
    end = ForwardMsg()
    end.script_finished = ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
    for one in (*QUEUED, end):
        found._enqueue_forward_msg(one)
    return found


def left(of: Any) -> list[tuple[int, ...]]:
    found = of._browser_queue.flush()
    assert [one.WhichOneof("type") for one in found].count("script_finished") == 1
    return [tuple(one.metadata.delta_path) for one in found if not one.HasField("script_finished")]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions as they come."""
    for name, method in ALONE.items():
        monkeypatch.setattr(AppSession, name, method)
    monkeypatch.setattr(ForwardMsgQueue, "_before_enqueue_msg", None)
    quiet = lambda self, msg: self._browser_queue.enqueue(msg)  # noqa: E731
    monkeypatch.setattr(AppSession, "_enqueue_forward_msg", quiet)


@pytest.mark.parametrize(
    ("again", "kept"),
    [
        (["page"], [(0, 0), (1, 0), (0, 10, 6)]),
        (["row"], [(0, 0), (1, 0), (0, 1, 5), (0, 1, 7), (0, 10, 6)]),
        (["look"], [(0, 0), (1, 0), (0, 1, 5), (0, 1, 6), (0, 1, 6, 3), (0, 1, 7), (0, 10, 6)]),
        (["runs"], [(0, 0), (0, 1, 5), (0, 1, 6), (0, 1, 6, 2), (0, 1, 6, 3), (0, 1, 7), (0, 10, 6)]),
        (["runs", "page"], [(0, 0), (0, 10, 6)]),
        (["unknown"], [tuple(one.metadata.delta_path) for one in QUEUED]),
        (None, []),
    ],
)
def test_all_that_lies_in_a_fragment_is_taken_back_with_it(
    again: Sequence[str] | None, kept: list[tuple[int, ...]]
) -> None:
    overtaken.install()
    overtaken.install()  # at every run of the app
    one = session()
    AppSession._clear_queue(one, None if again is None else list(again))
    assert left(one) == kept


def test_streamlit_alone_still_needs_it() -> None:
    """When this fails, Streamlit takes both back itself: `overtaken` can go."""
    one = session()
    AppSession._clear_queue(one, ["page"])
    assert {(0, 1, 6), (0, 1, 7)} & set(left(one))
