"""Nothing is left of a fragment that a newer run of it has overtaken.

When a fragment is to run again, Streamlit takes back what its last run has said and a browser has not heard yet
(`AppSession._clear_queue`, 1.67), but neither references to messages that the browser keeps, which name no fragment,
nor what fragments inside it have said. A browser that hears of those without what came before them ("Bad delta path
index") shows an empty page from then on. Here all goes that lies at or below the place of the fragment.
"""

from __future__ import annotations

from functools import wraps

from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.app_session import AppSession

PLACES = "_places_of_fragments"  # of a session: by fragment, the path of what holds it


def install() -> None:
    """Let sessions of this process take back fragments with all that is in them; once is enough."""
    enqueue, clear = AppSession._enqueue_forward_msg, AppSession._clear_queue
    if hasattr(clear, "__wrapped__"):
        return

    @wraps(enqueue)
    def enqueued(self: AppSession, msg: ForwardMsg) -> None:
        if msg.HasField("delta") and msg.delta.fragment_id:
            places = self.__dict__.setdefault(PLACES, {})
            path = tuple(msg.metadata.delta_path)
            places[msg.delta.fragment_id] = min(places.get(msg.delta.fragment_id, path), path, key=len)
        enqueue(self, msg)

    @wraps(clear)
    def cleared(self: AppSession, fragment_ids_this_run: list[str] | None = None) -> None:
        clear(self, fragment_ids_this_run)
        places = [self.__dict__.get(PLACES, {}).get(one) for one in fragment_ids_this_run or ()]
        queue = self._browser_queue
        queue._queue = [one for one in queue._queue if not any(place and _within(one, place) for place in places)]

    AppSession._enqueue_forward_msg = enqueued  # type: ignore[method-assign]
    AppSession._clear_queue = cleared  # type: ignore[method-assign]


def _within(msg: ForwardMsg, place: tuple[int, ...]) -> bool:
    return tuple(msg.metadata.delta_path)[: len(place)] == place
