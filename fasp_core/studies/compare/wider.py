"""One prune set by the wider measures: what both models write, and how toxic a judge finds it.

On all test prompts, or on those of one cell of a division, where the next word is measured too. A cell that is new in
templates and in descriptors is what a claim about a set should quote that was chosen on the seen one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fasp_core.errors import InputError
from fasp_core.forward import noise
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.gap import PromptRows
from fasp_core.gap.measures import Measure
from fasp_core.gap.within import within_if_any
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.expected import READINGS
from fasp_core.metrics.measurements import toxicity_of
from fasp_core.metrics.meters import BiasConfig, scorer_of
from fasp_core.model.identity import ModelId
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.keys import slug
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.studies.common import KIND, Steps, kept
from fasp_core.typing import Report

JUDGE = "offline"  # whose opinion claims rest on, unless others are asked


@dataclass(frozen=True)
class Sample:
    """What a set is measured on.

    Attributes
    ----------
    cell, division : which test prompts, see `fasp_core.data.divisions`; "": all.
    prompts : at least, as far as there are so many.
    written, sampled : continuations of each model, at least; 0: not measured.
    steps, length : tokens of a written and of a sampled continuation.
    judge : the scorer.
    """

    axis: str
    cell: str = ""
    division: int | None = None
    prompts: int = 5000
    written: int = 20_000
    steps: int = 8
    sampled: int = 0
    length: int = 4
    judge: str = JUDGE

    @property
    def next_word(self) -> BiasConfig:
        """How the next word is measured."""
        return BiasConfig(self.axis, "test", self.prompts, scorer=self.judge, cell=self.cell, division=self.division)

    def configs(self) -> dict[str, BiasConfig]:
        """By name of the measure. The next word of all prompts is what a claim has measured already."""
        more: dict[str, Any] = {"scorer": self.judge, "cell": self.cell, "division": self.division}
        n = len(self.next_word.prompts())

        def drawn(continuations: int, tokens: int) -> GenerationConfig:
            return GenerationConfig(math.ceil(continuations / n), tokens)

        found = {"next word": self.next_word} if self.cell and self.written else {}
        if self.written:
            drawn_here = drawn(self.written, GenerationConfig.tokens)  # their length is `steps`
            found["written"] = BiasConfig(
                self.axis, "test", self.prompts, measure="written", steps=self.steps, generation=drawn_here, **more
            )
        if self.sampled:
            sampled = drawn(self.sampled, self.length)
            found["sampled"] = BiasConfig(
                self.axis, "test", self.prompts, measure="sampled", generation=sampled, **more
            )
        return found

    @property
    def title(self) -> str:
        """What is measured, in words."""
        sizes = {"written": self.written, "sampled": self.sampled}
        said = [f"{n:,} {name} continuations" for name, n in sizes.items() if n]
        return f"{' and '.join(said)} a side on {self.split} prompts, by '{self.judge}'"

    @property
    def split(self) -> str:
        """In words."""
        return f"test, {self.cell}" if self.cell else "test"

    def key(self, model_id: ModelId, heads: Sequence[int]) -> dict[str, Any]:
        """Everything that shapes the measurement, for the store."""
        return {
            "experiment": "wider",
            **model_id.key(),
            **asdict(self),
            "division": self.division or 0,
            "heads": list(heads),
            "sample": self.next_word.prompts().digest[:16],
            "noise": noise.VERSION,
            **judged(self.next_word),
        }


def judged(config: BiasConfig) -> dict[str, str]:
    """Which classifier a judge's name stands for, with its commit, as part of a key; the program's own needs none."""
    return {} if config.scorer == JUDGE else {"scorer": scorer_of(config).name}


@dataclass(frozen=True, eq=False)
class Wider:
    """What was measured of one set.

    Attributes
    ----------
    rows : by name of the measure, values [2, R, n] of both models.
    steps : of the written measure, [2, R, steps, n].
    templates : [n].
    draws : continuations of each prompt, by name of the measure.
    judge : the scorer, with its commit where it has one.
    """

    sample: Sample
    rows: dict[str, PromptRows]
    steps: np.ndarray | None
    templates: tuple[str, ...]
    draws: dict[str, int]
    provenance: dict[str, Any]
    judge: str = JUDGE

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """Every measure in every reading; takes some seconds."""
        found: list[Measure] = []
        for name, rows in self.rows.items():
            for r, reading in enumerate(READINGS if name != "sampled" else ("sampled",)):
                of = rows[:, r]
                found.append(Measure.of(name, reading, self.judge, self.sample.split, of, self.draws[name]))
                if name == "next word" and (within := within_if_any(of, self.templates)) is not None:
                    found.append(Measure.inside(reading, self.judge, self.sample.split, within))
        return tuple(found)


def measure(
    lm: LanguageModel, heads: Sequence[int], sample: Sample, store: Store, progress: Report | None = None
) -> Wider:
    """Measure both models; stored, and continuations part by part: a run that was stopped goes on where it was.

    Raises
    ------
    InputError
        A head is not in the model, an axis that cannot be divided, an unknown judge.
    """
    subject = PruneSet.from_flat(heads, lm.n_heads)
    subject.gates(lm.n_layers, lm.n_heads)

    def work() -> Contents:
        arrays: dict[str, np.ndarray] = {}
        groups: tuple[str, ...] = ()
        seconds = 0.0  # of all parts, whenever they were made
        configs = sample.configs()
        steps = Steps(progress, 2 * len(configs))
        for name, config in configs.items():
            pair = []
            for side, s in (("unpruned", PruneSet()), ("pruned", subject)):
                report = steps.next(f"{name}, {sample.split}, {side} model: {{}}")
                pair.append(toxicity_of(lm, s, config, store, report))
            rows = PromptRows.of(np.stack([t.values for t in pair]), pair[0].groups, pair[0].blocks)
            groups, short = rows.groups, slug(name)
            seconds += sum(t.provenance["seconds"] for t in pair)
            arrays |= {short: rows.values.astype(np.float32), **rows.stored("")}
            if by_step := [t.steps for t in pair if t.steps is not None]:
                arrays["steps"] = np.stack(by_step).astype(np.float32)
        return {"arrays": arrays, "meta": {"groups": groups, "seconds": seconds}}

    key = sample.key(lm.id, heads)
    name = f"wider-{slug(sample.axis.rsplit('/', 1)[-1])}-{slug(sample.cell or 'all')}"
    return kept(store, lm, name, key, work, read)


def find(model_id: ModelId, axis: str, heads: Sequence[int], store: Store) -> list[Wider]:
    """All that is stored of a set on an axis, the most continuations first; never loads a model."""
    found = headers(model_id, axis, heads, store)
    return [one for header in found if (one := store.read(KIND, header.config, read)) is not None]


def headers(model_id: ModelId, axis: str, heads: Sequence[int], store: Store) -> list[Entry]:
    """Their entries, headers alone read."""
    wanted = {"experiment": "wider", **model_id.wanted(), "axis": axis}

    def fits(entry: Entry) -> bool:
        c = entry.config
        try:
            sample = of_key(c).next_word.prompts().digest[:16]
        except InputError:  # of a file that is gone
            return False
        return bool(c["heads"] == list(heads) and c["sample"] == sample)

    return sorted(store.find(KIND, wanted, fits), key=lambda e: (-e.config["written"] - e.config["sampled"], e.path))


def of_key(key: dict[str, Any]) -> Sample:
    """The sample that a key was made of."""
    sample = Sample(**{name: key[name] for name in Sample.__dataclass_fields__})
    return sample if sample.cell else Sample(**{**asdict(sample), "division": None})


def read(entry: Entry) -> Wider:
    """From an entry, whose prompts are drawn again."""
    sample, arrays = of_key(entry.config), entry.arrays
    configs = sample.configs()
    prompts = sample.next_word.prompts()
    rows = {n: PromptRows.read(arrays[slug(n)], arrays, entry.meta["groups"], "") for n in configs}
    draws = {n: c.generation.samples if n != "next word" else 0 for n, c in configs.items()}
    steps = arrays.get("steps")
    made = {**entry.meta["provenance"], "seconds": entry.meta["seconds"]}
    return Wider(sample, rows, steps, prompts.templates, draws, made, entry.config.get("scorer", sample.judge))
