"""Chosen on one thing, tested on another: does a pruning that helps in one context help elsewhere?

As in Ma et al. (2025, arXiv 2502.07771): parts are chosen on the scenario that they are tested on (by other samples, of
exact answers by other names), on the rest of its context, on another context, or on all others together. Every set is
really removed and the model asked again; answers are drawn with the same noise as the whole model's. `python -m
fasp_core study contexts` runs it; what is finished is kept, so a stopped run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import pd
from fasp_core.metrics.measurements import perplexity_of
from fasp_core.metrics.perplexity import Nll, measure_nll, ppl_key, windows_of
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.answers.distributions import DIGITS, Distributions
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.answers.measures import Answers
from fasp_core.studies.common import KIND, Steps, kept
from fasp_core.studies.contexts import choosing
from fasp_core.studies.contexts.audit import HOW, AuditConfig, Report, audit, pair
from fasp_core.studies.contexts.cells import WEIGHTS, Cell, Cells, Matrix, MatrixConfig
from fasp_core.studies.contexts.choosing import BESIDE, Clues, Method, Sizes
from fasp_core.studies.contexts.halves import Removed, Said, Whole, halvings_of, mean_nll
from fasp_core.studies.contexts.removal import Removal
from fasp_core.studies.contexts.scenarios import Scenario, Scenarios
from fasp_core.studies.contexts.settings import KINDS, Setting, settings

EXACT = {"how": HOW, "digits": DIGITS}  # what shapes exact answers, in the key of a matrix of them


def run(
    lm: LanguageModel,
    world: Scenarios,
    config: MatrixConfig,
    store: Store,
    groups: tuple[str, str] | None = None,
    progress: Report | None = None,
) -> Matrix:
    """Choose, remove, ask: the whole matrix; stored, as is every step of it.

    What another stored matrix, of other methods or halvings but the same in all else, has asked is not asked again. Of
    one whose answers were drawn with earlier noise nothing is taken: it is the same matrix, or none of this one.

    Raises
    ------
    InputError
        No chat template, or groups that are not there.
    """
    compared = pair(world, groups)
    small = world.smaller(config.names, config.scenarios)
    if few := next((g for g in compared if len(small.groups[g]) < 2), None):
        raise InputError(f"The group '{few}' has one name, and sets are chosen by half of the names: give it another.")
    test = replace(config.audit, seed=config.audit.seed + 1)
    text = TextConfig(tokens=config.tokens)
    whole = (
        None
        if config.exact is None
        else Whole(lm, small, config.audit, config.exact, store, compared, config.halvings, config.by_removal)
    )

    def work() -> Any:
        plan = [(m, s) for m in config.methods for s in settings(small.scenarios)]
        known = _known(lm.id, key, store)
        sized = {x: sizes for x in plan if (sizes := _sizes(known, *x)) is not None}
        unsaid = [x for x in plan if x not in known and x not in sized]
        missing = tuple(m for m in config.methods if any(x[0] == m for x in unsaid))
        steps = Steps(progress, 3 * len(small.scenarios) + len(plan))
        said: list[Clues] = []
        halves: list[Said] = []
        base: list[Answers | Distributions] = []
        other: list[Answers | Distributions] = []
        for scenario in small.scenarios:
            if whole is not None:
                base.append(whole.base(scenario, steps.next()))
                other.append(base[-1])  # there is no second sample
                steps.next()
                halves.append(whole.clues(scenario, missing, steps.next()))
                continue
            base.append(audit(lm, scenario, small, test, store, None, compared, steps.next()).answers)
            found = audit(lm, scenario, small, config.audit, store, None, compared, steps.next())
            other.append(found.answers)
            said.append(choosing.clues(lm, found, config.audit, missing, store, steps.next()))
        nll = [perplexity_of(lm, Removal().prune_set, text, store)[0]]
        rows: list[dict[str, Any]] = []
        after: list[Answers | Distributions] = []
        for i, (method, setting) in enumerate(plan):
            report = steps.next()
            cell = known.get((method, setting))
            if cell is None:
                scenario, seed = small.scenarios[setting.tested], _seed(config, setting)
                like = sized.get((method, setting), (None, None))
                if whole is not None:
                    removed = whole.cell(method, setting, halves, scenario, config.sizes, seed, like, report)
                else:
                    sources = [said[j] for j in setting.sources]
                    removal = choosing.choose(lm, method, sources, config.sizes, seed, like[0])
                    found = audit(lm, scenario, small, test, store, removal, compared, report)
                    removed = Removed((removal,), (found.answers,), found.provenance["seconds"])
                cell = Cell(
                    method,
                    setting,
                    max(map(len, removed.removals)),
                    max(r.parameters(lm) for r in removed.removals),
                    "; ".join(r.prune_set.format() for r in removed.removals),
                    removed.answers,
                    mean_nll([_nll(lm, r, text, store) for r in removed.removals]),
                    removed.seconds,
                )
            nll.append(cell.nll)
            after += cell.halvings
            where = {name: getattr(setting, name) for name in ("kind", "chosen_on", "tested")}
            what = {name: getattr(cell, name) for name in ("parts", "parameters", "prune_set", "seconds")}
            several = {"halvings": len(cell.halvings)} if config.halvings > 1 else {}
            rows.append({"row": i, "method": method, **where, **what, **several})
        texts = {"sums": np.stack([n.sums for n in nll]), "counts": nll[0].counts.astype(np.int32)}
        tables, arrays = _stored(base, other, after)
        return {
            "tables": {"cells": pd.DataFrame(rows), **tables},
            "arrays": {**arrays, **texts},
            "meta": {"contexts": small.contexts},
        }

    key = _key(lm, small, config, compared)
    if whole is None and (earlier := store.read(KIND, noise.before(key), read)) is not None:
        return earlier
    return kept(store, lm, "contexts", key, work, read)


def _sizes(known: Cells, method: Method, setting: Setting) -> tuple[int, ...] | None:
    """How many heads or neurons a random set is to hold, of exact answers tested where it was chosen each half's; None
    where the sets that it is to be as large as are not known, or it is none."""
    beside = known.get((BESIDE.get(method, method), setting)) if method in BESIDE else None
    if beside is None:
        return None
    return None if beside.sets is None else tuple(len(PruneSet.parse(one)) for one in beside.sets)


def _known(model_id: ModelId, key: dict[str, Any], store: Store) -> Cells:
    """Cells of stored matrices that differ from this one in their methods alone, in sizes that a cell's method does not
    go by, or in how often names were halved, as far as that changes nothing of a cell."""

    def rest(config: dict[str, Any]) -> dict[str, Any]:
        return {
            **config,
            "matrix": {**config["matrix"], "methods": None, "halvings": None, "sizes": None, "weights": None},
        }

    related = [h for h in find(model_id, store) if rest(h.config) == rest(key)]
    found = [(h, matrix) for h in related if (matrix := store.read(KIND, h.config, read)) is not None]
    halvings, sizes = key["matrix"].get("halvings", 1), Sizes(**key["matrix"]["sizes"])
    return {
        (cell.method, cell.setting): cell
        for header, matrix in found
        for cell in matrix.cells
        if ("weights-effect" not in cell.method or header.config["matrix"].get("weights") == WEIGHTS)
        and len(cell.halvings) == halvings_of(cell.method, cell.setting, halvings)
        and matrix.config.sizes.of(cell.method) == sizes.of(cell.method)
    }


def find(model_id: ModelId, store: Store) -> list[Entry]:
    """Headers of the finished matrices of a model, the largest first."""
    wanted = {"experiment": "contexts", **model_id.wanted()}

    def readable(entry: Entry) -> bool:  # exact answers that were followed, or kept, in another way are others
        matrix = entry.config["matrix"]
        same = all(entry.config.get(name) == value for name, value in EXACT.items())
        return bool(matrix) and (same or not matrix.get("exact"))

    found = store.find(KIND, wanted, readable)
    return sorted(found, key=lambda e: -sum(size for _, size in e.files.values()))


def stored(model_id: ModelId, store: Store) -> list[Matrix]:
    """Finished matrices of a model, the largest first; never loads a model."""
    headers = find(model_id, store)
    return [found for h in headers if (found := store.read(KIND, h.config, read)) is not None]


def read(entry: Entry) -> Matrix:
    """A finished matrix from its entry."""
    c, arrays = entry.config, entry.arrays
    counts = arrays["counts"].astype(np.int64)
    scenarios = tuple(Scenario(**s) for s in c["scenarios"])
    given = {name: value for name, value in c["matrix"].items() if name != "weights"}
    given |= {"methods": tuple(given["methods"]), "audit": AuditConfig(**given["audit"])}
    given["exact"] = ExactConfig(**given["exact"]) if given.get("exact") else None
    config = MatrixConfig(**given | {"sizes": Sizes(**given["sizes"])})
    people, groups = tuple((name, group) for name, group in c["people"]), (c["groups"][0], c["groups"][1])
    base, other, after = _answers(entry, len(scenarios), np.array([groups.index(group) for _, group in people]))
    plan = {(s.kind, s.chosen_on, s.tested): s for s in settings(scenarios)}
    following = iter(after)  # a cell's answers lie together, in the order of the cells
    cells = tuple(
        Cell(
            row["method"],
            plan[row["kind"], row["chosen_on"], int(row["tested"])],
            int(row["parts"]),
            int(row["parameters"]),
            row["prune_set"],
            tuple(next(following) for _ in range(int(row.get("halvings", 1)))),
            Nll(arrays["sums"][1 + int(row["row"])], counts),
            float(row.get("seconds", np.nan)),
        )
        for row in entry.table("cells").to_dict("records")
    )
    return Matrix(
        c["model"],
        config,
        entry.meta["contexts"],
        scenarios,
        groups,
        people,
        base,
        other,
        Nll(arrays["sums"][0], counts),
        cells,
        entry.meta["provenance"] | {"noise": noise.version(entry.config)},
    )


def _stored(*found: Sequence[Answers | Distributions]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tables and arrays of the answers `base`, `other` and those of cells."""
    names = ("base", "other", "values")
    if not isinstance(found[0][0], Distributions):
        return {}, {name: np.stack([a.values for a in part]) for name, part in zip(names, found, strict=True)}
    several = [a for a in (*found[0], *found[2]) if isinstance(a, Distributions)]
    frames = [pd.DataFrame({"of": i} | a.columns()).astype({"masses": np.float32}) for i, a in enumerate(several)]
    return {"answers": pd.concat(frames, ignore_index=True)}, {}


def _answers(entry: Entry, scenarios: int, codes: np.ndarray) -> list[tuple[Answers | Distributions, ...]]:
    """What `_stored` stores."""
    if "values" in entry.arrays:
        return [tuple(Answers(x, codes) for x in entry.arrays[name]) for name in ("base", "other", "values")]
    every = tuple(Distributions.read(part, codes) for _, part in entry.table("answers").groupby("of"))
    return [every[:scenarios], every[:scenarios], every[scenarios:]]


def _key(lm: LanguageModel, world: Scenarios, config: MatrixConfig, groups: tuple[str, str]) -> dict[str, Any]:
    return {
        "experiment": "contexts",
        "model": lm.name,
        **lm.id.key(),
        "scenarios": [asdict(s) for s in world.scenarios],
        "people": [list(p) for p in world.people if p[1] in groups],
        "groups": list(groups),
        "template": lm.tokenizer.chat_template,
        "matrix": config.key(),
        "noise": noise.VERSION,
        **({} if config.exact is None else EXACT),
    }


def _seed(config: MatrixConfig, setting: Setting) -> int:
    """Of a random set: another one for each setting."""
    found = [KINDS.index(setting.kind), *setting.sources]
    return int(np.random.SeedSequence([config.seed, *found]).generate_state(1)[0])


def _nll(lm: LanguageModel, removal: Removal, text: TextConfig, store: Store) -> Nll:
    if not removal.weights:
        return perplexity_of(lm, removal.prune_set, text, store)[0]
    key = {**ppl_key(text, lm.id), "off": removal.key()}

    def work() -> Any:
        with removal.off(lm):
            nll = measure_nll(lm, windows_of(lm, text, key))
        return {"arrays": {"sums": nll.sums, "counts": nll.counts}}

    def read_nll(entry: Entry) -> Nll:
        return Nll(entry.arrays["sums"], entry.arrays["counts"])

    return store.made("measured", key, work, read_nll, label=f"{slug(lm.name)}--ppl")
