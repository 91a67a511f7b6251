"""Which attention heads of a language model carry social bias, and what pruning them costs.

    import fasp_core as fasp

    lm = fasp.load("built-in")
    table = fasp.score(lm, "race_ethnicity")
    chosen = fasp.select(table, gamma=0.3, alpha=0.05)
    result = fasp.evaluate(lm, chosen, "race_ethnicity")

These four names are imported when they are first used: `import fasp_core` alone is quick and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fasp_core.api import evaluate as evaluate
    from fasp_core.api import load as load
    from fasp_core.api import score as score
    from fasp_core.api import select as select

_NAMES = ("evaluate", "load", "score", "select")


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'fasp_core' has no attribute '{name}'")
    from fasp_core import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
