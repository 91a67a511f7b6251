"""Nothing is left of a fragment that a newer run of what surrounds it has overtaken.

When a fragment is to run again, Streamlit takes back what an earlier run of it has said and a browser has not heard yet
(`AppSession._clear_queue`, 1.67), but not what fragments inside it have said. A browser that hears of an inner one
whose surroundings it was never told of ("Bad delta path index") shows an empty page from then on.
"""

from __future__ import annotations

from functools import wraps

from streamlit.runtime.app_session import AppSession


def install() -> None:
    """Let sessions of this process take back inner fragments with the outer ones; once is enough."""
    clear = AppSession._clear_queue
    if hasattr(clear, "__wrapped__"):
        return

    @wraps(clear)
    def cleared(self: AppSession, fragment_ids_this_run: list[str] | None = None) -> None:
        if fragment_ids_this_run:
            said = {message.delta.fragment_id for message in self._browser_queue._queue}
            inside = [one for one in said if self._fragment_storage.has_ancestor_in(one, fragment_ids_this_run)]
            fragment_ids_this_run = [*fragment_ids_this_run, *inside]
        clear(self, fragment_ids_this_run)

    AppSession._clear_queue = cleared  # type: ignore[method-assign]
