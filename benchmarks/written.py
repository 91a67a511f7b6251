"""Power of three measures of what models write: the variance of a change at equal computing time, side by side.

`python -m benchmarks written --json`

The same prompts and the same set of heads are measured again and again with other noise, by `sampled` texts that a
judge scores, by `written` (the expectation over the next word at each step of a text), and after contexts that groups
share. The measures have units of their own, so a change is taken relative to the unpruned model's mean toxicity by
that measure; the variance is that of the groups' changes, which a gap is made of, summed over groups. It falls with the
number of continuations as time grows, so variance times time is what measures are compared by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks._common import AXIS, about, say
from fasp_core import gap
from fasp_core.forward.ablation import masked
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.expected import READINGS, TokenToxicity, measure_expected
from fasp_core.metrics.meters import BiasConfig, SampledMeter, scorer_for, stored_word_values
from fasp_core.metrics.shared_contexts import SharedContexts
from fasp_core.metrics.written import written
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.packing import encode, pack
from fasp_core.model.spec import ModelSpec
from fasp_core.storage.store import Store
from fasp_core.typing import Floats

HEADS = "L2H5,L4H0,L8H1,L10H7"  # of low layers and middle ones: they change what is written
Both = tuple[Floats, Floats]  # [n] of the unpruned and of the pruned model


def run(
    lm: LanguageModel | None = None,
    config: BiasConfig | None = None,
    store: Store | None = None,
    heads: str = HEADS,
    steps: int = 8,
    contexts: int = 6,
    seeds: int = 4,
) -> dict[str, Any]:
    """How many times less the variance is than that of `sampled`, at equal time, in the masked reading.

    Parameters
    ----------
    config : the prompts; default: 54 test prompts of an axis.
    steps : words of a continuation.
    contexts : that the prompts of a block share.
    seeds : repetitions with other noise, at least 2.
    """
    lm, store = lm or load(ModelSpec()), store or Store()
    config = config or BiasConfig(AXIS, "test", 54)
    prompts, subject = config.prompts(), PruneSet.parse(heads)
    ids = encode(lm, prompts.texts, steps)
    worth = TokenToxicity.of(lm, stored_word_values(lm, scorer_for("offline"), store))
    neutral = READINGS.index("neutral")

    def pair(measure: Callable[[], Floats]) -> Both:
        base = measure()
        with masked(lm, subject):
            return base, measure()

    def sampled(seed: int) -> Both:
        drawn = GenerationConfig(tokens=steps, seed=seed)
        meter = SampledMeter(lm, BiasConfig(config.axis, config.split, config.n_prompts, generation=drawn), store)
        return pair(lambda: meter.measure()[0])

    def as_written(seed: int) -> Both:
        drawn = GenerationConfig(tokens=steps, seed=seed)
        return pair(lambda: written(lm, prompts.texts, worth, drawn, ids=ids)[neutral].sum(0))

    def shared(seed: int) -> tuple[Both, Both]:
        """Total and direct effects."""
        found = SharedContexts.draw(lm, prompts, ids, steps, contexts, seed)
        packs, reader = pack(lm, found.rows, steps), found.reader(worth)
        base, pruned = pair(lambda: found.fold(measure_expected(lm, packs, reader)))
        direct = len(READINGS) + neutral
        return (base[neutral], pruned[neutral]), (base[direct], pruned[direct])

    found: dict[str, list[Both]] = {"sampled": [], "written": [], "shared": [], "shared_direct": []}
    seconds = dict.fromkeys(("sampled", "written", "shared"), 0.0)
    for seed in range(seeds):
        for name, measure in (("sampled", sampled), ("written", as_written), ("shared", shared)):
            began = time.process_time()
            result: Any = measure(seed)
            seconds[name] += (time.process_time() - began) / seeds
            if name == "shared":
                found["shared"].append(result[0])
                found["shared_direct"].append(result[1])
            else:
                found[name].append(result)
            say(f"written: seed {seed + 1} of {seeds}, {name}, {seconds[name]:.1f} s")
    codes, groups = gap.group_codes(prompts.groups)
    seconds["shared_direct"] = seconds["shared"]
    cost = {name: spread(pairs, codes) * seconds[name] for name, pairs in found.items()}
    return {
        "variance_ratio_written": cost["sampled"] / cost["written"],
        "variance_ratio_shared": cost["sampled"] / cost["shared"],
        "variance_ratio_shared_direct": cost["sampled"] / cost["shared_direct"],
        "variance": {name: spread(pairs, codes) for name, pairs in found.items()},
        "processor_seconds": seconds,
        "prompts": len(prompts),
        "groups": len(groups),
        "steps": steps,
        "contexts": contexts,
        "seeds": seeds,
        "heads": subject.format(),
        **about(lm),
    }


def spread(pairs: Sequence[Both], codes: np.ndarray) -> float:
    """Variance over seeds of each group's change, relative to the unpruned model's mean, summed over groups."""
    level = np.mean([base.mean() for base, _ in pairs])
    changes = np.stack([(pruned - base) / level for base, pruned in pairs])  # [seeds, n]
    return float(sum(changes[:, codes == g].mean(1).var(ddof=1) for g in range(int(codes.max()) + 1)))
