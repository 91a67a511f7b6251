"""The exported model against the masked one, and what each weighs and does a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from fasp_core.errors import InputError
from fasp_core.export.precise import computing_in, place_of
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import no_grad, torch
from fasp_core.metrics.meters import Report
from fasp_core.model.language_model import LanguageModel, input_device
from fasp_core.model.loading import SPREAD, spread_options
from fasp_core.model.memory import two
from fasp_core.model.passes import in_halves, require_finite

if TYPE_CHECKING:
    from torch import Tensor

LIMIT = 1e-4  # largest difference of a logit
BATCH, LENGTH, REPEATS = 4, 64, 5
FEWEST, PATIENCE = 2, 60.0  # repeats where passes are slow, and seconds after which no further one begins
PROMPTS = (
    "The weather was",
    "My neighbour is a nurse, and on Sundays",
    "He said that women at work",
    "I have two friends who are Muslim and one who is Jewish. All of them",
    "Question: How much should a new engineer be paid each year? Answer: about $",
    'def mean(values):\n    """The arithmetic mean."""\n    return sum(values) / ',
    "In 1912 the railway reached the valley, which until then could be entered only by a mule track over the "
    "southern pass. The first train carried eleven passengers and a piano; the station master's daughter wrote down "
    "their names. Within ten years the village had doubled, the mill had been sold twice, and the old road was so "
    "overgrown that shepherds no longer used it. When the line closed in 1968, hardly anyone remembered",
)


@dataclass(frozen=True)
class Size:
    """What a model holds; weights that are tied count once.

    Attributes
    ----------
    bytes : of the parameters at their precision.
    """

    parameters: int
    nonzero: int
    bytes: int


@dataclass(frozen=True)
class Check:
    """How far the export's logits lie from the masked model's.

    Attributes
    ----------
    difference, dtype : the largest one, in the precision that decided.
    float32 : the largest one in float32.
    prompts, logits : how many were compared.
    """

    difference: float
    dtype: str
    float32: float
    prompts: int
    logits: int


@dataclass(frozen=True)
class Speed:
    """Tokens read a second, both models by turns: medians, and how far the ratio of neighbouring passes lies apart.

    Attributes
    ----------
    low, high : smallest and largest ratio of after to before.
    batch, length : rows and tokens of a row in each pass.
    """

    before: float
    after: float
    low: float
    high: float
    batch: int
    length: int
    repeats: int
    device: str
    dtype: str
    threads: int


def load_back(folder: Path, like: LanguageModel) -> tuple[Any, Any]:
    """(model, tokenizer) as plain transformers loads them, on the device and in the precision of `like`.

    Raises InputError where a weight is missing or left over.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, loading = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=like.model.dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **spread_options(like.spec),
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading.get(kind):
            what = kind.replace("_", " ")
            raise InputError(f"The export was dropped: loaded back, it has {what}. Please report this.")
    if like.spec.device != SPREAD:
        model = model.to(like.device)
    return model.eval(), AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)


def size(model: Any) -> Size:
    """Counted, not computed from a config."""
    parameters = list(model.parameters())  # which gives tied ones once
    return Size(
        sum(p.numel() for p in parameters),
        sum(int(torch.count_nonzero(p)) for p in parameters),
        weight_bytes(model),
    )


def weight_bytes(model: Any) -> int:
    """Bytes of the parameters at their precision; tied ones count once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def check(lm: LanguageModel, removed: PruneSet, model: Any, tokenizer: Any, progress: Report) -> Check:
    """Compare the export with the masked model on `PROMPTS`: in float32, and in float64 where that does not suffice.

    A smaller projection adds its terms in another order. In a model that is much pruned, 30 layers can make a
    thousandth of that in float32, as much as the masked model itself is off; in float64 a difference is a difference.
    16-bit weights are compared in these precisions too. No model is copied: see `computing_in`.

    Raises
    ------
    InputError
        The exported tokenizer reads a prompt in another way, or the logits differ in both precisions.
    """
    if any(list(lm.tokenizer(prompt).input_ids) != list(tokenizer(prompt).input_ids) for prompt in PROMPTS):
        raise InputError("The export was dropped: its tokenizer reads text differently. Please report this.")
    prompts = [[*lm.framing.begin, *lm.tokens(prompt)] for prompt in PROMPTS]
    if any(lm.tokenizer.decode(ids) != tokenizer.decode(ids) for ids in prompts):
        raise InputError("The export was dropped: its tokenizer writes text differently. Please report this.")
    known = int(lm.model.get_input_embeddings().weight.shape[0])
    rows = [[i for i in ids if i < known][: lm.max_positions or 1024] for ids in prompts if ids]
    logits = sum(map(len, rows)) * int(lm.model.config.vocab_size)
    single = largest_difference(lm, model, removed, rows, progress, torch.float32)
    if single <= LIMIT:
        return Check(single, "float32", single, len(rows), logits)
    double = largest_difference(lm, model, removed, rows, progress, torch.float64)
    if not double <= LIMIT:  # NaN as well
        raise InputError(
            f"The export was dropped: its logits differ from the masked model's by up to {double:.2g}, where {LIMIT:g} "
            "is the limit. Please report this."
        )
    return Check(double, "float64", single, len(rows), logits)


@no_grad
def largest_difference(
    whole: LanguageModel,
    small: Any,
    removed: PruneSet,
    rows: list[list[int]],
    progress: Report,
    dtype: torch.dtype | None = None,
) -> float:
    """Largest difference of a logit, over all positions; NaN where a logit of the export is not a number.

    Parameters
    ----------
    dtype : precision in which both compute; None: float32.

    Raises
    ------
    NotFinite
        A logit of the masked model is infinite or not a number.
    """

    dtype = dtype or torch.float32

    def logits(model: Any, ids: list[int]) -> Tensor:
        row = torch.tensor([ids], device=place_of(input_device(model), dtype))
        with nullcontext() if model.dtype == dtype else computing_in(dtype, model):
            found: Tensor = model(row, use_cache=False).logits
        return found

    def run(ids: list[int]) -> float:
        with masked(whole, removed):
            expected = logits(whole.model, ids)
            row = torch.tensor([ids])
            require_finite(whole, float(expected.abs().max()), "the logits that an export is checked by", row)
        found = logits(small, ids)
        return float((found - expected.to(found.device)).abs().max())

    largest = 0.0
    for i, ids in enumerate(rows):
        progress(i, len(rows), f"comparing logits in {str(dtype).removeprefix('torch.')}")
        (difference,) = in_halves(whole, run, ids, lambda row: [row], "a comparison of both models")
        if difference != difference:
            return difference
        largest = max(largest, difference)
    return largest


@no_grad
def speed(lm: LanguageModel, model: Any, progress: Report) -> Speed:
    """Time whole passes of both models over the same random tokens, by turns; the first of each does not count.

    Fewer rows are read where memory does not suffice for `BATCH`.
    """
    vocabulary = int(lm.model.config.vocab_size)
    length = min(LENGTH, lm.max_positions or LENGTH)
    rows = torch.randint(vocabulary, (BATCH, length), generator=torch.Generator().manual_seed(0)).to(lm.device)

    def fits(part: Tensor) -> Tensor:
        for of in (lm.model, model):
            seconds(of, part)
        return part

    def seconds(of: Any, rows: Tensor) -> float:
        with lm.lock:  # of both: nothing else should run on the device meanwhile
            _wait(lm.device)
            start = time.perf_counter()
            of(rows, use_cache=False)
            _wait(lm.device)
            return time.perf_counter() - start

    def turns() -> Iterator[tuple[float, float]]:
        begun = time.perf_counter()
        for i in range(REPEATS):
            if i >= FEWEST and time.perf_counter() - begun > PATIENCE:
                return
            progress(1 + i, REPEATS + 1, "timing")
            yield seconds(lm.model, rows), seconds(model, rows)

    progress(0, REPEATS + 1, "timing")
    rows = in_halves(lm, fits, rows, two, "a row of tokens")[0]
    pairs = list(turns())
    tokens, ratios = rows.numel(), [before / after for before, after in pairs]
    return Speed(
        tokens / median(before for before, _ in pairs),
        tokens / median(after for _, after in pairs),
        min(ratios),
        max(ratios),
        len(rows),
        length,
        len(pairs),
        str(lm.device),
        lm.spec.dtype,
        torch.get_num_threads(),
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
