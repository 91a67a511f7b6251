"""What the first page needs, made while the browser still loads: modules, and the scores that it shows."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

# None registers a component of Streamlit's, which needs a running server.
MODULES = ("pages.explore.measured", "pages.explore.named", "pages.explore.editing", "pages.shell.around")
_reading: threading.Thread | None = None


def begin(folder: Path, ready: Callable[[], bool]) -> None:
    """Begin to read, in a thread of its own.

    Parameters
    ----------
    folder : that of `app.py`.
    ready : whether the server is up. Before, two threads would import Streamlit's modules, which import one another.
    """
    global _reading
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    _reading = threading.Thread(target=_read, args=(ready,), name="ahead", daemon=True)
    _reading.start()


def wait() -> None:
    """Return once all is read, or at once where nobody began: two threads that import the same take turns badly."""
    if _reading is not None:
        _reading.join()


def _read(ready: Callable[[], bool]) -> None:
    while not ready():
        time.sleep(0.01)
    for name in MODULES:
        import_module(name)
    from fasp_core.errors import InputError
    from fasp_core.metrics.meters import BiasConfig, left_out
    from fasp_core.model.spec import ModelSpec
    from pages.backend.engine import engine
    from pages.session.recipe import Recipe

    first = Recipe()
    try:
        table = engine().results.scores(ModelSpec(), BiasConfig(first.axis))
        left_out(BiasConfig(first.axis))
    except InputError:  # a demo without this axis
        return
    if table is not None:  # keeps both
        table.bias.gap(first.reading)
        table.bias.standard_errors(first.reading)
