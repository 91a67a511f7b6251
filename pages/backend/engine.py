"""What the app computes: one engine, shared by every reader. Knows nothing of the screen.

One lane a model measures, one request after the other; scoring has a lane of its own and gives way between heads,
because a model is locked only while it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from fasp_core.compute import cluster
from fasp_core.compute.jobs import Job, Lane, Progress
from fasp_core.compute.lanes import Lanes, Past
from fasp_core.compute.shards import Workers
from fasp_core.data.scorers import Scorer, scorer_self_bias
from fasp_core.data.text import SCORE_TEXT
from fasp_core.evaluation import Evaluation, evaluate
from fasp_core.lazy import pd
from fasp_core.metrics.meters import BiasConfig, scorer_of
from fasp_core.metrics.perplexity import ppl_key
from fasp_core.model import loading
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ModelSpec
from fasp_core.scoring import entries, score
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Store
from fasp_core.studies.explain import explain, writes
from fasp_core.studies.explain.explain import Explained
from fasp_core.studies.explain.writes import Writes
from fasp_core.tasks import files, utility
from fasp_core.tasks.utility import Utility
from pages.backend import demo, readers
from pages.backend.models import Models
from pages.backend.requests import (
    Able,
    Experiment,
    Explain,
    Gather,
    HeadWrites,
    Load,
    LoadScorer,
    Measure,
    OnePrompt,
    Request,
    Score,
)
from pages.backend.results import Latest, Results

T = TypeVar("T")
Work = Callable[[LanguageModel, Store, Progress], T]


class Engine:
    """Models, stored results, and jobs.

    Parameters
    ----------
    lanes : where jobs run.
    load : loads a model.
    scorer : the scorer that measures toxicity by a config.
    """

    def __init__(
        self,
        lanes: Lanes | None = None,
        load: Callable[[ModelSpec], LanguageModel] = loading.load,
        scorer: Callable[[BiasConfig], Scorer] = scorer_of,
    ) -> None:
        self.models = Models(load)
        self.results = Results(self.models)
        self.scorer = scorer
        self._opinions: Latest[pd.DataFrame] = Latest(16)
        self.lanes = lanes or Lanes(make=partial(Lane, here=readers.here))

    def load(self, spec: ModelSpec) -> Job[None]:
        """Load a model in the background. The model is no result: whoever keeps that would keep it in memory."""

        def work(progress: Progress) -> None:
            progress(0, 1, f"loading {spec.source}")
            self.models.get(spec)

        return self._submit(self._lane(spec), Load(spec), work)

    def load_scorer(self, config: BiasConfig) -> Job[str]:
        """Load the scorer in the background; its name."""

        def work(progress: Progress) -> str:
            progress(0, 1, f"loading {config.scorer}")
            return self.scorer(config).name

        return self._submit(
            "scorers", LoadScorer(config.scorer, config.label, config.scorer_reading, config.scorer_stamp), work
        )

    def measure(self, asked: Measure, owner: Hashable) -> Job[Evaluation]:
        """Measure a prune set; a newer request of the same owner overtakes it."""

        def work(progress: Progress) -> Evaluation:
            progress(0, 1, "loading the model")
            at = self.models.runner(asked.spec)
            return evaluate(at.lm, asked.heads, asked.config, Store(), progress, at, show=progress.show)

        return self._submit(self._lane(asked.spec), asked, work, owner)

    def score(self, asked: Score) -> Job[ImpactTable]:
        """Score all heads; one job for all who ask for the same, which goes on when they leave."""
        return self.experiment(asked, partial(score_heads, asked.config))

    def experiment(self, asked: Experiment | Score, work: Work[T]) -> Job[T]:
        """An experiment of many measurements, in a lane of its own; it goes on when its reader leaves.

        Parameters
        ----------
        work : from the loaded model, the store and a progress to the result. What it measures should be kept as it
            goes, so that a cancelled run goes on where it was.
        """
        return self._submit(f"{self._lane(asked.spec)} {asked.lane}", asked, self._with_model(asked.spec, work))

    def one_prompt(self, asked: OnePrompt, work: Work[T], owner: Hashable, priority: int = 0) -> Job[T]:
        """A short piece of work on one prompt, among the measurements; a newer request of its owner overtakes it."""
        return self._submit(self._lane(asked.spec), asked, self._with_model(asked.spec, work), owner, priority)

    def able(self, asked: Able, owner: Hashable) -> Job[Utility]:
        """Ask both models the same items of tasks; a newer request of its owner overtakes it."""

        def work(lm: LanguageModel, store: Store, progress: Progress) -> Utility:
            samples = [files.sample(task, asked.items) for task in asked.tasks]
            return utility.utility(lm, asked.heads, samples, 0, asked.items, store, progress)

        return self._submit(self._lane(asked.spec), asked, self._with_model(asked.spec, work), owner)

    def explain(self, asked: Explain, owner: Hashable) -> Job[Explained]:
        """Split what a set does among its heads: minutes, so measurements of other sets do not wait for it."""

        def work(progress: Progress) -> Explained:
            progress(0, 1, "loading the model")
            at = self.models.runner(asked.spec)
            return explain.run(at.lm, asked.plan, Store(), progress, at)

        return self._submit(f"{self._lane(asked.spec)} experiments", asked, work, owner)

    def writes(self, asked: HeadWrites, owner: Hashable) -> Job[Writes]:
        """Read what the heads of a layer write: one pass over prompts, among the measurements."""

        def work(lm: LanguageModel, store: Store, progress: Progress) -> Writes:
            return writes.run(lm, asked.bias, asked.layer, store, progress)

        return self._submit(self._lane(asked.spec), asked, self._with_model(asked.spec, work), owner)

    def gather(self, asked: Gather, work: Callable[[Gather], T]) -> Job[T]:
        """Read stored results that take seconds, beside whatever is measured."""

        def begin(progress: Progress) -> T:
            progress(0, 1, "stored results")
            return work(asked)

        return self._submit("stored results", asked, begin)

    def opinions(self, config: BiasConfig) -> pd.DataFrame:
        """What the scorer thinks of the axis' own words, each in one harmless sentence; highest first."""

        def find() -> pd.DataFrame:
            words = sorted(set(config.prompts().descriptors) - {""})
            rows = scorer_self_bias(self.scorer(config), words)
            return pd.DataFrame(rows, columns=["word", "toxicity"]).sort_values("toxicity", ascending=False)

        found = self._opinions.get(config, find)
        assert found is not None
        return found

    def jobs(self) -> list[Job[Any]]:
        """All jobs that run or wait."""
        return [job for _, job in self.lanes.jobs()]

    def running(self, asked: Request) -> Job[Any] | None:
        """The job for a request if it waits or runs, whoever asked for it."""
        return next((job for job in self.jobs() if job.key == asked), None)

    def resume(self, one: Past) -> Job[Any]:
        """Submit a failed or cancelled job again; what it had kept is not computed twice. InputError if refused."""
        assert isinstance(one.key, Request)
        one.key.check()
        return self.lanes.again(one)

    def _submit(
        self, lane: str, asked: Request, work: Callable[[Progress], T], owner: Hashable = None, priority: int = 0
    ) -> Job[T]:
        """Where every job begins, and a demo refuses what is not within its limits."""
        asked.check()
        return self.lanes.get(lane).submit(asked, work, owner, priority)

    def _with_model(self, spec: ModelSpec, work: Work[T]) -> Callable[[Progress], T]:
        def begin(progress: Progress) -> T:
            progress(0, 1, "loading the model")
            return work(self.models.get(spec), Store(), progress)

        return begin

    def _lane(self, spec: ModelSpec) -> str:
        named = self.models.named(spec)
        return f"{named.source} {named.dtype} {named.device}"


_of_the_app = Engine()


def engine() -> Engine:
    """The engine of the app."""
    return _of_the_app


def score_heads(config: BiasConfig, lm: LanguageModel, store: Store, progress: Progress) -> ImpactTable:
    """Scores of all heads, a preview first."""
    with workers(lm) as there:
        if store.load(entries.KIND, ppl_key(SCORE_TEXT, lm.id)) is None:
            score.preview(lm, config, store, progress, there)
        return score.score(lm, SCORE_TEXT, config, store, progress, "refined", there)


def scheduler() -> str | None:
    """Address of the cluster that scoring and comparisons run on; None: this machine, as always in a demo.

    It is set where the server is started, by `FASP_SCHEDULER`, and not by readers: who can name a scheduler can make
    this server run code.
    """
    return None if demo.current() is not None else os.environ.get("FASP_SCHEDULER", "").strip() or None


@contextmanager
def workers(lm: LanguageModel) -> Iterator[Workers | None]:
    """Whoever runs the work of a job on this model, for the time of the `with` block; None: this process."""
    with cluster.connected(scheduler()) as there:
        yield cluster.workers_of(there, lm)
