"""Log-likelihoods of answers, here and by lm-evaluation-harness's own model class: the same items, side by side.

`python -m benchmarks utility --json`

The model, its tokens, the items and the number of threads are the same. The harness runs at the size of batches that is
the fastest for it, of several that are tried; then both run in turns, the first one second in the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks._common import Clock, Unavailable, about, say
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.tasks import files
from fasp_core.tasks.likelihood import encode_pair, log_likelihoods

TASKS = (
    "hellaswag",
    "piqa",
    "arc_easy",
    "boolq",
    "openbookqa",
    "sciq",
    "csqa",
    "socialiqa",
)  # answers share a question


def run(
    lm: LanguageModel | None = None,
    tasks: Sequence[str] = TASKS,
    items: int = 4,
    batch_sizes: Sequence[int] = (1, 4, 16),
    rounds: int = 2,
    threads: int = 2,
) -> dict[str, Any]:
    """Items a second here, and how many times that is what lm-evaluation-harness does.

    Parameters
    ----------
    items : of each task.
    batch_sizes : that are tried for the harness.
    rounds : in which both are timed, the fastest of each counting.

    Raises
    ------
    Unavailable
        The harness is not installed.
    InputError
        The tasks' files are not installed.
    """
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise Unavailable(
            f"lm-evaluation-harness cannot be used ({error}): run 'pip install -r requirements-dev.txt'."
        ) from error
    samples = [files.sample(task, items) for task in tasks]
    pairs = [pair for some in samples for item in some.items for pair in item.pairs]
    lm = lm or load(ModelSpec())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = lm

        def ours() -> np.ndarray:
            return log_likelihoods(model, [encode_pair(model, *pair) for pair in pairs]).values

        def theirs(size: int) -> Callable[[], np.ndarray]:
            harness = HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=size, device=str(model.device))
            requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
            return lambda: np.array([value for value, _ in harness.loglikelihood(requests, disable_tqdm=True)])

        tried = {}
        for size in batch_sizes:
            tried[size] = _timed(theirs(size))[1]
            say(f"utility: lm-evaluation-harness in batches of {size}, {tried[size]:.1f} s")
        best = min(tried, key=lambda size: tried[size])
        ways = {"ours": ours, "lm_eval": theirs(best)}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        values = {}
        for i in range(rounds):
            for name in list(ways)[:: 1 if i % 2 == 0 else -1]:
                values[name], spent = _timed(ways[name])
                seconds[name].append(spent)
                say(f"utility: round {i + 1} of {rounds}, {name}, {spent:.1f} s")
        told = about(lm)
    finally:
        torch.set_num_threads(before)
    asked = sum(len(some.items) for some in samples)
    fastest = {name: min(laps) for name, laps in seconds.items()}
    return {
        "items_per_second": asked / fastest["ours"],
        "ratio_against_lm_eval": fastest["lm_eval"] / fastest["ours"],
        "max_abs_diff_nats": float(np.abs(values["ours"] - values["lm_eval"]).max()),
        "seconds": seconds,
        "lm_eval_batch_size": best,
        "lm_eval_seconds_by_batch_size": tried,
        "items": {some.task: len(some.items) for some in samples},
        "answers": len(pairs),
        **told,
    }


def _timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    clock = Clock()
    with clock.lap():
        found = work()
    return found, clock.seconds
