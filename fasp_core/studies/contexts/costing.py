"""What the sets of a matrix take from the model: perplexity of paragraphs, and LAMBADA's last words.

Each different set of heads and neurons is removed once; what is told of several tests is the mean over their sets. Of
names that were halved several times the sets of the first halving stand for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fasp_core.data.text import fitting
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.perplexity import Nll, PerplexityChange, perplexity_change, ppl_key
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.keys import digest
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.answers.measures import Estimate
from fasp_core.studies.common import KIND, Steps, kept, read_nll
from fasp_core.studies.contexts.cells import Cell, Matrix
from fasp_core.tasks.costs import CostConfig, costs_of
from fasp_core.tasks.last_words import passages
from fasp_core.typing import Floats, Report

CONFIG = CostConfig(("paragraphs", "lambada"), "test", 2048, 60)


@dataclass(frozen=True)
class RowCosts:
    """Of some tests, the mean over their sets.

    Attributes
    ----------
    paragraphs : change of perplexity; its interval is from the spread over blocks of text.
    points : change of right last words of a hundred, with an interval over passages (`points_of`).
    passages : how many.
    """

    paragraphs: PerplexityChange
    points: Estimate
    passages: int

    @property
    def said(self) -> str:
        """`paragraphs +1.2% [+0.3, +2.1] (2,044 tokens), LAMBADA -0.5 points [-2.0, +1.0] (60 passages)`."""
        nats, ends = self.paragraphs.change_nats, self.paragraphs.interval
        value, low, high = (100 * math.expm1(min(x, 700.0)) for x in (nats, *ends))
        between = f"[{low:+.1f}, {high:+.1f}]" if math.isfinite(ends[1]) else "no interval of one block"
        return (
            f"paragraphs {value:+.1f}% {between} ({self.paragraphs.tokens:,} tokens), LAMBADA "
            f"{self.points.value:+.1f} points [{self.points.low:+.1f}, {self.points.high:+.1f}] "
            f"({self.passages} passages)"
        )


@dataclass(frozen=True, eq=False)
class SetCosts:
    """Of all sets of a matrix.

    Attributes
    ----------
    texts : paragraphs without each set, by its text; "" is the whole model's.
    right : [passages] whether the last word is right, likewise.
    """

    texts: dict[str, Nll]
    right: dict[str, Floats]
    provenance: dict[str, Any]

    def of(self, cells: Sequence[Cell]) -> RowCosts | None:
        """Of some tests; None where one of them removes single weights, or its sets are not known, or there is none."""
        sets = [_asked(cell) for cell in cells]
        if not sets or any(mine is None for mine in sets):
            return None
        sums, right = (
            np.mean([np.mean([found[s] for s in mine or ()], axis=0) for mine in sets], axis=0)
            for found in ({s: nll.sums for s, nll in self.texts.items()}, self.right)
        )
        base = self.texts[""]
        points = points_of(right - self.right[""])
        return RowCosts(perplexity_change(base, Nll(sums, base.counts)), points, len(right))


def points_of(changes: Floats) -> Estimate:
    """Mean change of right answers [n], each from -1 to 1, in points.

    A normal interval that allows for two items more, one whose answer was lost in half and one that was won: where no
    answer changed, some others might (Agresti and Min 2005, for sets one by one, where changes are -1, 0 or 1).
    """
    size, squares = len(changes) + 2, float((changes**2).sum()) + 1
    mean = float(changes.sum()) / size
    half = 1.959964 * math.sqrt(max(squares / size - mean**2, 0.0) / size)
    low, high = max(100 * (mean - half), -100.0), min(100 * (mean + half), 100.0)
    return Estimate(100 * float(changes.mean()), low, high)


def _asked(cell: Cell) -> tuple[str, ...] | None:
    """Of names that were halved several times the first halving's sets."""
    return None if cell.sets is None else cell.sets[:2]


def measure(lm: LanguageModel, matrix: Matrix, store: Store, progress: Report | None = None) -> SetCosts:
    """Remove each different set of heads and neurons of a matrix, and measure; stored, as is every step of it."""
    sets = _sets(matrix)

    def work() -> Any:
        steps = Steps(progress, len(sets))
        found = [costs_of(lm, PruneSet.parse(one), CONFIG, store, steps.next()) for one in sets]
        rows = [one["paragraphs"].rows for one in found]
        right = np.stack([one["lambada"].right for one in found if one["lambada"].right is not None])
        arrays = {"sums": np.stack([r.sums for r in rows]), "counts": rows[0].counts.astype(np.int32), "right": right}
        return {"arrays": arrays, "meta": {"sets": sets}}

    return kept(store, lm, "contexts-costs", _key(lm.id, sets), work, _read)


def stored(model_id: ModelId, matrix: Matrix, store: Store) -> SetCosts | None:
    """What was measured of a matrix; never loads a model."""
    return store.read(KIND, _key(model_id, _sets(matrix)), _read)


def _sets(matrix: Matrix) -> list[str]:
    return sorted({"", *(one for cell in matrix.cells for one in _asked(cell) or ())})


def _key(model_id: ModelId, sets: Sequence[str]) -> dict[str, Any]:
    texts = [ppl_key(fitting(CONFIG.paragraphs, model_id.longest), model_id), _words()]
    how = {name: value for name, value in asdict(CONFIG).items() if name != "text"}
    return {
        "experiment": "contexts-costs",
        **model_id.key(),
        "sets": digest(list(sets)),
        "costs": how,
        "texts": digest(texts),
    }


def _words() -> str:
    return passages(CONFIG.split, CONFIG.items, CONFIG.seed).digest


def _read(entry: Entry) -> SetCosts:
    sets, arrays = entry.meta["sets"], entry.arrays
    texts = dict(zip(sets, read_nll(arrays["sums"], arrays["counts"]), strict=True))
    right = dict(zip(sets, arrays["right"].astype(float), strict=True))
    return SetCosts(texts, right, entry.meta["provenance"])
