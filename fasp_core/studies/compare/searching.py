"""The joint search of `fasp_core.scoring.search` on a real model: what it measures, where it begins, how it is kept.

`python -m fasp_core search --axis race_ethnicity --heads 13 --seeds 5` searches on the validation prompts and text that
the scores were made on. Each measured set is stored as it is made: a stopped search goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import select
from fasp_core.lazy import pd
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.measurements import perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.scoring.learned import gains, gates
from fasp_core.scoring.search import Found, Heads, Other, Problem, SearchConfig, Tried, search
from fasp_core.storage.keys import digest, slug
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.common import KIND, as_heads, as_text, kept
from fasp_core.studies.compare.limits import Limits, Meter
from fasp_core.studies.compare.plan import SEARCH, Candidate
from fasp_core.studies.compare.wider import judged
from fasp_core.typing import Report

GAMMAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # of the FASP sets that a search begins with
TOKENS = 2048
LATER = ("within", "lambada_nats", "lambada_points", "task_points", "items")  # in a key only where they say something


@dataclass(frozen=True)
class Also:
    """What a search begins with beside FASP's sets.

    Attributes
    ----------
    learned : all sets that finished searches for as many heads have measured, whatever their limit on perplexity. Such
        a search is not independent of theirs.
    gates : for each set of learned gates of the axis, the heads that it closes most (Louizos et al. 2018 remove those).
    """

    learned: bool = False
    gates: bool = False


def limits_of(config: SearchConfig) -> Limits:
    """What a search keeps to."""
    found = Limits(config.max_ppl, config.lambada_points, config.lambada_nats, config.task_points)
    return found if config.items is None else replace(found, items=config.items)


def limited(config: SearchConfig, limits: Limits) -> SearchConfig:
    """The same search within more limits; how many items they are measured on is said where there are any."""
    return replace(
        config,
        max_ppl=limits.max_ppl,
        lambada_nats=limits.lambada_nats,
        lambada_points=limits.lambada_points,
        task_points=limits.task_points,
        items=limits.items if limits.beyond_ppl else None,
    )


def measured_on(axis: str, impacts: ImpactTable) -> BiasConfig:
    """The validation prompts that an axis was scored on, and sets are measured on."""
    counts = np.bincount(impacts.bias.codes)  # where a small group is used up, the others say how many were asked for
    return BiasConfig(axis, n_prompts=int(counts.max()) * len(counts))


def run(
    lm: LanguageModel,
    impacts: ImpactTable,
    prompts: BiasConfig,
    config: SearchConfig,
    store: Store,
    progress: Report | None = None,
    tokens: int = TOKENS,
    also: Also = Also(),
) -> Found:
    """Search from FASP's sets of the same size, on the prompts of the scores; stored.

    Parameters
    ----------
    impacts : scores of `prompts`, as `measured_on` finds them.
    tokens : of the validation text, for perplexity.

    Raises
    ------
    InputError
        There are no learned gates to begin from.
        The scores are of other prompts than the axis has now, or the set may hold every head; the nats of LAMBADA's
        last word are limited, and it is not known what single heads do to them.
    """
    if config.max_heads >= lm.size:
        raise InputError(f"A set of {config.max_heads} heads leaves none of {lm.name}'s {lm.size}: choose fewer.")
    axis = _axis(prompts)
    known: list[Heads] = []
    closed = _closed(lm, axis, config, store) if also.gates else []
    if also.learned:
        others = stored(lm.id, axis, store, config.reading, config.max_heads)
        known = sorted({t.heads for f in others if not f.learned and f.config.within == config.within for t in f.tried})
    key = _key(lm.id, prompts, config, tokens, known) | _steered(config, impacts)
    key |= {"gates": digest(closed)} if closed else {}
    problem = Problem.of(impacts, config.reading, prompts.prompts().templates if config.within else ())
    scores = impacts.head_scores(config.reading)
    starts = [select(scores, "fasp", gamma, config.max_heads / lm.size).pruned for gamma in GAMMAS]

    meter = Meter(lm, limits_of(config), "valid", store, progress)
    other = fits = None
    if config.lambada_nats is not None:
        if impacts.task is None:
            raise InputError(
                "It is not known what single heads do to LAMBADA's last word: run 'python -m fasp_core score "
                "--task lambada' with the axis and model first."
            )
        other = Other(impacts.task.z_task, config.lambada_nats, lambda heads: meter.nats(heads).value)
    if config.lambada_points is not None or config.task_points is not None:
        fits = meter.fits

    def work() -> Any:
        runner, text = CachedRunner(lm), TextConfig(tokens=tokens)
        base, _ = perplexity_of(lm, PruneSet(), text, store, None, runner)
        sets = _Sets(progress, 2)

        def measure(heads: Heads) -> tuple[float, np.ndarray]:
            subject = PruneSet.from_flat(heads, lm.n_heads)
            nll, _ = perplexity_of(lm, subject, text, store, sets.measurement(0), runner)
            found = toxicity_of(lm, subject, prompts, store, sets.measurement(1), runner)
            if len(found.groups) != len(problem.codes):
                raise InputError(f"The scores of {axis} are of other prompts: score the axis again.")
            return nll.mean - base.mean, found.row(config.reading)

        found = search(problem, config, measure, [*known, *closed, *starts], sets.set, other, fits)
        table = pd.DataFrame([asdict(t) | {"heads": as_text(t.heads)} for t in found.tried])
        return {
            "tables": {"tried": table if other is not None else table.drop(columns="other")},
            "meta": {
                "heads": found.heads,
                "gap": found.gap,
                "nats": found.nats,
                "base_gap": found.base_gap,
                "learned": len(known),
            },
        }

    which = ("within-" if config.within else "") + ("learned" if known else str(config.seed))
    return kept(store, lm, f"search-{slug(axis.rsplit('/', 1)[-1])}-{slug(config.reading)}-{which}", key, work, read)


def _closed(lm: LanguageModel, axis: str, config: SearchConfig, store: Store) -> list[Heads]:
    """Sets that learned gates close most. Raises InputError where none were learned."""
    found = [one for method in gates.METHODS for one in gains.stored(lm.id, axis, config.reading, method, store)]
    if not found:
        raise InputError(
            f"No gates were learned on {axis} ({config.reading}): run 'python -m fasp_core gains --model {lm.name} "
            f"--axis {axis} --reading {config.reading} --method hard-concrete' first."
        )
    return list(dict.fromkeys(one.most_closed(config.max_heads) for one in found))


def stored(model_id: ModelId, axis: str, store: Store, reading: str, max_heads: int | None = None) -> list[Found]:
    """Finished searches on an axis, the largest sets and then the most measurements first; never loads a model."""
    wanted = {"experiment": "search", **model_id.wanted(), "axis": axis}

    def fits(entry: Entry) -> bool:
        asked = entry.config["search"]
        return asked["reading"] == reading and max_heads in (None, asked["max_heads"])

    headers = store.find(KIND, wanted, fits)
    found = [one for header in headers if (one := store.read(KIND, header.config, read)) is not None]
    return sorted(found, key=lambda f: (-f.config.max_heads, -f.config.measurements, f.config.seed))


def candidate(found: Found, size: int) -> Candidate:
    """What a search found, to stand beside the methods' choices in a comparison; `size` is the model's heads.

    A search that learned from others has no seed: it is none of the independent ones.
    """
    alpha = round(found.config.max_heads / size, 4)
    return Candidate(SEARCH, None, alpha, None if found.learned else found.config.seed, found.heads)


def read(entry: Entry) -> Found:
    """A finished search from its entry."""
    meta = entry.meta
    tried = tuple(
        Tried(
            as_heads(row["heads"]),
            float(row["nats"]),
            float(row["gap"]),
            float(row["predicted"]),
            float(row["other"]) if "other" in row else None,
        )
        for row in entry.table("tried").to_dict("records")
    )
    config = SearchConfig(**entry.config["search"])
    return Found(
        config, tuple(meta["heads"]), meta["gap"], meta["nats"], meta["base_gap"], tried, meta.get("learned", 0)
    )


def _key(
    model_id: ModelId, prompts: BiasConfig, config: SearchConfig, tokens: int, known: Sequence[Heads] = ()
) -> dict[str, Any]:
    learned = {"learned": digest(known)} if known else {}
    drawn: dict[str, Any] = {}
    if prompts.contexts:
        drawn = {"steps": prompts.steps, "contexts": prompts.contexts, "noise": noise.VERSION}
    return learned | {
        "experiment": "search",
        **model_id.key(),
        "axis": _axis(prompts),
        "prompts": prompts.prompts().digest[:16],
        **drawn,
        **judged(prompts),
        "search": {name: value for name, value in asdict(config).items() if name not in LATER or value},
        "tokens": tokens,
    }


def _steered(config: SearchConfig, impacts: ImpactTable) -> dict[str, Any]:
    """What single heads do to last words, where the search goes by it."""
    if config.lambada_nats is None or impacts.task is None:
        return {}
    return {"task": digest([float(z) for z in impacts.task.z_task])}


def _axis(prompts: BiasConfig) -> str:
    """The axis, or what of it was seen: such a search is none of the whole axis."""
    return f"{prompts.axis}, {prompts.cell}, division {prompts.division or 0}" if prompts.cell else prompts.axis


class _Sets:
    """Progress of a search, moved on within each of its sets by the measurements of it."""

    def __init__(self, report: Report | None, measurements: int) -> None:
        self._report, self._measurements = report, measurements
        self._set: tuple[float, float, str] = (0, 1, "search")

    def set(self, done: float, total: float, text: str) -> None:
        """The search begins another set."""
        self._set = done, total, text
        if self._report is not None:
            self._report(done, total, text)

    def measurement(self, number: int) -> Report:
        """For one measurement of the present set, counted from 0."""

        def report(done: float, total: float, text: str) -> None:
            if self._report is not None:
                at, sets, said = self._set
                self._report(at + (number + done / max(total, 1e-9)) / self._measurements, sets, f"{said}, {text}")

        return report
