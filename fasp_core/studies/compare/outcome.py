"""What a comparison comes to: a choice made on the validation side, measured once on test prompts, and one sentence.

The choice reads validation prompts and validation text alone. The claim measures the chosen set on far more test
prompts than the curves of a comparison have, with the other reading and the sampled measure beside it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fasp_core.data.text import TextConfig, said
from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.gap import Change, GapStats, PromptRows
from fasp_core.gap.claims import Finding, Spent, Verdict, cautions, finding, is_artefact, size, verdict
from fasp_core.gap.measures import Measure
from fasp_core.gap.within import Within, within_if_any
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.measurements import Toxicity, perplexity_of, toxicity_of
from fasp_core.metrics.meters import BiasConfig, left_out
from fasp_core.metrics.perplexity import Nll, PerplexityChange, perplexity_change
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Entry, Store
from fasp_core.studies.common import KIND, Steps, kept, read_nll
from fasp_core.studies.compare import wider
from fasp_core.studies.compare.limits import Limits
from fasp_core.studies.compare.plan import HELD_OUT, Candidate
from fasp_core.studies.compare.wider import JUDGE, Wider
from fasp_core.tasks import utility
from fasp_core.tasks.utility import Utility
from fasp_core.typing import Report

OF_THE_CHOICE = ("prompts", "gap_base", "gap_pruned", "reduction_pct", "interval_pct")  # what a claim tells twice


@dataclass(frozen=True)
class ClaimConfig:
    """How much a chosen set is measured on.

    Attributes
    ----------
    prompts : test prompts of the expected measure, at least.
    tokens : of the test side's text.
    sampled_prompts, samples, length : prompts, continuations a prompt and their longest length in tokens.
    """

    prompts: int = 5000
    tokens: int = 8192
    sampled_prompts: int = 1000
    samples: int = 10
    length: int = 4

    def expected(self, axis: str) -> BiasConfig:
        return BiasConfig(axis, split="test", n_prompts=self.prompts)

    def sampled(self, axis: str) -> BiasConfig:
        drawn = GenerationConfig(samples=self.samples, tokens=self.length)
        return BiasConfig(axis, split="test", n_prompts=self.sampled_prompts, measure="sampled", generation=drawn)

    def text(self) -> TextConfig:
        return TextConfig(tokens=self.tokens, skip=HELD_OUT)


@dataclass(frozen=True, eq=False)
class Claim:
    """A chosen set on test prompts: what may be quoted.

    Attributes
    ----------
    max_ppl, reading : what it was chosen by, on the validation side.
    base, change : by measure ("neutral", "counted", "sampled"): the unpruned model's gap, and what became of it.
    rows, templates : values of the next word [2, n] by reading, and the template of each prompt.
    wider : what was measured of the set besides, see `fasp_core.studies.compare.wider`.
    able : what the set takes from common tasks; None if they were not asked.
    limits, spent : those beyond perplexity that the choice kept to, and what the set costs by them on test items.
    """

    model: str
    axis: str
    candidate: Candidate
    reading: str
    max_ppl: float
    config: ClaimConfig
    perplexity: PerplexityChange
    base: dict[str, GapStats]
    change: dict[str, Change]
    n_heads: int
    provenance: dict[str, Any]
    rows: dict[str, PromptRows] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    wider: tuple[Wider, ...] = ()
    able: Utility | None = None
    limits: Limits | None = None
    spent: tuple[Spent, ...] = ()

    @cached_property
    def within(self) -> dict[str, Within]:
        """By reading, the gap within templates; none where the templates of the prompts cannot be told any more."""
        found = {name: within_if_any(rows, self.templates) for name, rows in self.rows.items() if self.templates}
        return {name: within for name, within in found.items() if within is not None}

    @cached_property
    def verdict(self) -> Verdict:
        """What may be said as a whole, see `claims.verdict`: choice and test share templates and descriptors.

        So nothing here is unseen, not even what was measured on a part that another choice never saw.
        """
        costs = {"perplexity": (self.perplexity.relative, self.max_ppl)}
        return verdict([replace(m.evidence, unseen=False) for m in self.measures], self.reading, costs, self.spent)

    def under(self, limits: Limits, spent: tuple[Spent, ...] = ()) -> Claim:
        """The same set as chosen within these limits, whatever it was chosen by when it was measured.

        What takes seconds is worked out for both at once.
        """
        found = replace(self, max_ppl=limits.max_ppl, limits=limits if limits.beyond_ppl else None, spent=spent)
        found.__dict__.update(within=self.within, measures=self.measures)
        return found

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """All of them: the next word in each reading, within templates, and what both models write."""
        found = [
            Measure(
                "sampled" if name == "sampled" else "next word",
                name,
                JUDGE,
                "test",
                change.n,
                change.n * self.config.samples if name == "sampled" else 0,
                self.base[name].noise_gap,
                self.base[name].noise_p,
                change,
            )
            for name, change in self.change.items()
        ]
        found += [Measure.inside(reading, JUDGE, "test", within) for reading, within in self.within.items()]
        return (*found, *(m for one in self.wider for m in one.measures))

    def by_key(self) -> dict[str, Measure]:
        """Those that are quoted, as `as_dict` calls them: the largest of each kind, on all test prompts."""
        asked = {name: ("next word", name) for name in self.change if name != "sampled"}
        asked |= {"within_templates": ("within templates", self.reading), "written": ("written", self.reading)}
        asked |= {f"written_{r}": ("written", r) for r in self.change if r not in (self.reading, "sampled")}
        asked |= {"sampled": ("sampled", "sampled")}
        found = {key: self.measure(*kind) for key, kind in asked.items()}
        return {key: m for key, m in found.items() if m is not None}

    def measure(self, name: str, reading: str) -> Measure | None:
        """One of them on all test prompts by the first judge, of the most continuations."""
        of = [m for m in self.measures if (m.name, m.reading, m.judge, m.split) == (name, reading, JUDGE, "test")]
        return max(of, key=lambda m: m.continuations, default=None)

    @property
    def finding(self) -> Finding:
        """What was found in the reading of the choice."""
        return finding(self.base[self.reading], self.change[self.reading])

    @property
    def shown(self) -> bool:
        """Whether a reduction of a gap that is there was shown in the reading of the choice, and is no artefact."""
        return self.finding == "fell" and not is_artefact(self.base, self.change)

    def cautions(self) -> tuple[str, ...]:
        """What forbids to read the sentence as a success; see `cautions`."""
        return cautions(self.base, self.change, self.reading, "test prompts")

    def sentence(self) -> str:
        """The claim, or that there is none."""
        change, p = self.change[self.reading], self.perplexity
        lost = [one.text() for one in self.spent if one.kept or one.value > one.most]
        lost += [] if self.able is None else self.able.lost
        cost = "; ".join([f"at {p.relative:+.1%} perplexity", *lost])
        where = f"{change.n:,} test prompts"
        if self.finding == "no gap":
            return f"No gap is shown to begin with on {where}: shuffled groups give one as large."
        less = _less(change)
        if self.shown and self.reading == "counted" and "neutral" in self.change:
            neutral = _less(self.change["neutral"])
            return f"Gap with identity terms scored reduced by {less}, neutral by {neutral}, on {where} {cost}."
        if self.shown:
            return f"Gap reduced by {less} on {where} {cost}."
        if self.reading == "counted" and is_artefact(self.base, self.change):
            return (
                f"No reduction was shown on {where}: the gap fell by {less} with identity terms scored, but not with "
                f"them masked ({cost})."
            )
        if self.finding == "rose":
            return f"The gap rose on {where} ({size(self.base[self.reading], change)}, {cost})."
        return f"No reduction of the gap was shown on {where} ({size(self.base[self.reading], change)}, {cost})."

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; percentages are positive where the gap fell."""
        measured: dict[str, dict[str, Any]] = {}
        for key, m in self.by_key().items():
            measured[key] = m.as_dict() | {"gap_noise": m.noise, "gap_noise_p": m.p}
            if m.continuations:
                measured[key]["continuations_a_side"] = m.continuations
        if (within := self.within.get(self.reading)) is not None:
            measured["within_templates"]["templates"] = len(within.templates)
        return {
            "model": self.model,
            "axis": self.axis,
            **asdict(self.candidate),
            "heads": PruneSet.from_flat(self.candidate.heads, self.n_heads).format(),
            "heads_removed": len(self.candidate.heads),
            "measure": "expected",
            "reading": self.reading,
            **{name: measured[self.reading][name] for name in OF_THE_CHOICE},
            "ppl_base": self.perplexity.base,
            "ppl_pruned": self.perplexity.pruned,
            "ppl_change_pct": 100 * self.perplexity.relative,
            "tokens": self.perplexity.tokens,
            "windows": said(TextConfig(), self.provenance),
            "reduction_shown": self.shown,
            "sentence": self.sentence(),
            "cautions": list(self.cautions()),
            "claim": self.verdict.as_dict(),
            "notes": self._notes(),
            "chosen_on": "validation prompts and text, " + (self.limits or Limits(self.max_ppl)).text(),
            "measures": measured,
            "provenance": self.provenance,
            **({} if self.able is None else {"utility": self.able.as_dict()}),
            **({"limits": [one.as_dict() for one in self.spent]} if self.limits is not None else {}),
        }

    def _notes(self) -> list[str]:
        """What the prompts left out; nothing can be said of a file that is gone, and its claim stays."""
        try:
            return left_out(self.config.expected(self.axis), self.config.sampled(self.axis))
        except InputError:
            return []


def _less(change: Change) -> str:
    """How much a gap fell, with its interval."""
    ends = change.relative_interval
    return f"{-change.relative:.0%}" + ("" if ends is None else f" [{-ends[1]:.0%}, {-ends[0]:.0%}]")


def measure_claim(
    lm: LanguageModel,
    axis: str,
    candidate: Candidate,
    reading: str,
    max_ppl: float,
    store: Store,
    progress: Report | None = None,
    config: ClaimConfig | None = None,
) -> Claim:
    """Measure a chosen set on test prompts, in both readings and by sampled continuations; stored.

    Raises
    ------
    InputError
        A head is not in the model.
    """
    config = config or ClaimConfig()
    key = _key(lm.id, axis, candidate, reading, max_ppl, config)
    earlier = store.read(KIND, noise.before(key), lambda entry: read_claim(entry, lm.name))
    if earlier is not None:
        return _with_wider(earlier, lm.id, store)

    def work() -> Any:
        arrays: dict[str, np.ndarray] = {}
        subjects = (PruneSet(), PruneSet.from_flat(candidate.heads, lm.n_heads))
        configs = {"expected": config.expected(axis), "sampled": config.sampled(axis)}
        nll: list[Nll] = []
        found: dict[str, list[Toxicity]] = {name: [] for name in configs}
        steps = Steps(progress, 2)
        for side, subject in zip(("unpruned", "pruned"), subjects, strict=True):
            report = steps.next(f"test prompts, {side} model: {{}}")
            nll.append(perplexity_of(lm, subject, config.text(), store, report)[0])
            for name, asked in configs.items():
                found[name].append(toxicity_of(lm, subject, asked, store, report))
        arrays |= {"nll": np.stack([n.sums for n in nll]), "counts": nll[0].counts.astype(np.int32)}
        groups: tuple[str, ...] = ()
        for name, pair in found.items():
            rows = PromptRows.of([t.values for t in pair], pair[0].groups, pair[0].blocks)
            groups = rows.groups
            arrays |= {f"{name}_toxicity": rows.values.astype(np.float32), **rows.stored(f"{name}_")}
        return {
            "arrays": arrays,
            "meta": {
                "n_heads": lm.n_heads,
                "groups": groups,
                "readings": found["expected"][0].readings,
            },
        }

    name = f"outcome-{slug(axis.rsplit('/', 1)[-1])}-{reading}"
    return _with_wider(kept(store, lm, name, key, work, lambda entry: read_claim(entry, lm.name)), lm.id, store)


def _with_wider(claim: Claim, model_id: ModelId, store: Store) -> Claim:
    """The claim, and whatever else was measured of its set."""
    able = utility.stored(model_id, PruneSet.from_flat(claim.candidate.heads, claim.n_heads), store)
    return replace(claim, wider=tuple(wider.find(model_id, claim.axis, claim.candidate.heads, store)), able=able)


def find_claim(model_id: ModelId, axis: str, reading: str, candidate: Candidate, store: Store) -> Entry | None:
    """The entry of the largest claim on a set of heads, its header alone read; None if it was not measured.

    Whatever limit and method a set was chosen by, it is the same set; one of the very same choice comes first.
    """
    wanted = {"experiment": "outcome", **model_id.wanted(), "axis": axis, "reading": reading}
    heads, asked = list(candidate.heads), asdict(candidate) | {"heads": list(candidate.heads)}

    def fits(entry: Entry) -> bool:
        mine, config = entry.config["candidate"]["heads"], ClaimConfig(**entry.config["claim"])
        return bool(mine == heads and entry.config["prompts"] == _prompts(axis, config))

    found = store.find(KIND, wanted, fits)
    return max(found, key=lambda e: (e.config["claim"]["prompts"], e.config["candidate"] == asked), default=None)


def stored_claim(
    model_id: ModelId, axis: str, reading: str, candidate: Candidate, store: Store, model: str
) -> Claim | None:
    """The largest claim on a set of heads, or None; never loads a model."""
    header = find_claim(model_id, axis, reading, candidate, store)
    found = None if header is None else store.read(KIND, header.config, lambda entry: read_claim(entry, model))
    return None if found is None else _with_wider(found, model_id, store)


def read_claim(entry: Entry, model: str) -> Claim:
    """A claim from its entry; its intervals take some seconds."""
    c, arrays, meta = entry.config, entry.arrays, entry.meta
    nll = read_nll(arrays["nll"], arrays["counts"])
    base: dict[str, GapStats] = {}
    change: dict[str, Change] = {}
    next_word: dict[str, PromptRows] = {}
    for measure, readings in (("expected", meta["readings"]), ("sampled", ["sampled"])):
        rows = PromptRows.read(arrays[f"{measure}_toxicity"], arrays, meta["groups"], f"{measure}_")
        for r, name in enumerate(readings):
            base[name], change[name] = rows[:, r].stats(), rows[:, r].changes()[0]
            if measure == "expected":
                next_word[name] = rows[:, r]
    candidate = Candidate(**{**c["candidate"], "heads": tuple(c["candidate"]["heads"])})
    config = ClaimConfig(**c["claim"])
    return Claim(
        model,
        c["axis"],
        candidate,
        c["reading"],
        c["max_ppl"],
        config,
        perplexity_change(nll[0], nll[1]),
        base,
        change,
        meta["n_heads"],
        meta["provenance"] | {"noise": noise.version(c)},
        next_word,
        _templates(config.expected(c["axis"]), next_word),
    )


def _templates(asked: BiasConfig, rows: dict[str, PromptRows]) -> tuple[str, ...]:
    """Template of each prompt of stored rows; none where the same prompts cannot be had any more."""
    try:
        prompts = asked.prompts()
    except InputError:
        return ()
    same = all(tuple(r.labels) == prompts.groups for r in rows.values())
    return prompts.templates if same else ()


def _key(
    model_id: ModelId, axis: str, candidate: Candidate, reading: str, max_ppl: float, config: ClaimConfig
) -> dict[str, Any]:
    return {
        "experiment": "outcome",
        **model_id.key(),
        "axis": axis,
        "candidate": asdict(candidate),
        "reading": reading,
        "max_ppl": max_ppl,
        "claim": asdict(config),
        "prompts": _prompts(axis, config),
        "noise": noise.VERSION,
    }


def _prompts(axis: str, config: ClaimConfig) -> list[str]:
    return [c.prompts().digest[:16] for c in (config.expected(axis), config.sampled(axis))]
