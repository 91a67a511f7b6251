"""Bias suites before and after pruning: which there are, what each says of a prune set, and how many were looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fasp_core.data.scorers import Scorer
from fasp_core.errors import InputError
from fasp_core.gap.claims import shown
from fasp_core.gap.comparison import gap_stats, paired_gap_changes
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.continuations import Judge
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.suites import files, scores
from fasp_core.suites.compare import FEWEST, LEVEL, RESAMPLES, UNTOLD, Measured, compared
from fasp_core.suites.items import Item, Sample, draw
from fasp_core.suites.running import CONTINUED, Arrays, K, hurtful_of, likelihoods_of, toxicity_of
from fasp_core.typing import Report

FEW = 20  # clusters, below which resampling them gives intervals that are too short


@dataclass(frozen=True)
class Suite:
    """One of `SUITES`.

    Attributes
    ----------
    read : its items, and notes of what was left out.
    item, cluster : what one is, and what is resampled, in words.
    columns, scores : of likelihoods, see `scores`; none of the suites that score what a model writes.
    turns : whether kinds take turns when items are drawn.
    """

    read: Callable[[], files.Read]
    item: str
    cluster: str
    columns: Callable[..., dict[str, Any]] | None = None
    scores: tuple[scores.Score, ...] = ()
    turns: bool = False


_PAIR = "two sentences that differ in the pronoun alone, pro and anti; who it refers to, asked of each"
SUITES = {
    "bbq": Suite(
        files.bbq, "four questions of two people, ambiguous and disambiguated", "templates", scores.bbq_columns,
        scores.BBQ, turns=True,
    ),
    "winobias": Suite(files.winobias, _PAIR, "pairs of occupations", scores.wino_columns, scores.WINO),
    "winogender": Suite(files.winogender, _PAIR, "occupations", scores.wino_columns, scores.WINO),
    "crows_pairs": Suite(files.crows_pairs, "a pair of sentences", "pairs", scores.crows_columns, scores.CROWS),
    "stereoset": Suite(
        files.stereoset, "three sentences that differ in a word", "target terms", scores.stereo_columns, scores.STEREO
    ),
    "stereoset_inter": Suite(
        files.stereoset_inter, "three sentences after the same one", "target terms", scores.stereo_columns,
        scores.STEREO,
    ),
    "honest": Suite(
        files.honest, f"a beginning of a sentence and its {K} likeliest words", "templates", None, scores.HONEST
    ),
    "bold": Suite(
        files.bold, f"a beginning of a sentence and a continuation of {CONTINUED.tokens} tokens", "prompts", turns=True
    ),
}  # fmt: skip
ALL = (*(name for name in SUITES if name != "bold"), "bold:race", "bold:gender")
_CHOICE = f"choose of {', '.join(SUITES)} (or a part of one, such as bbq:Religion), or say all"


def named(text: str) -> tuple[str, ...]:
    """Suites of a list with commas, each once; "all" are `ALL`.

    Raises
    ------
    InputError
        None is named, one that does not exist, or BOLD without its domain.
    """
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise InputError(f"No suite is named: {_CHOICE}.")
    if found == ("all",):
        return ALL
    for name in found:
        suite, _, part = name.partition(":")
        if suite not in SUITES:
            raise InputError(f"There is no suite {suite!r}: {_CHOICE}.")
        if suite == "bold" and not part:
            domains = ", ".join(f"bold:{domain}" for domain in files.BOLD_DOMAINS)
            raise InputError(f"BOLD compares groups of one domain: choose of {domains}.")
    return found


def sample(name: str, items: int, seed: int = 0) -> Sample:
    """Items of a suite at random. InputError as `draw`, and where the data package is missing or damaged."""
    suite = SUITES[name.partition(":")[0]]
    everything, notes = suite.read()
    if suite is SUITES["bold"]:
        everything, notes = _large_groups(name.partition(":")[2], everything)
    return draw(name, everything, items, seed, suite.turns, notes)


def _large_groups(domain: str, items: Sequence[Item]) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Items of groups of which something can be told, and a note on the others of this domain."""
    counts = Counter(item.kind for item in items)
    small = {kind.partition("/")[2]: n for kind, n in counts.items() if n < FEWEST and kind.startswith(f"{domain}/")}
    left = ", ".join(f"{group} ({n})" for group, n in sorted(small.items()))
    notes = (f"Groups with fewer than {FEWEST} prompts were left out: {left}.",) if small else ()
    return tuple(item for item in items if counts[item.kind] >= FEWEST), notes


@dataclass(frozen=True, eq=False)
class SuiteChange:
    """One suite before and after. `cut`: texts that lost their beginning, the model taking no more."""

    drawn: Sample
    measured: tuple[Measured, ...]
    cut: int = 0

    @property
    def said(self) -> str:
        """One sentence: what its scores of fairness show."""
        return f"{self.drawn.name}: {'; '.join(m.said for m in self.measured if m.fairness)}."

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        suite = SUITES[self.drawn.suite]
        return {
            "items": len(self.drawn.items),
            "available": self.drawn.available,
            "seed": self.drawn.seed,
            "item": suite.item,
            "resampled": suite.cluster,
            "scores": [m.as_dict() for m in self.measured],
            "cut": self.cut,
            "said": self.said,
        }


@dataclass(frozen=True, eq=False)
class Suites:
    """A prune set and what it does to each suite. `scorer` is None where none was asked."""

    prune_set: PruneSet
    suites: dict[str, SuiteChange]
    scorer: str | None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def looked_at(self) -> str:
        """How many scores of fairness were compared, and what of that is expected by chance."""
        fair = [m for suite in self.suites.values() for m in suite.measured if m.fairness]
        able = [m for m in fair if m.verdict in ("fairer", "less fair") or UNTOLD in m.verdict]
        counts = {word: sum(m.verdict == word for m in able) for word in ("fairer", "less fair")}
        return (
            f"{len(fair)} scores of fairness in {len(self.suites)} suites were looked at: {counts['fairer']} fairer, "
            f"{counts['less fair']} less fair, {len(able) - sum(counts.values())} without a change that can be told, "
            f"{len(fair) - len(able)} that tell nothing. Each interval is 95% by itself: of {len(able)}, about "
            f"{len(able) * (1 - LEVEL):.1f} would show a change were there none"
        )

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of the items, one sentence each."""
        found = []
        for name, suite in self.suites.items():
            found += [f"{name}: {note}" for note in suite.drawn.notes]
            if len(suite.drawn.items) < suite.drawn.asked:
                found.append(f"{name} holds {suite.drawn.available:,} items: all of them were taken.")
            if suite.cut:
                found.append(f"{name}: {suite.cut:,} texts are too long for the model and lost their beginning.")
            clusters = min(m.clusters for m in suite.measured)
            if clusters < FEW:
                found.append(f"{name}: its items are of {clusters} clusters, too few for intervals to be relied on.")
        return found

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "heads": [list(head) for head in self.prune_set],
            "prune_set": self.prune_set.format(),
            "heads_removed": len(self.prune_set.heads),
            "neurons_removed": len(self.prune_set.neurons),
            "heads_scaled": len(self.prune_set.gains),
            "intervals": f"symmetric bootstrap, {RESAMPLES:,} resamples of whole clusters, both models on the same",
            "scorer": self.scorer,
            "suites": {name: suite.as_dict() for name, suite in self.suites.items()},
            "looked_at": self.looked_at,
            "notes": self.notes,
            "provenance": self.provenance,
        }


def measure(
    lm: LanguageModel,
    prune_set: PruneSet,
    samples: Sequence[Sample],
    store: Store,
    judge: Judge | None = None,
    hurtful: frozenset[str] | None = None,
    progress: Report | None = None,
) -> Suites:
    """Both models on samples of suites; what is stored is not measured again.

    Parameters
    ----------
    judge : who says how toxic words (HONEST) and continuations (BOLD) are; else the offline scorer.
    hurtful : words in lower case that HONEST counts, see `running.lexicon`; else those that the judge gives.

    Raises
    ------
    InputError
        A head or neuron is not in the model, a text cannot be scored by it, or the scorer cannot be used.
    """
    prune_set.gates(lm.n_layers, lm.n_heads)  # says so before anything is run
    prune_set.neuron_gates(lm.n_layers, lm.n_neurons)
    scored = {drawn.suite for drawn in samples} & ({"bold"} if hurtful else {"bold", "honest"})
    scorer = (judge or Judge()).on(lm) if scored else None
    found: dict[str, SuiteChange] = {}
    made: dict[str, Any] = {}
    seconds = 0.0
    for i, drawn in enumerate(samples):
        sides = []
        for j, removed in enumerate((PruneSet(), prune_set)):

            def inner(done: float, total: float, text: str, at: int = 2 * i + j, name: str = drawn.name) -> None:
                if progress is not None:
                    progress(at + done / max(total, 1), 2 * len(samples), f"{name}: {text}")

            arrays, made = _run(lm, removed, drawn, store, (hurtful, scorer), inner)
            sides.append(arrays)
            seconds += made["seconds"]
        cut = int(sides[0]["cut"].sum()) if "cut" in sides[0] else 0
        found[drawn.name] = SuiteChange(drawn, _change(drawn, *sides), cut)
    if progress is not None:
        progress(1, 1, "done")
    name = scorer.name if scorer else None
    return Suites(prune_set, found, name, {**made, "seconds": round(seconds, 1)})


def _run(
    lm: LanguageModel,
    removed: PruneSet,
    drawn: Sample,
    store: Store,
    judges: tuple[frozenset[str] | None, Scorer | None],
    progress: Report,
) -> tuple[Arrays, dict[str, Any]]:
    words, scorer = judges
    if drawn.suite == "honest" and (judge := words or scorer) is not None:
        return hurtful_of(lm, removed, drawn, store, judge, progress)
    if drawn.suite == "bold" and scorer is not None:
        return toxicity_of(lm, removed, drawn, store, scorer, progress)
    return likelihoods_of(lm, removed, drawn, store, progress)


def _change(drawn: Sample, base: Arrays, pruned: Arrays) -> tuple[Measured, ...]:
    """All scores of a suite, from what both models made of it."""
    suite = SUITES[drawn.suite]
    if drawn.suite == "bold":
        return (bold_change(drawn, base["toxicity"], pruned["toxicity"]),)
    one, other = (_columns(suite, drawn, side) for side in (base, pruned))
    return compared(drawn.items, one, other, suite.scores)


def _columns(suite: Suite, drawn: Sample, side: Arrays) -> scores.Columns:
    if suite.columns is None:
        return scores.honest_columns(drawn.items, side["hurtful"])
    return suite.columns(drawn.items, side["values"], side["tokens"].astype(np.float64))


def bold_change(drawn: Sample, base: np.ndarray, pruned: np.ndarray) -> Measured:
    """The gap between the groups of a domain, by the toxicity [n] of both models' continuations."""
    groups = [item.kind.partition("/")[2] for item in drawn.items]
    one, other = (gap_stats(values, groups, resamples=RESAMPLES, level=LEVEL) for values in (base, pruned))
    (change,) = paired_gap_changes(base, [pruned], groups, resamples=RESAMPLES, level=LEVEL)
    ends = [own.interval or (0.0, 0.0) for own in (one, other)]  # there are resamples
    changed = change.interval or (0.0, 0.0)
    verdict = {
        "fell": "fairer",
        "rose": "less fair",
        "unclear": UNTOLD + " in percent of the gap" * (not changed[0] <= 0 <= changed[1]),
        "no gap": f"no gap is shown to begin with (shuffled groups give one as large in {one.noise_p:.0%} of cases)",
    }[shown(one.noise_p, change)]
    if (smallest := min(one.group_sizes.values())) < FEWEST:
        verdict = f"{UNTOLD} of {smallest} prompts of a group"
    name = f"gap of toxicity between {len(set(groups))} groups"
    return Measured(
        name, "toxicity", "lower is fairer", None, one.gap, ends[0], other.gap, ends[1], change.change, changed,
        change.change, changed, None, True, verdict, len(groups), len(groups),
    )  # fmt: skip
