"""How much sharper exact answers are than sampled ones at equal time: the variance of an audit's mean |SMD|.

`python -m benchmarks audit --json`

The same scenarios are asked about the same names again and again with other noise: by samples, and by exact answers,
whose only noise is the draws that finish what was not followed. Both variances are of the answers' noise alone, not of
which names were asked, and of SMDs as an audit gives them (winsorised). Variance falls with the number of samples as
time grows, so variance times time is compared.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks._common import about, say
from fasp_core import defaults
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.contexts import scenarios
from fasp_core.studies.contexts.audit import AuditConfig, Exact, Following, Replies, audit, disparity, exactly
from fasp_core.studies.contexts.scenarios import Scenarios


def run(
    lm: LanguageModel | None = None,
    world: Scenarios | None = None,
    context: str = "services",
    names: int = 8,
    samples: int = 16,
    seeds: int = 8,
    whole: int = 64,
    nodes: int | None = None,
) -> dict[str, Any]:
    """Variance of the SMDs, summed over scenarios, times processor seconds: sampled over exact.

    Parameters
    ----------
    names : of each group, in the repetitions.
    seeds : repetitions with other noise, at least 2.
    whole : names, both groups together, of the one scenario whose wall time is told; at most all there are.
    nodes : as in `ExactConfig`; None: its own.
    """
    lm, world = lm or load(ModelSpec()), world or scenarios.read()
    small = world.smaller(names)
    asked = small.of(context)
    how = {} if nodes is None else {"nodes": nodes}

    def sampled(seed: int, store: Store) -> Sequence[Replies | Exact]:
        return [audit(lm, one, small, AuditConfig(samples, seed=seed), store) for one in asked]

    def exact(seed: int, store: Store) -> Sequence[Replies | Exact]:
        following = Following(small, exact=ExactConfig(seed=seed, **how))
        return [exactly(lm, one, following, store) for one in asked]

    found = {}
    for name, ask in (("sampled", sampled), ("exact", exact)):
        found[name] = _repeated(name, ask, seeds)
    cost = {name: variance * seconds for name, (variance, _, seconds) in found.items()}
    big = world.smaller(max(2, whole // 2))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        one = exactly(lm, big.of(context)[0], Following(big, exact=ExactConfig(**how)), Store(folder))
        seconds = time.perf_counter() - began
    return {
        "variance_ratio": cost["sampled"] / cost["exact"],
        "variance_ratio_mean_abs": found["sampled"][1] * found["sampled"][2] / (found["exact"][1] * found["exact"][2]),
        "seconds_scenario": seconds,
        "names_scenario": len(one.people),
        "covered": float(one.found.covered.mean()),
        "variance": {name: variance for name, (variance, _, _) in found.items()},
        "processor_seconds": {name: seconds for name, (_, _, seconds) in found.items()},
        "context": context,
        "scenarios": len(asked),
        "names": len(small.people),
        "samples": samples,
        "seeds": seeds,
        **about(lm),
    }


def _repeated(
    name: str, ask: Callable[[int, Store], Sequence[Replies | Exact]], seeds: int
) -> tuple[float, float, float]:
    """Variance of the SMDs summed over scenarios, variance of mean |SMD|, and processor seconds of one repetition."""
    values, seconds = [], 0.0
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            replies = ask(seed, Store(folder))
            seconds += (time.process_time() - began) / seeds
        values.append(disparity(replies, defaults.WINSORISE).values)
        say(f"audit: seed {seed + 1} of {seeds}, {name}, {seconds:.1f} s")
    found = np.array(values)
    return float(found.var(0, ddof=1).sum()), float(np.abs(found).mean(1).var(ddof=1)), seconds
